"""A row of a batch gets what it would get alone, whoever joins and leaves around it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from model import adapter, batching, frozen, generation, prompts
from model.base import Base
from model.batching import Ask, Batch
from model.errors import ModelError
from model.shelf import Shelf

TEXTS = ("hello", "a much longer question, about nothing at all, " * 3, "x", "why?", "no " * 25)


def ask(base: Base, text: str, **settings: Any) -> Ask:
    ids = prompts.conversation(base, [{"role": "user", "content": text}], max_tokens=400)
    return Ask(ids, **{"max_new_tokens": 12, **settings})


def alone(base: Base, text: str, model: Any = None, tokens: int = 12) -> str:
    messages = [{"role": "user", "content": text}]
    return generation.chat(model or base.model, base, messages, max_new_tokens=tokens).text


def drain(batch: Batch, said: dict[Any, str]) -> None:
    while len(batch):
        for piece in batch.step():
            said[piece.key] = said.get(piece.key, "") + piece.text


def test_a_batch_says_what_each_row_would_be_told_alone(tiny: Base) -> None:
    batch = Batch(tiny.model, tiny, prefill=64)
    said: dict[Any, str] = {}
    for text in TEXTS:
        batch.admit(text, ask(tiny, text))
    drain(batch, said)
    assert said == {text: alone(tiny, text) for text in TEXTS}


def test_rows_that_join_and_leave_change_no_other_row(llama: Base) -> None:
    draws = random.Random(5)
    expected = {text: alone(llama, text, tokens=20) for text in TEXTS}
    batch, said, names = Batch(llama.model, llama, rows=4, prefill=32), {}, {}
    waiting = [draws.choice(TEXTS) for _ in range(24)]
    evicted, number = set(), 0
    while waiting or len(batch):
        while waiting and batch.has_room(asked := ask(llama, waiting[-1], max_new_tokens=20)):
            names[number] = waiting.pop()
            batch.admit(number, asked)
            number += 1
        for piece in batch.step():
            assert piece.key not in evicted
            said[piece.key] = said.get(piece.key, "") + piece.text
        if draws.random() < 0.1 and number:
            gone = draws.randrange(number)
            batch.evict(gone)
            evicted.add(gone)
    whole = {key for key in names if key not in evicted}
    assert len(whole) > 5
    assert {key: said[key] for key in whole} == {key: expected[names[key]] for key in whole}
    for key in evicted:
        assert expected[names[key]].startswith(said.get(key, ""))


def test_the_cache_never_holds_more_than_its_tokens(llama: Base) -> None:
    batch = Batch(llama.model, llama, rows=64, tokens=256, prefill=64)
    small = ask(llama, "x", max_new_tokens=8)
    count = 0
    while batch.has_room(small):
        batch.admit(count, small)
        count += 1
    assert 1 < count <= 256 // small.width
    drain(batch, {})
    one_token = batch.held // 256
    assert batch.held <= 256 * one_token
    assert not batch._slab.fits(5, 64)
    with pytest.raises(ValueError, match="tokens"):
        batch._slab.reserve(5, 64, used=0)


def test_each_row_has_its_own_adapter_and_the_base_has_none(
    llama: Base, load: Callable[[str], Base], stir: Callable[[Any], None]
) -> None:
    expected = {None: alone(llama, "hello")}
    shelf = Shelf(llama.model)
    for name, rank in (("one", 2), ("two", 4)):
        other = load("llama")
        spec = adapter.Spec(seed=name, rank=rank, alpha=8)
        model = adapter.attach(other, spec)
        stir(model)
        expected[name] = alone(other, "hello", model)
        shelf.put(name, adapter.read(model), frozen.factors(other.folder, spec), scale=8 / rank)
    assert len(set(expected.values())) == 3
    batch, said = Batch(llama.model, llama, shelf=shelf), {}
    for name in (None, "one", "two"):
        batch.admit(name, ask(llama, "hello", adapter=name))
    drain(batch, said)
    assert said == expected
    shelf.remove("one")
    with pytest.raises(ModelError, match="adapter"):
        batch.check(ask(llama, "hello", adapter="one"))
    batch.admit("two", ask(llama, "hello", adapter="two"))
    drain(batch, again := {})
    assert again["two"] == expected["two"]


def test_an_adapter_that_does_not_fit_changes_nothing(llama: Base) -> None:
    shelf = Shelf(llama.model)
    path = "model.layers.0.self_attn.q_proj"
    a, b = np.zeros((2, 32), np.float32), np.zeros((32, 2), np.float32)
    wrong = ({f"{path}.B": b[:5]}, {f"{path}.A": a}), ({}, {f"{path}.A": a}), ({}, {})
    for trained, fixed in (*wrong, ({f"{path}.B": b, "x.B": b}, {f"{path}.A": a})):
        with pytest.raises(ModelError):
            shelf.put("bad", trained, fixed, scale=1.0)
    assert shelf.names == ()


def test_settings_belong_to_their_row(llama: Base) -> None:
    torch.manual_seed(1)
    batch, said = Batch(llama.model, llama), {}
    batch.admit("greedy", ask(llama, "hello"))
    for number in range(4):
        batch.admit(number, ask(llama, "hello", temperature=2.0, top_p=0.9))
    batch.admit("short", ask(llama, "hello", max_new_tokens=3))
    drain(batch, said)
    assert said["greedy"] == alone(llama, "hello")
    assert said["short"] == alone(llama, "hello", tokens=3)
    assert len({said[number] for number in range(4)}) > 1


def test_a_small_top_p_is_the_likeliest_token() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0])
    assert {batching.sample(logits, temperature=2.0, top_p=0.01) for _ in range(20)} == {1}
    seen = {batching.sample(logits, temperature=2.0, top_p=0.8) for _ in range(200)}
    assert seen == {1, 2}


def test_a_sampler_chooses_in_place_of_the_temperature(llama: Base) -> None:
    seen: list[tuple[int, ...]] = []

    def sampler(logits: np.ndarray, tokens: Sequence[int]) -> int:
        assert (logits.shape, logits.dtype) == ((264,), np.float32)
        seen.append(tuple(tokens))
        return int(logits.argmin())

    asked = ask(llama, "hello", sampler=sampler, max_new_tokens=3)
    batch, said = Batch(llama.model, llama), {}
    batch.admit("unlikely", asked)
    batch.admit("greedy", ask(llama, "hello"))
    drain(batch, said)
    assert said["greedy"] == alone(llama, "hello")
    assert said["unlikely"] != said["greedy"][:3]
    assert [len(tokens) for tokens in seen] == [0, 1, 2]
    assert seen[2][:1] == seen[1]


def test_an_answer_ends_before_a_stop_and_never_shows_its_beginning(llama: Base) -> None:
    whole = alone(llama, "hello")
    stop = whole[5:8]
    batch, pieces = Batch(llama.model, llama), []
    batch.admit(0, ask(llama, "hello", stops=(stop, "never said")))
    while len(batch):
        pieces += batch.step()
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)].rstrip()
    assert pieces[-1].finish == "stop"
    assert pieces[-1].tokens < 12


@pytest.mark.parametrize(
    "setting",
    [{"max_new_tokens": 0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"stops": ("",)},
     {"max_new_tokens": 10_000}, {"adapter": "none"}],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_beforehand(llama: Base, setting: dict) -> None:
    with pytest.raises(ModelError):
        Batch(llama.model, llama).check(ask(llama, "hello", **setting))


def test_a_conversation_does_not_show_in_a_repr(llama: Base) -> None:
    assert "ids" not in repr(ask(llama, "hello"))


@pytest.mark.base
def test_the_embedded_model_answers_in_a_batch_as_alone() -> None:
    from model import base, catalog

    real = base.load(catalog.find("smollm2-135m-instruct"))
    texts = ("What is the capital of France?", "Name three colours.", "Say 你好 and an emoji.")
    batch, said = Batch(real.model, real), {}
    for text in texts:
        batch.admit(text, ask(real, text, max_new_tokens=16))
    drain(batch, said)
    assert said == {text: alone(real, text, tokens=16) for text in texts}
