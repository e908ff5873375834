"""Another engine with OpenAI's interface, such as vLLM, behind the same service."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx

from client.errors import ClientError
from client.gateway.question import Busy, Failed, Finish, Load, Part, Question, Unservable
from configs.serving import EngineTable

_FINISHES: Final[Mapping[str, Finish]] = {"stop": "stop", "length": "length"}
_LONGEST_LINE: Final = 1 << 20


class UpstreamEngine:
    """Asks an engine elsewhere, always by streaming, so that a client that goes stops it too."""

    def __init__(
        self,
        settings: EngineTable,
        models: tuple[str, ...],
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare to ask.

        Args:
            settings: its address, its name for the model, its key, how long to wait, how many at
                once (rows + queue).
            models: the releases that it serves, as they are called here.
            transport: stands for the network in tests.

        Raises:
            ClientError: the file with its key cannot be read.
        """
        self._settings, self._models = settings, models
        headers = {}
        if settings.upstream_key:
            headers["authorization"] = f"Bearer {_key(Path(settings.upstream_key))}"
        self._client = httpx.AsyncClient(
            base_url=settings.upstream.rstrip("/") + "/",
            headers=headers,
            timeout=httpx.Timeout(settings.timeout_s, connect=5.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            transport=transport,
            # A proxy of the environment would see questions that are not meant to leave.
            trust_env=False,
            follow_redirects=False,
        )
        self._running = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The releases that it serves."""
        return self._models

    def load(self) -> Load:
        """Questions on their way; what waits there is not known here."""
        room = self._running < self._settings.rows + self._settings.queue
        return Load(running=self._running, patience=0 if room else 1)

    async def answer(self, question: Question) -> AsyncGenerator[Part, None]:
        """Ask there; see `question.Engine`."""
        if patience := self.load().patience:
            raise Busy(patience)
        self._running += 1
        try:
            said = ""
            async with aclosing(self._ask(question)) as parts:
                async for part in parts:
                    said += part.text
                    if not question.choices:
                        yield part
                    elif part.finish is not None:
                        # An engine that does not know the parameter may answer with anything.
                        if said.strip() not in question.choices:
                            raise Failed("no-choice")
                        yield replace(part, text=said.strip(), finish="stop")
        except httpx.HTTPError:
            raise Failed("unreachable") from None
        finally:
            self._running -= 1

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, question: Question) -> AsyncGenerator[Part, None]:
        path, body = self._request(question)
        async with self._client.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                _refuse(response)
            count = prompt = 0
            finish: Finish | None = None
            async for line in _lines(response):
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    break
                event = _event(data)
                counts = event.get("usage")
                if isinstance(counts, dict):
                    prompt = int(counts.get("prompt_tokens") or prompt)
                    count = int(counts.get("completion_tokens") or count)
                text, ended = _said(event)
                finish = ended or finish
                if text:
                    count += not isinstance(counts, dict)
                    yield Part(text, prompt, count)
            if finish is None:
                raise Failed("cut-short")
            yield Part("", prompt, count, finish)

    def _request(self, question: Question) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": self._settings.upstream_model or question.model,
            "max_tokens": question.max_new_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if question.stops:
            body["stop"] = list(question.stops)
        if question.choices:
            body["structured_outputs"] = {"choice": list(question.choices)}
        if question.raw:
            return "completions", {**body, "prompt": question.messages[0]["content"]}
        return "chat/completions", {**body, "messages": [dict(m) for m in question.messages]}


def _refuse(response: httpx.Response) -> None:
    """Turn its refusal into ours; what it says may quote the question and is not repeated."""
    if response.status_code in (429, 503):
        seconds = response.headers.get("retry-after", "1")
        raise Busy(min(60, int(seconds)) if seconds.isdigit() else 1)
    if response.status_code in (400, 413, 422):
        raise Unservable("refused-upstream")
    raise Failed("upstream-error")


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Lines up to a newline only: other signs that httpx ends a line at may stand in an answer."""
    rest = b""
    async for some in response.aiter_bytes():
        *lines, rest = (rest + some).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _LONGEST_LINE:
            raise Failed("bad-upstream")
    yield rest


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        raise Failed("bad-upstream") from None
    if not isinstance(event, dict) or "error" in event:
        raise Failed("upstream-error")
    return event


def _said(event: Mapping[str, Any]) -> tuple[str, Finish | None]:
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "", None
    choice = choices[0]
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
    finish = choice.get("finish_reason")
    return (text if isinstance(text, str) else ""), _FINISHES.get(finish) if finish else None


def _key(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise ClientError(f"{path} is readable by others; run chmod 600 on it", code="open-key")
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ClientError(
            f"{path} cannot be read; correct engine.upstream_key", code="no-upstream-key"
        ) from None
