"""One person moves a step's sum by at most C, whoever is beside them and however it is computed."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from client import train as site_training
from configs.run import AdapterTable, Plan, TaskTable, TrainingTable
from model import adapter, catalog, prompts
from model import base as base_model
from model.prompts import Example
from model.shapes import Spec
from privacy import arithmetic, dpsgd, trainable
from tests.privacy.toy import (
    QUIET,
    Note,
    Recording,
    Scripted,
    batch_mean,
    pad_mean,
    person_mean,
    sums,
)

ROOT = Path(__file__).parents[2]
ROUNDING = 2.0**-23  # the sums are read back from float32


def _within(moved: Tensor, clip: float, total: Tensor) -> bool:
    return bool(moved.norm() <= clip * (1 + 1e-6) + ROUNDING * total.norm())


notes = st.lists(st.floats(-3, 3, width=32), max_size=8).map(tuple)
# Nobody's labels, all padding, fifty times the others' length, a huge, a broken, an endless one.
ODD: list[Note] = [(), (0.0,) * 3, (2.5,) * 400, (1e4,), (math.nan, 1.0), (1e30,)]


@settings(deadline=None, max_examples=20)
@given(
    people=st.lists(notes, min_size=1, max_size=8),
    odd=st.sampled_from(ODD),
    clip=st.sampled_from([0.01, 0.5, 1.0]),
    chunk_tokens=st.sampled_from([16, 10_000]),
    clipping=st.sampled_from(["flat", "auto"]),
)
def test_removing_a_person_moves_the_clipped_sum_by_at_most_c(
    people: list[Note], odd: Note, clip: float, chunk_tokens: int, clipping: str
) -> None:
    everybody = [*people, odd, people[0]]  # one of them is there twice, as two persons
    more: dict[str, Any] = {"clip_norm": clip, "chunk_tokens": chunk_tokens, "clipping": clipping}
    whole = sums(everybody, **more)
    for gone in (odd, people[0]):
        rest = list(everybody)
        rest.remove(gone)
        without = sums(rest, **more)
        assert _within(whole - without, clip, whole)


@pytest.mark.parametrize("clip", [0.1, 2.0])
def test_a_clipped_person_reaches_c_but_for_the_allowance_for_rounding(clip: float) -> None:
    assert 1e-4 < dpsgd.ALLOWANCE <= 0.01
    for person in ((2.5,) * 400, (1e4,)):
        flat = sums([person], clip_norm=clip).norm().item()
        assert flat == pytest.approx(clip * (1 - dpsgd.ALLOWANCE), rel=1e-5)
        auto = sums([person], clip_norm=clip, clipping="auto").norm().item()
        assert flat * 0.99 < auto < flat


def test_automatic_clipping_normalises_small_gradients_and_flat_leaves_them() -> None:
    people: list[Note] = [(1.0,), (0.2, 0.4)]
    free = {"clip_norm": 1e4, "noise_multiplier": 1e-18}
    raw = [sums([person], **free) for person in people]
    for person, gradient in zip(people, raw, strict=True):
        norm = gradient.norm().item()
        assert 0.1 < norm < 1e3
        auto = sums([person], clip_norm=1e4, clipping="auto", noise_multiplier=1e-18)
        wanted = gradient * (1 - dpsgd.ALLOWANCE) * 1e4 / (norm + 0.01)
        assert torch.allclose(auto, wanted, rtol=1e-5, atol=1e-5)
    assert torch.allclose(sums(people, **free), raw[0] + raw[1], atol=1e-4)


def test_clipping_is_over_all_layers_together_and_one_person_at_a_time() -> None:
    """Two pairs of opposite and unequal people: clipping their mean would leave something else."""
    people: list[Note] = [(2.0,) * 3, (-2.0,), (1.0, -1.0), (0.3,)]
    free = {"clip_norm": 1e4, "noise_multiplier": 1e-18}
    wanted = torch.zeros_like(sums(people))
    for person in people:
        gradient = sums([person], **free)
        wanted += gradient * min(1.0, (1 - dpsgd.ALLOWANCE) * 0.5 / gradient.norm().item())
    assert (sums(people, clip_norm=0.5) - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("wrong", [batch_mean, pad_mean])
def test_a_loss_that_looks_at_batch_mates_would_move_it_by_more(wrong: Any) -> None:
    """The measure can fail: this is what a mean over the batch's tokens, or over padding, does."""
    people: list[Note] = [(0.1,)] * 20
    long: Note = (0.1,) * 400

    def total(everybody: Sequence[Note], loss: Any) -> Tensor:
        # One chunk for all, as wide as the longest of them: what common training code does.
        def widest(model: Any, chunk: Sequence[Note], width: int | None = None) -> Tensor:
            del width
            return loss(model, chunk, max(map(len, everybody)))

        return sums(everybody, loss=widest, size=lambda _: 1, clip_norm=8.0, chunk_tokens=10_000)

    def fits(loss: Any) -> bool:
        whole = total([*people, long], loss)
        return _within(whole - total(people, loss), 8.0, whole)

    assert fits(person_mean)
    assert not fits(wrong)


