from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from model import adapter, base, catalog, prompts, scoring, shapes
from model.base import Base
from model.errors import ModelError

LABELS = ["billing", "bill", "lab", "labour ward", "x"]
ASKED = ["first note", "a second and much longer note about it", "third", ""]


def trained(loaded: Base, stir: Any) -> Any:
    model = adapter.attach(loaded, shapes.Spec(rank=2, seed="s"))
    stir(model)
    return model


def one_by_one(model: Any, loaded: Base, asked: list[str], labels: list[str]) -> np.ndarray:
    """Every prompt with every label on its own, through the plain model."""
    scores = np.zeros((len(asked), len(labels)))
    for i, ask in enumerate(asked):
        start = prompts.prompt(loaded, ask, max_tokens=400)
        for j, label in enumerate(labels):
            ids = torch.tensor([[*start, *prompts.answer(loaded, label)]])
            with torch.no_grad():
                logs = model(ids, use_cache=False).logits[0].log_softmax(-1)
            wanted = ids[0, len(start) :]
            scores[i, j] = logs[len(start) - 1 : -1].gather(1, wanted[:, None]).mean()
    return scores


def test_labels_scored_together_score_as_they_do_alone(tiny: Base, stir: Any) -> None:
    model = trained(tiny, stir)
    together = scoring.likelihoods(model, tiny, ASKED, LABELS).per_token
    np.testing.assert_allclose(together, one_by_one(model, tiny, ASKED, LABELS), atol=2e-5)


def test_batching_changes_no_score(llama: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scoring.likelihoods(llama.model, llama, ASKED, LABELS)
    monkeypatch.setattr(scoring, "_BATCH_TOKENS", 1)
    single = scoring.likelihoods(llama.model, llama, ASKED, LABELS)
    np.testing.assert_allclose(whole.per_token, single.per_token, atol=1e-5)
    np.testing.assert_allclose(whole.among, single.among, atol=1e-5)


def test_apart_every_instruction_has_a_pass_of_its_own(
    llama: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[tuple[int, ...]]] = []
    real = scoring._score
    monkeypatch.setattr(
        scoring,
        "_score",
        lambda model, asked, tree: passes.append(asked) or real(model, asked, tree),
    )
    whole = scoring.choose(llama.model, llama, ASKED, LABELS, rule="choice", apart=True)
    assert sorted(len(ids) for (ids,) in passes) == sorted(
        len(prompts.prompt(llama, text, max_tokens=400)) for text in ASKED
    )
    for place, text in enumerate(ASKED):  # to the last bit, whoever else is asked
        alone = scoring.choose(llama.model, llama, [text], LABELS, rule="choice", apart=True)
        assert alone.confidence[0] == whole.confidence[place]
        assert alone.best[0] == whole.best[place]


def test_calibration_subtracts_what_a_label_scores_after_nothing(llama: Base, stir: Any) -> None:
    model = trained(llama, stir)
    raw = scoring.likelihoods(model, llama, ASKED, LABELS).per_token
    free = scoring.likelihoods(model, llama, ["N/A", ""], LABELS).per_token.mean(axis=0)
    found = scoring.classify(model, llama, ASKED, LABELS)
    assert found == list((raw - free).argmax(axis=1))
    plain = scoring.classify(model, llama, ASKED, LABELS, rule="likelihood")
    assert plain == list(raw.argmax(axis=1))


def test_the_probabilities_among_the_labels_sum_to_one(tiny: Base, stir: Any) -> None:
    model = trained(tiny, stir)
    among = scoring.likelihoods(model, tiny, ASKED, LABELS).among
    np.testing.assert_allclose(np.exp(among).sum(axis=1), 1.0, atol=1e-5)
    found = scoring.classify(model, tiny, ASKED, LABELS, rule="choice")
    assert found == list(among.argmax(axis=1))


def test_one_label_of_one_token_is_scored(llama: Base) -> None:
    assert scoring.classify(llama.model, llama, ["x"], [""]) == [0]


@pytest.mark.parametrize("labels", [[], ["a", "a"], ["a", " a "]])
def test_missing_or_equal_labels_are_refused(llama: Base, labels: list[str]) -> None:
    with pytest.raises(ModelError, match="labels"):
        scoring.classify(llama.model, llama, ["x"], labels)


def test_a_scorecard_counts_what_was_found(llama: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.eye(3)[[0, 0, 1, 0]]
    monkeypatch.setattr(scoring, "_scores", lambda *a, **k: scores)
    rows = [("p", "a"), ("q", "a"), ("r", "b"), ("s", "b")]
    card = scoring.score(llama.model, llama, rows, ["a", "b", "c"])
    assert (card.records, card.accuracy) == (4, 0.75)
    # a: 2 hits, 2 true, 3 found -> 0.8; b: 1 hit, 2 true, 1 found -> 2/3; c does not occur.
    assert card.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    wanted = [
        prompts.loss(llama.model, [prompts.encode(llama, *row, max_tokens=400)]).item()
        for row in rows
    ]
    assert card.loss == pytest.approx(sum(wanted) / 4, rel=1e-5)


def test_perplexity_is_the_exponential_of_the_mean_loss(llama: Base) -> None:
    rows = [("ask", "reply"), ("more", "words here")]
    values = scoring.losses(llama.model, llama, rows)
    assert scoring.perplexity(llama.model, llama, rows) == pytest.approx(math.exp(values.mean()))


def test_a_response_that_is_no_label_is_refused_and_not_quoted(llama: Base) -> None:
    with pytest.raises(ModelError, match="1 of 2 records") as caught:
        scoring.score(llama.model, llama, [("x", "a"), ("y", "Jane Doe")], ["a"])
    assert "Jane" not in str(caught.value)
    with pytest.raises(ModelError, match="no records"):
        scoring.score(llama.model, llama, [], ["a"])


def test_progress_ends_at_the_whole_and_the_mode_is_put_back(llama: Base) -> None:
    seen: list[tuple[int, int]] = []
    llama.model.train()
    scoring.score(
        llama.model, llama, [("x", "a")] * 3, ["a", "b"], progress=lambda d, n: seen.append((d, n))
    )
    assert seen[-1] == (3, 3)
    assert seen == sorted(seen)
    assert llama.model.training


def test_training_on_labels_raises_the_score(llama: Base) -> None:
    model = adapter.attach(llama, shapes.Spec(rank=4, alpha=32, seed="s"))
    rows = [("alpha", "yes"), ("omega", "no")] * 2
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    before = scoring.score(model, llama, rows, ["yes", "no"])
    batch = [prompts.encode(llama, *row, max_tokens=99) for row in rows]
    for _ in range(40):
        optimizer.zero_grad()
        prompts.loss(model, batch).mean().backward()
        optimizer.step()
    after = scoring.score(model, llama, rows, ["yes", "no"])
    assert after.loss < 0.5 * before.loss
    assert after.accuracy == 1.0


@pytest.mark.base
def test_the_default_model_prefers_sense_to_the_same_words_shuffled() -> None:
    loaded = base.load(catalog.pull(catalog.DEFAULT))
    ask = "What is the capital of France?"
    sense, shuffled = (
        scoring.perplexity(loaded.model, loaded, [(ask, reply)])
        for reply in ("The capital of France is Paris.", "Paris is the of France capital.")
    )
    assert sense < 5 < shuffled
