"""What a person brings into a step, and that a machine is examined before people are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client import train as training
from configs.load import check
from configs.run import Plan
from model import prompts
from privacy import arithmetic
from privacy.csprng import Csprng
from privacy.errors import UnsupportedModel

transformers = pytest.importorskip("transformers")
DIGEST = "sha256:" + "0" * 64
NAMES = tuple(f"layer {number}" for number in range(2))


def _plan(**changes: Any) -> Plan:
    training_table = {"max_tokens": 60, "optimizer": "sgd"}
    values: dict[str, Any] = {
        "run": "triage", "model": "tiny", "model_digest": DIGEST, "adapter": {},
        "frozen_digest": DIGEST, "epsilon": 2.0, "delta": 1e-5, "noise_multiplier": 1e-9,
        "clip_norm": 1.0, "sample_rate": 1.0, "rounds": 1, "steps_per_round": 1,
        "training": training_table, "task": {}, "institutions": ["clinic-a"], "quorum": 1,
        "round_timeout_s": 60.0,
    }  # fmt: skip
    return check(values | changes, Plan, "plan")


def _note(number: int, tokens: int) -> prompts.Example:
    return prompts.Example(tuple((number * 13 + at * 7) % 40 for at in range(tokens)), tokens // 2)


def test_one_note_of_a_person_is_drawn_evenly() -> None:
    person = [_note(number, 10) for number in range(4)]
    source, plan = Csprng(), _plan()
    drawn = Counter(training.draw(person, plan, source) for _ in range(4000))
    assert set(drawn) == set(person)
    assert all(abs(count - 1000) < 4.5 * np.sqrt(750) for count in drawn.values())


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(2, 60), min_size=1, max_size=8),
    most=st.integers(2, 16),
)
def test_a_person_brings_distinct_notes_of_their_own_within_the_limit(
    sizes: list[int], most: int
) -> None:
    person = [_note(number, size) for number, size in enumerate(sizes)]
    item = training.draw(person, _plan(notes_per_person=most), Csprng())
    assert isinstance(item, prompts.Pack)  # also of one note: the same arithmetic for everyone
    assert 1 <= len(item.notes) <= min(most, len(person))
    assert item.tokens <= 60
    assert len({id(note) for note in item.notes}) == len(item.notes)
    assert {id(note) for note in item.notes} <= {id(note) for note in person}


def test_every_pair_of_notes_is_drawn_as_often() -> None:
    person = [_note(number, 10) for number in range(4)]
    source, plan = Csprng(), _plan(notes_per_person=2)
    pairs = Counter(training.draw(person, plan, source).notes for _ in range(6000))
    assert len(pairs) == 12
    assert all(abs(count - 500) < 4.5 * np.sqrt(500 * 11 / 12) for count in pairs.values())


class _Tiny:
    """The adapter's side of a tiny model, in place of `model.adapter` on a pulled one."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        config = transformers.LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        )  # fmt: skip
        self.model = transformers.LlamaForCausalLM(config).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.weights = {
            name: self.model.model.layers[number].self_attn.o_proj.weight
            for number, name in enumerate(NAMES)
        }
        for weight in self.weights.values():
            weight.requires_grad_(True)

    def read(self, model: Any) -> dict[str, Any]:
        return {name: weight.detach().numpy().copy() for name, weight in self.weights.items()}

    def change(self, model: Any, start: dict[str, Any]) -> dict[str, Any]:
        return {name: array - start[name] for name, array in self.read(model).items()}

    def write(self, model: Any, arrays: dict[str, Any]) -> None:
        for name, weight in self.weights.items():
            weight.data.copy_(torch.from_numpy(arrays[name]))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> _Tiny:
    from model import adapter

    made = _Tiny()
    monkeypatch.setattr(adapter, "read", made.read)
    monkeypatch.setattr(adapter, "write", made.write)
    monkeypatch.setattr(adapter, "change", made.change)
    return made


def _change(tiny: _Tiny, people: Any, plan: Plan, chunk_tokens: int = 512) -> dict[str, Any]:
    start = tiny.read(None)
    done = training.train(tiny.model, people, start, plan, chunk_tokens=chunk_tokens, state=None)
    tiny.write(None, start)
    return dict(done.delta)