@settings(deadline=None, max_examples=15)
@given(people=st.lists(notes, min_size=2, max_size=8), who=st.integers(0, 7))
def test_a_persons_contribution_does_not_depend_on_their_batch_mates(
    people: list[Note], who: int
) -> None:
    who %= len(people)
    others = [i for i in range(len(people)) if i != who]
    big = {"clip_norm": 1e6, "chunk_tokens": 10_000, "noise_multiplier": 1e-18}

    def of(*sampled: int) -> Tensor:
        return sums(people, randomness=Scripted(sampled), **big)

    together, rest, alone = of(*range(len(people))), of(*others), of(who)
    assert (together - rest - alone).norm() <= 1e-6 * together.norm() * len(people) + 1e-9


@settings(deadline=None, max_examples=10)
@given(people=st.lists(notes, min_size=2, max_size=30), limit=st.integers(1, 80))
# Several passes of several people of one width, whose gradients are cut: random ones seldom are.
@example(people=[(1.0,), (2.0,), (-3.0,), (0.5,), (1.5,), (-2.0,)], limit=4)
def test_the_physical_batch_size_does_not_change_the_sum(people: list[Note], limit: int) -> None:
    whole = sums(people, chunk_tokens=10_000)
    parts = sums(people, chunk_tokens=limit)
    assert (whole - parts).norm() <= 1e-6 * len(people)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=60),
    gone=st.integers(0, 59),
    limit=st.integers(1, 2000),
)
def test_taking_one_person_away_changes_the_shape_of_one_pass_at_most(
    sizes: list[int], gone: int, limit: int
) -> None:
    def shapes(left: list[int]) -> Counter[tuple[int, int]]:
        split = trainable.chunks(left, size=lambda size: size, limit=limit)
        assert sorted(size for chunk in split for size in chunk.examples) == sorted(left)
        assert all(size <= chunk.width for chunk in split for size in chunk.examples)
        return Counter((len(chunk.examples), chunk.width) for chunk in split if chunk.examples)

    whole, rest = shapes(sizes), shapes([s for i, s in enumerate(sizes) if i != gone % len(sizes)])
    assert (whole - rest).total() <= 1
    assert (rest - whole).total() <= 1


@pytest.mark.parametrize("poison", [(math.nan,), (math.inf, 1.0), (1.0, -math.inf)])
def test_a_person_without_a_finite_gradient_contributes_nothing(poison: Note) -> None:
    people: list[Note] = [(1.0,), (0.5, 2.0), (0.1,) * 9]
    clean = sums(people, clip_norm=0.5)
    for place in range(4):
        spoilt = sums([*people[:place], poison, *people[place:]], clip_norm=0.5)
        assert torch.isfinite(spoilt).all()
        assert (spoilt - clean).norm() <= 1e-6 * clean.norm()


