from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import adapter, prompts, scoring, shapes
from model.base import Base
from model.errors import ModelError
from model.labels import Labels

TEXTS = ("billing", "bill", "lab", "labour ward", "x")


def test_every_answer_is_a_path_through_the_tree(tiny: Base) -> None:
    tree = Labels.of(tiny, TEXTS)
    for answer, edges in zip(tree.answers, tree.edges, strict=True):
        assert tuple(token for _, token in edges) == answer
        assert answer in tree
        assert [len(c) >= 1 and t in c for c, t in zip(tree.choices(answer), answer, strict=True)]
    assert (0,) not in tree


def test_what_is_no_label_has_no_choices_and_is_not_quoted(tiny: Base) -> None:
    tree = Labels.of(tiny, TEXTS)
    with pytest.raises(ModelError, match="none of the labels"):
        tree.choices(prompts.answer(tiny, "Jane Doe"))


@pytest.mark.parametrize("texts", [(), ("a", "a")])
def test_missing_or_equal_labels_are_refused(tiny: Base, texts: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="labels must be given"):
        Labels.of(tiny, texts)


def test_the_loss_among_labels_is_minus_the_logarithm_of_the_labels_probability(
    tiny: Base, stir: Any
) -> None:
    model = adapter.attach(tiny, shapes.Spec(rank=2, seed="s"))
    stir(model)
    tree = Labels.of(tiny, TEXTS)
    asked = "which desk is it for"
    notes = [prompts.encode(tiny, asked, text, max_tokens=200) for text in TEXTS]
    with torch.no_grad():
        losses = prompts.loss(model, notes, labels=tree)
    among = scoring.likelihoods(model, tiny, [asked], TEXTS).among[0]
    torch.testing.assert_close(-losses.double(), torch.from_numpy(among), atol=2e-5, rtol=0)
    assert float((-losses).exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_a_pack_of_labelled_notes_has_the_mean_of_their_losses(llama: Base, stir: Any) -> None:
    model = adapter.attach(llama, shapes.Spec(rank=2, seed="s"))
    stir(model)
    tree = Labels.of(llama, TEXTS)
    notes = [prompts.encode(llama, f"ask {n}", text, max_tokens=90) for n, text in enumerate(TEXTS)]
    with torch.no_grad():
        alone = prompts.loss(model, notes, labels=tree)
        packed = prompts.loss(model, [prompts.pack(notes, max_tokens=500)], labels=tree)
    torch.testing.assert_close(packed[0], alone.mean(), atol=1e-5, rtol=1e-5)


# The model is only read.
@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.text("abcd ", min_size=1, max_size=6).map(str.strip), min_size=1, max_size=12))
def test_a_nodes_followers_are_exactly_what_continues_a_label_there(
    llama: Base, texts: set[str]
) -> None:
    tree = Labels.of(llama, sorted(texts))
    for place, node in enumerate([(), *tree.nodes]):
        wanted = {a[len(node)] for a in tree.answers if a[: len(node)] == node}
        assert set(tree.followers[place]) == wanted
