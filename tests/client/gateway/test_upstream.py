"""Another engine answers through the same service; what it says about a question stays there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.errors import ClientError
from client.gateway.question import Busy, Failed, Part, Question, Unservable
from client.gateway.upstream import UpstreamEngine
from configs.serving import EngineTable
from tests.client.serving_world import SECRET, Fake, make_app

ASKED = Question("r1", ({"role": "user", "content": SECRET},), stops=("x",))


def engine(handler: Any, **settings: Any) -> UpstreamEngine:
    table = EngineTable(upstream="http://up.example/v1", **settings)
    return UpstreamEngine(table, ("r1",), transport=httpx.MockTransport(handler))


async def parts(it: UpstreamEngine, question: Question = ASKED) -> list[Part]:
    try:
        return [part async for part in it.answer(question)]
    finally:
        await it.close()


def events(*values: Any) -> bytes:
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def choice(finish: str | None = None, **delta: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_a_stream_is_passed_on_word_by_word_with_its_counts() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        counts = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
        said = events(
            choice(role="assistant"), choice(content="two"), choice(content=" words"),
            choice("stop"), counts, "[DONE]",
        )  # fmt: skip
        return httpx.Response(200, content=said)

    found = asyncio.run(parts(engine(answer, upstream_model="clinic")))
    assert "".join(part.text for part in found) == "two words"
    assert (found[-1].finish, found[-1].prompt_tokens, found[-1].tokens) == ("stop", 9, 2)
    assert len(found) == 3
    body = json.loads(seen[0].content)
    assert str(seen[0].url) == "http://up.example/v1/chat/completions"
    assert (body["model"], body["stream"], body["stop"]) == ("clinic", True, ["x"])
    assert "structured_outputs" not in body


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        (httpx.Response(429, headers={"retry-after": "7"}, text=SECRET), Busy),
        (httpx.Response(400, text=SECRET), Unservable),
        (httpx.Response(500, text=SECRET), Failed),
        (httpx.Response(302, headers={"location": "http://evil.example"}), Failed),
        (httpx.Response(200, content=b"data: {\n\n"), Failed),
        (httpx.Response(200, content=events({"error": {"message": SECRET}})), Failed),
        (httpx.Response(200, content=events(choice(content="cut"))), Failed),
    ],
)
def test_its_refusals_become_ours_without_its_words(response: httpx.Response, fault: type) -> None:
    with pytest.raises(fault) as caught:
        asyncio.run(parts(engine(lambda request: response)))
    assert SECRET not in str(caught.value)
    if isinstance(caught.value, Busy):
        assert caught.value.seconds == 7


@pytest.mark.parametrize("words", [("ca", "rds "), ("a story about", " cards")])
def test_an_answer_that_is_no_label_is_no_answer(words: tuple[str, str]) -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content)["structured_outputs"])
        said = events(*(choice(content=word) for word in words), choice("length"), "[DONE]")
        return httpx.Response(200, content=said)

    asked = Question("r1", ASKED.messages, choices=("cards", "loans"))
    if words[0] == "ca":
        (part,) = asyncio.run(parts(engine(answer), asked))
        assert (part.text, part.finish) == ("cards", "stop")
    else:
        with pytest.raises(Failed):
            asyncio.run(parts(engine(answer), asked))
    assert seen == [{"choice": ["cards", "loans"]}]


def test_a_line_ends_at_a_newline_and_at_no_other_sign() -> None:
    said = "one\u2028two\u2029three\x85four"
    raw = json.dumps(choice("stop", content=said), ensure_ascii=False)
    for end in ("\n\n", "\r\n\r\n"):
        body = f"data: {raw}{end}data: [DONE]{end}".encode()
        it = engine(lambda request, body=body: httpx.Response(200, content=body))
        assert "".join(part.text for part in asyncio.run(parts(it))) == said


def test_a_line_without_end_is_not_kept() -> None:
    class Endless(httpx.AsyncByteStream):
        sent = 0

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while self.sent < 64:
                self.sent += 1
                yield b"x" * 65536

    stream = Endless()
    it = engine(lambda request: httpx.Response(200, stream=stream))
    with pytest.raises(Failed, match="bad-upstream"):
        asyncio.run(parts(it))
    assert stream.sent < 32


def test_who_cannot_be_reached_is_a_failure() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(SECRET)

    with pytest.raises(Failed) as caught:
        asyncio.run(parts(engine(refuse)))
    assert caught.value.code == "unreachable"


def test_no_more_are_sent_than_it_may_be_asked_at_once() -> None:
    async def stall(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.1)
        return httpx.Response(200, content=events(choice(content="x"), choice("stop"), "[DONE]"))

    async def one(it: UpstreamEngine) -> list[Part]:
        return [part async for part in it.answer(ASKED)]

    async def all_() -> list[Any]:
        it = engine(stall, rows=2, queue=1)
        return await asyncio.gather(*(one(it) for _ in range(5)), return_exceptions=True)

    found = asyncio.run(all_())
    assert sum(isinstance(it, Busy) for it in found) == 2
    assert sum(isinstance(it, list) for it in found) == 3


def test_who_leaves_closes_the_connection_behind() -> None:
    closed = []

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield events(choice(content="x "))
                await asyncio.sleep(0)

        async def aclose(self) -> None:
            closed.append(True)

    async def act() -> None:
        it = engine(lambda request: httpx.Response(200, stream=Endless()))
        words = it.answer(ASKED)
        await anext(words)
        await words.aclose()
        assert it.load().running == 0

    asyncio.run(act())
    assert closed == [True]


def test_its_key_is_read_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-1\n")
    file.chmod(0o644)
    with pytest.raises(ClientError, match="chmod"):
        engine(None, upstream_key=str(file))
    file.chmod(0o600)
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, content=events(choice(content="x"), choice("stop"), "[DONE]"))

    asyncio.run(parts(engine(answer, upstream_key=str(file))))
    assert seen == ["Bearer sk-1"]
    with pytest.raises(ClientError, match="cannot be read"):
        engine(None, upstream_key=str(tmp_path / "none"))


def test_our_own_service_is_an_engine_that_it_understands(tmp_path: Path) -> None:
    app = make_app(tmp_path, Fake())
    table = EngineTable(upstream="http://127.0.0.1/v1")
    it = UpstreamEngine(table, ("r1",), transport=httpx.ASGITransport(app=app))
    question = Question("r1", ({"role": "user", "content": SECRET},))
    found = asyncio.run(parts(it, question))
    assert "".join(part.text for part in found) == "the cards desk"
    assert (found[-1].prompt_tokens, found[-1].tokens) == (7, 3)
    raw = Question("r1", ({"role": "user", "content": "x"},), raw=True)
    it = UpstreamEngine(table, ("r1",), transport=httpx.ASGITransport(app=app))
    assert "".join(part.text for part in asyncio.run(parts(it, raw))) == "the cards desk"