# -- the same through the site's own code: model, adapter, loss, plan ------------------------------


@pytest.fixture(scope="module")
def attached(tiny_home: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVITY_HOME", str(tiny_home))
        base = base_model.load(catalog.find("tiny-llama"), threads=1)
    return adapter.attach(base, Spec(rank=2, alpha=4, seed="properties"))


def _plan(**changes: Any) -> Plan:
    digest = "sha256:" + "0" * 64
    values: dict[str, Any] = {
        "run": "properties", "model": "tiny-llama", "model_digest": digest,
        "adapter": AdapterTable(rank=2), "frozen_digest": digest, "epsilon": 2.0, "delta": 1e-5,
        "noise_multiplier": QUIET, "clip_norm": 0.05, "sample_rate": 1.0, "rounds": 1,
        "steps_per_round": 1, "task": TaskTable(), "institutions": ("clinic",), "quorum": 1,
        "round_timeout_s": 60.0,
        "training": TrainingTable(optimizer="sgd", learning_rate=1.0, max_tokens=1000),
    }  # fmt: skip
    return Plan(**(values | changes))


def _person(seed: int, *lengths: tuple[int, int]) -> tuple[Example, ...]:
    """One example for each (prompt, labels)."""
    draws = np.random.default_rng(seed)
    return tuple(
        Example(tuple(int(t) for t in draws.integers(0, 256, ask + tell)), ask)
        for ask, tell in lengths
    )


def _site_sum(
    model: Any, people: Sequence[tuple[Example, ...]], chunk_tokens: int = 10_000, **changes: Any
) -> Tensor:
    plan = _plan(**changes)
    start = {name: np.zeros_like(array) for name, array in adapter.read(model).items()}
    delta = site_training.train(
        model, people, start, plan, chunk_tokens=chunk_tokens, state=None
    ).delta
    flat = np.concatenate([delta[name].ravel() for name in sorted(delta)]).astype(np.float64)
    return -torch.from_numpy(flat) * len(people)


lengths = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(lengths, min_size=2, max_size=7),
    odd=st.sampled_from([(1, 1), (190, 2), (2, 190), (100, 100)]),
    chunk_tokens=st.sampled_from([64, 300, 10_000]),
    clipping=st.sampled_from(["flat", "auto"]),
    most=st.sampled_from([1, 3]),
)
def test_removing_a_person_at_a_site_moves_the_sum_by_at_most_c(
    attached: Any,
    sizes: list[tuple[int, int]],
    odd: tuple[int, int],
    chunk_tokens: int,
    clipping: str,
    most: int,
) -> None:
    # As many notes as a person may bring, so that both sums are over the same ones.
    people = [_person(i, *[size] * (1 + i % most)) for i, size in enumerate([*sizes, odd])]
    people.append(people[0])
    more: dict[str, Any] = {"clipping": clipping, "notes_per_person": most}
    whole = _site_sum(attached, people, chunk_tokens, **more)
    for gone in (-2, -1):
        rest = [person for i, person in enumerate(people) if i != len(people) + gone]
        assert _within(whole - _site_sum(attached, rest, chunk_tokens, **more), 0.05, whole)


