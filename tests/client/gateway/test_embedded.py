"""The embedded engine: real streaming from one batch, whoever comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client.gateway.embedded import EmbeddedEngine
from client.gateway.question import Busy, Failed, Part, Question, Unservable
from model import base, catalog, generation, scoring
from model.base import Base
from model.batching import Batch
from tests.conftest import TINY

PATH = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def tiny(tiny_home: Any) -> Base:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVITY_HOME", str(tiny_home))
        return base.load(catalog.find(TINY))


@pytest.fixture
def run(tiny: Base) -> Any:
    """Run a coroutine function against a fresh engine, which is closed afterwards."""

    def go(
        act: Callable[[EmbeddedEngine], Coroutine[Any, Any, Any]],
        *,
        rows: int = 4,
        waiting: int = 4,
        **more: Any,
    ) -> Any:
        async def whole() -> Any:
            engine = EmbeddedEngine(
                Batch(tiny.model, tiny, rows=rows), tiny, waiting=waiting, **more
            )
            try:
                return await asyncio.wait_for(act(engine), 60)
            finally:
                await engine.close()

        return asyncio.run(whole())

    return go


def ask(text: str, **settings: Any) -> Question:
    messages = ({"role": "user", "content": text},)
    return Question("base", messages, **{"max_new_tokens": 24, **settings})


async def said(engine: EmbeddedEngine, question: Question) -> str:
    return "".join([part.text async for part in engine.answer(question)])


def alone(tiny: Base, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    return generation.chat(tiny.model, tiny, messages, max_new_tokens=24).text


def test_many_at_once_get_what_each_would_get_alone(run: Any, tiny: Base) -> None:
    texts = [f"question {number}" for number in range(8)]

    async def act(engine: EmbeddedEngine) -> list[str]:
        return await asyncio.gather(*(said(engine, ask(text)) for text in texts))

    assert run(act) == [alone(tiny, text) for text in texts]


def test_words_come_before_the_answer_is_whole(run: Any) -> None:
    async def act(engine: EmbeddedEngine) -> list[Part]:
        return [part async for part in engine.answer(ask("hello"))]

    parts = run(act)
    assert len(parts) > 5
    assert [part.finish for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1].finish == "length"
    assert parts[-1].tokens == 24
    assert parts[0].prompt_tokens > 5


def test_a_crowd_is_turned_away_and_a_place_that_gets_free_is_given_again(run: Any) -> None:
    async def act(engine: EmbeddedEngine) -> list[Any]:
        crowd = (said(engine, ask(f"q{number}")) for number in range(30))
        first = await asyncio.gather(*crowd, return_exceptions=True)
        return [first, await said(engine, ask("later"))]

    first, later = run(act, rows=2, waiting=3)
    busy = [it for it in first if isinstance(it, Busy)]
    assert len(busy) == 25
    assert all(it.seconds >= 1 for it in busy)
    assert sum(isinstance(it, str) and bool(it) for it in first) == 5
    assert later


def test_who_leaves_frees_the_place_at_once(run: Any) -> None:
    async def act(engine: EmbeddedEngine) -> None:
        async def leave_early(parts: AsyncGenerator[Part, None]) -> None:
            async with aclosing(parts):
                async for _ in parts:
                    return

        long = ask("x", max_new_tokens=200)
        waiting = [asyncio.ensure_future(said(engine, long)) for _ in range(3)]
        await leave_early(engine.answer(long))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        done = asyncio.Event()
        await engine.change(done.set)  # everything before it was done
        assert (engine.load().running, engine.load().waiting) == (0, 0)

    run(act, rows=1)


@pytest.mark.parametrize(
    "question",
    [
        ask("x", max_new_tokens=100_000),
        Question("none", ({"role": "user", "content": "x"},)),
        Question("base", ({"role": "assistant", "content": "x"},)),
        ask("x", choices=("a", "a")),
        ask("x" * 5000),
    ],
)
def test_what_it_cannot_answer_is_refused_before_it_waits(run: Any, question: Question) -> None:
    async def act(engine: EmbeddedEngine) -> None:
        with pytest.raises(Unservable):
            await said(engine, question)

    run(act)


def test_a_text_is_continued_as_it_is(run: Any, tiny: Base) -> None:
    async def act(engine: EmbeddedEngine) -> list[Part]:
        messages = ({"role": "user", "content": "abc"},)
        asked = Question("base", messages, max_new_tokens=3, raw=True)
        return [part async for part in engine.answer(asked)]

    assert run(act)[-1].prompt_tokens == len(tiny.tokenizer("abc")["input_ids"])


def test_a_choice_is_the_label_that_scoring_finds_likeliest(run: Any, tiny: Base) -> None:
    labels = ("cards", "loans", "fraud desk", "other")
    texts = [f"text {number}" for number in range(12)]

    async def act(engine: EmbeddedEngine) -> list[str]:
        asked = (said(engine, ask(text, choices=labels)) for text in texts)
        return await asyncio.gather(*asked, said(engine, ask("plain")))

    *chosen, plain = run(act, waiting=20)
    best = scoring.classify(tiny.model, tiny, texts, labels, rule="choice")
    assert chosen == [labels[place] for place in best]
    assert plain == alone(tiny, "plain")


def test_a_release_comes_and_goes_between_two_tokens(run: Any, tiny: Base) -> None:
    generator = np.random.default_rng(3)
    a = {f"{PATH}.A": generator.standard_normal((2, 32)).astype(np.float32)}
    b = {f"{PATH}.B": 9 * generator.standard_normal((32, 2)).astype(np.float32)}

    async def act(engine: EmbeddedEngine) -> tuple[str, str]:
        before = asyncio.ensure_future(said(engine, ask("hello", max_new_tokens=60)))
        await engine.change(lambda: engine.shelf.put("r2", b, a, scale=1.0))
        assert engine.models == ("r2", "base")
        messages = ({"role": "user", "content": "hello"},)
        tuned = asyncio.ensure_future(said(engine, Question("r2", messages, max_new_tokens=60)))
        await asyncio.sleep(0)
        await engine.remove("r2")
        with pytest.raises(Unservable):
            await said(engine, Question("r2", messages, max_new_tokens=60))
        return await before, await tuned

    before, tuned = run(act)
    assert before.startswith(alone(tiny, "hello"))
    assert tuned
    assert tuned != before


def test_a_release_that_left_while_a_question_was_read_fails_nobody_else(
    run: Any, tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = {f"{PATH}.A": np.ones((2, 32), np.float32)}
    b = {f"{PATH}.B": np.ones((32, 2), np.float32)}

    async def act(engine: EmbeddedEngine) -> str:
        await engine.change(lambda: engine.shelf.put("r2", b, a, scale=1.0))
        prepare = engine._prepare

        async def slowly(question: Question) -> Any:
            ready = await prepare(question)
            if question.model == "r2":
                await engine.remove("r2")
            return ready

        monkeypatch.setattr(engine, "_prepare", slowly)
        other = asyncio.ensure_future(said(engine, ask("hello", max_new_tokens=60)))
        await asyncio.sleep(0)
        with pytest.raises(Unservable):
            await said(engine, replace(ask("x"), model="r2"))
        return await other

    assert run(act).startswith(alone(tiny, "hello"))


def test_a_fault_fails_those_who_are_answered_and_the_next_are_served(
    run: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Batch.step
    broken = [True]

    def fail_once(self: Batch) -> Any:
        if broken:
            broken.clear()
            raise RuntimeError("hello is in this text")
        return step(self)

    monkeypatch.setattr(Batch, "step", fail_once)

    async def act(engine: EmbeddedEngine) -> str:
        with pytest.raises(Failed):
            await said(engine, ask("hello"))
        return await said(engine, ask("hello"))

    assert run(act)
    assert "RuntimeError" in caplog.text
    assert "hello" not in caplog.text


def test_a_sampler_is_asked_for_with_every_question(run: Any) -> None:
    seen: list[Question] = []

    def sampling(question: Question) -> Any:
        seen.append(question)
        return lambda logits, tokens: 65

    async def act(engine: EmbeddedEngine) -> str:
        return await said(engine, ask("hello", max_new_tokens=3))

    assert len(set(run(act, sampling=sampling))) == 1
    assert len(seen) == 1


def test_whoever_waits_when_it_stops_is_told(run: Any) -> None:
    async def act(engine: EmbeddedEngine) -> None:
        waits = asyncio.ensure_future(said(engine, ask("x", max_new_tokens=200)))
        await asyncio.sleep(0.05)
        await engine.close()
        with pytest.raises(Failed):
            await waits
        with pytest.raises(Busy):
            await said(engine, ask("x"))

    run(act)