@pytest.mark.parametrize("clipping", ["flat", "auto"])
@pytest.mark.parametrize("notes", [1, 3])
def test_short_chunks_and_recomputed_layers_change_nothing_but_rounding(
    tiny: _Tiny, clipping: str, notes: int
) -> None:
    people = [tuple(_note(7 * p + n, 12) for n in range(notes)) for p in range(5)]
    plan = _plan(clipping=clipping, notes_per_person=notes)
    whole = _change(tiny, people, plan)
    assert all(np.abs(array).max() > 1e-6 for array in whole.values())
    for tokens in (64, 8):  # with 8, every note is longer than a chunk
        part = _change(tiny, people, plan, tokens)
        for name in NAMES:
            np.testing.assert_allclose(part[name], whole[name], atol=2e-6)


def test_the_plans_clipping_is_the_one_that_is_used(tiny: _Tiny) -> None:
    people = [(_note(1, 12),), (_note(2, 20),)]
    found = {
        clipping: _change(tiny, people, _plan(clipping=clipping, clip_norm=1e-3))
        for clipping in ("flat", "auto")
    }
    assert any(not np.allclose(found["flat"][n], found["auto"][n], rtol=1e-4) for n in NAMES)


def test_the_machine_is_examined_once_and_before_any_person_is_touched(
    tiny: _Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    measure, start = arithmetic.measure, tiny.read(None)

    def counted(*args: Any, brief: bool = False, **kwargs: Any) -> arithmetic.Rounding:
        now = tiny.read(None)
        # With the adapter that training begins with, what is trained could add up to nothing.
        assert brief or all(0.05 < np.abs(now[n] - start[n]).max() < 0.15 for n in NAMES)
        calls.append(brief)
        return measure(*args, brief=brief, **kwargs)

    monkeypatch.setattr(arithmetic, "measure", counted)
    plan = _plan()
    training.examine(tiny.model, plan, chunk_tokens=128)
    assert all(np.array_equal(tiny.read(None)[n], start[n]) for n in NAMES)
    _change(tiny, [(_note(1, 12),)], plan, 128)
    assert calls == [False, True, True]  # briefly again, where the round begins and where it ends
    training.examine(tiny.model, plan, chunk_tokens=256)
    assert calls[3:] == [False]


@pytest.mark.parametrize(("start", "rate"), [(1e8, 1e-3), (1.0, 1e7)])
def test_weights_whose_rounding_mixes_people_are_refused_before_and_after_a_round(
    tiny: _Tiny, monkeypatch: pytest.MonkeyPatch, start: float, rate: float
) -> None:
    """The adapter and the learning rate are the coordinator's, and may be meant to do that."""

    def measure(*_: Any, **__: Any) -> arithmetic.Rounding:
        large = max(float(weight.detach().abs().max()) for weight in tiny.weights.values())
        return arithmetic.Rounding(moved=0.0, resized=1e-8 * large)

    drawn: list[int] = []
    draw = training.draw
    monkeypatch.setattr(training, "draw", lambda *a: drawn.append(1) or draw(*a))
    monkeypatch.setattr(arithmetic, "measure", measure)
    table = {"max_tokens": 60, "optimizer": "adamw", "learning_rate": rate}
    adapter = {name: (array * start).astype(np.float32) for name, array in tiny.read(None).items()}
    with pytest.raises(UnsupportedModel, match="learning rate"):
        training.train(tiny.model, [(_note(1, 12),)], adapter, _plan(training=table),
                       chunk_tokens=128, state=None)  # fmt: skip
    assert len(drawn) == (start == 1.0)


def test_people_on_a_machine_that_mixes_them_are_not_touched(
    tiny: _Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = arithmetic.Rounding(moved=0.0, resized=2e-3)
    monkeypatch.setattr(arithmetic, "measure", lambda *_, **__: bad)
    monkeypatch.setattr(training, "draw", None)
    with pytest.raises(UnsupportedModel):
        _change(tiny, [(_note(1, 12),)], _plan())