def test_a_machine_that_rounds_people_together_trains_nobody(
    attached: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = arithmetic.Rounding(moved=dpsgd.ALLOWANCE, resized=0.0)
    monkeypatch.setattr(arithmetic, "measure", lambda *given, **more: bad)
    monkeypatch.setattr(site_training, "_measured", WeakKeyDictionary())
    with pytest.raises(dpsgd.UnsupportedModel, match="rounding"):
        _site_sum(attached, [_person(1, (3, 4)), _person(2, (3, 4))])


def test_each_persons_part_of_a_sites_sum_is_theirs_alone(attached: Any) -> None:
    """Unclipped, so that a change of scale, not only of direction, would show."""
    people = [_person(i, size) for i, size in enumerate([(3, 1), (7, 9), (1, 30), (80, 5), (2, 2)])]
    free: dict[str, Any] = {"clip_norm": 1e6, "noise_multiplier": 1e-18}
    alone = torch.stack([_site_sum(attached, [person], **free) for person in people])
    for chunk_tokens in (1, 64, 10_000):
        together = _site_sum(attached, people, chunk_tokens, **free)
        assert (together - alone.sum(0)).norm() <= 1e-5 * alone.norm(dim=1).sum()
    assert alone.norm(dim=1).min() > 1e-3


def test_an_examples_loss_depends_neither_on_its_padding_nor_on_the_others(attached: Any) -> None:
    (one,), (long,) = _person(1, (5, 3)), _person(2, (9, 40))
    alone = prompts.loss(attached, [one]).item()
    for width in (8, 12, 64, 200):
        assert prompts.loss(attached, [one], width).item() == pytest.approx(alone, rel=1e-5)
    for items in ([one, long], [one, long, long, one]):
        assert prompts.loss(attached, items)[0].item() == pytest.approx(alone, rel=1e-5)


def test_a_site_trains_with_the_numbers_of_its_plan(
    attached: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Recording()
    monkeypatch.setattr(site_training, "Csprng", lambda: source)
    people = [_person(i, (3, 4)) for i in range(9)]
    _site_sum(attached, people, sample_rate=0.25, noise_multiplier=1.5, rounds=3, steps_per_round=2)
    assert source.asked == [(9, 0.25)] * 2
    assert set(source.stds) == {1.5 * 0.05}
    weights = sum(weight.requires_grad for weight in attached.parameters())
    assert len(source.stds) == 2 * weights


def test_only_the_adapters_b_changes(attached: Any) -> None:
    before = {name: tensor.clone() for name, tensor in attached.state_dict().items()}
    before |= {name: tensor.clone() for name, tensor in attached.named_buffers()}
    _site_sum(attached, [_person(1, (4, 4)), _person(2, (3, 9))], noise_multiplier=1.0)
    after = attached.state_dict() | dict(attached.named_buffers())
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in after if "lora_B" in name}
    assert moved == {name for name, weight in attached.named_parameters() if weight.requires_grad}


# -- no other way to compute a loss ----------------------------------------------------------------


# Ours, which take the public list of labels.
_OWN = ("prompts.loss", "prompts.made_up", "examine", "summed", "people.group")


def _library_losses(text: str) -> list[str]:
    """Calls that hand labels to a model, or read the loss that it averaged over the batch."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in _OWN:
            found += [ast.unparse(node) for word in node.keywords if word.arg == "labels"]
        if isinstance(node, ast.Attribute) and node.attr == "loss":
            owner = ast.unparse(node.value)
            found += [ast.unparse(node)] if owner not in ("prompts", "preferences") else []
    return found


@pytest.mark.parametrize(
    "path",
    [
        "client/train.py",
        "model/prompts.py",
        "model/preferences.py",
        "model/forward.py",
        "privacy/dpsgd.py",
    ],
)
def test_the_librarys_own_loss_is_not_used(path: str) -> None:
    assert _library_losses((ROOT / path).read_text(encoding="utf-8")) == []


def test_the_search_for_the_librarys_loss_finds_it() -> None:
    assert _library_losses("outputs.loss.backward()")
    assert _library_losses("model(input_ids=ids, labels=ids)")


@pytest.mark.parametrize("shape", [(-1, 1), (1, -1), ()])
def test_a_loss_of_another_shape_than_one_a_person_is_refused(shape: tuple[int, ...]) -> None:
    def wrong(model: Any, chunk: Sequence[Note], width: int | None = None) -> Tensor:
        losses = person_mean(model, chunk, width)
        return losses.sum() if shape == () else losses.view(shape)

    with pytest.raises(dpsgd.UnsupportedModel, match="one loss each"):
        sums([(1.0,), (2.0, 3.0)], loss=wrong)
