"""Serve a release on the institution's own premises, in the shape of OpenAI's chat interface.

A release is verified before anything of it is loaded. Prompts and answers reach neither logs nor
errors. The service has no accounts: it listens on loopback, and whoever publishes it further puts
the institution's own access control in front.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audit import signing
from audit.errors import AuditError
from client.errors import ClientError

LARGEST_REQUEST_BYTES = 256 * 1024
LONGEST_ANSWER_TOKENS = 2048
_WAITING = 8  # requests that may queue for the one model before others are turned away
_FACTS_FILE = "release.json"
_log = logging.getLogger("privity.serving")


class Reply(Protocol):
    """An answer and what it cost, in tokens."""

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def prompt_tokens(self) -> int: ...  # noqa: D102
    @property
    def completion_tokens(self) -> int: ...  # noqa: D102
    @property
    def finished(self) -> bool: ...  # noqa: D102


class Engine(Protocol):
    """What answers: the released model, or a stand-in in tests."""

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
    ) -> Reply:
        """Answer a conversation. A setting or length it cannot serve is a ValueError."""


class _Closed(BaseModel):
    # A parameter that is silently ignored would look obeyed, so unknown ones are refused.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class TextPart(_Closed):
    """One text part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_Closed):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """Role and text, parts joined."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        return {"role": self.role, "content": "\n".join(part.text for part in self.content)}


class StreamOptions(_Closed):
    """Whether the last chunk of a stream carries the token counts."""

    include_usage: bool = False


class ChatRequest(_Closed):
    """The part of OpenAI's chat completion request that this service obeys."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=256)]
    max_tokens: Annotated[int, Field(ge=1, le=LONGEST_ANSWER_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=LONGEST_ANSWER_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] = 1.0
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None

    @property
    def limit(self) -> int:
        """Longest answer, in tokens."""
        return self.max_completion_tokens or self.max_tokens or 256


def check_release(release: Path, key: Path) -> dict[str, Any]:
    """Verify a release folder and return its facts.

    Args:
        release: the release folder.
        key: the coordinator's public release key, which came with the invitation and not with
            the release.

    Raises:
        ClientError: exit code 4; the folder is not exactly what that key signed, or the signed
            folder is not a release that this version can read.
    """
    try:
        signing.verify_folder(release, key)
    except AuditError as error:
        raise ClientError(
            f"the release is not served: {error}", code=error.code, exit_code=error.exit_code
        ) from None
    try:
        facts = json.loads((release / _FACTS_FILE).read_text("utf-8"))
        readable = facts["format"] == 1 and isinstance(facts["release"], str)
    except (OSError, ValueError, KeyError, TypeError):
        readable = False
    if not readable:
        raise ClientError(
            f"{release} is signed but is no release that this version reads; update privity",
            code="unknown-release",
            exit_code=4,
        )
    return dict(facts)


def create_app(release: Path, *, key: Path, load: Callable[[], Engine]) -> FastAPI:
    """Verify a release, load it and return the service.

    Args:
        release: the release folder.
        key: the coordinator's public release key.
        load: gives the engine; called once, and only after the release verified.

    Returns:
        An ASGI app with GET /health, GET /v1/models and POST /v1/chat/completions. The model's
        name is the release id. Errors are OpenAI error objects without any text of the request.

    Raises:
        ClientError: exit code 4; the release does not verify. Nothing was loaded then.
    """
    facts = check_release(release, key)
    name = str(facts["release"])
    engine = load()
    seats = threading.BoundedSemaphore(_WAITING)
    one_at_a_time = threading.Lock()
    created = int(time.time())
    # The interactive pages would fetch scripts from elsewhere.
    app = FastAPI(title="Privity", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.release = name
    app.add_middleware(_LimitBody)
    _add_errors(app)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "model": name}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        entry = {"id": name, "object": "model", "created": created, "owned_by": "privity"}
        return {"object": "list", "data": [entry]}

    @app.post("/v1/chat/completions")
    def complete(asked: ChatRequest) -> Response:
        if asked.model != name:
            return _error(404, "the model asked for is not served here", "model_not_found", "model")
        if not seats.acquire(blocking=False):
            return _error(429, "the model is busy; try again shortly", "busy")
        try:
            with one_at_a_time:
                reply = engine.chat(
                    [message.plain() for message in asked.messages],
                    max_new_tokens=asked.limit,
                    temperature=asked.temperature,
                    top_p=asked.top_p,
                )
        except ValueError:
            message = "the conversation or a setting is not one that this model can serve"
            return _error(400, message, "unservable", "messages")
        except Exception as error:  # its text may quote the prompt, so only its type is told
            _log.error("an answer failed with %s", type(error).__name__)
            return _error(500, "the model failed to answer", "internal")
        finally:
            seats.release()
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            chunks = _chunks(name, reply, usage=usage)
            return StreamingResponse(chunks, media_type="text/event-stream")
        return JSONResponse(_completion(name, reply))

    return app


def serve(
    release: Path,
    *,
    key: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    ready: Callable[[str, str], None] = lambda name, address: None,
) -> None:
    """Verify a release and serve it until interrupted.

    Args:
        release: the release folder.
        key: the coordinator's public release key.
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        ready: called with the release id and "host:port" once connections are taken.

    Raises:
        ClientError: the release does not verify (4), the port is taken (5), or `host` is not an
            address of this machine (2). ModelError: its base model is not installed or differs.
    """
    import uvicorn

    from client import engine, listen

    with listen.bind(host, port) as listener:
        app = create_app(release, key=key, load=lambda: engine.load(release))
        listener.listen()
        shown = f"[{host}]" if ":" in host else host
        ready(str(app.state.release), f"{shown}:{listener.getsockname()[1]}")
        # Access logs hold addresses and paths; the institution's own proxy keeps those it needs.
        # The process's logging is left as it is (log_config): it is not the server's to replace.
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, ws="none"
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


class _LimitBody:
    """Turns away a request whose body is too large, whatever its headers say."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts: list[bytes] = []
        size = 0
        async for part in _body(receive):
            size += len(part)
            if not size <= LARGEST_REQUEST_BYTES:
                message = f"the request is larger than {LARGEST_REQUEST_BYTES} bytes"
                await _error(413, message, "too-large")(scope, receive, send)
                return
            parts.append(part)
        whole: Message = {"type": "http.request", "body": b"".join(parts), "more_body": False}
        pending = [whole]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        yield message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        # Only names of our own schema are repeated: an unknown name is the caller's text.
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _error(400, "the body is not JSON", "bad-json")
        known = [part for part in first["loc"][1:] if part in _FIELDS or isinstance(part, int)]
        where = ".".join(str(part) for part in known) or None
        if first["type"] == "extra_forbidden":
            return _error(400, "a parameter is not supported here", "unsupported_parameter", where)
        return _error(400, f"{where or 'the body'} is missing or not valid", "invalid", where)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code in (404, 405):
            return _error(error.status_code, "no such resource or method", "not_found")
        return _error(error.status_code, "the request cannot be read", "invalid")


_FIELDS = {
    name
    for model in (ChatRequest, ChatMessage, TextPart, StreamOptions)
    for name in model.model_fields
}


def _error(status: int, message: str, code: str, param: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": body}, status_code=status)


def _completion(name: str, reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text}
    return {
        "id": _id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(reply)}],
        "usage": _usage(reply),
    }


def _chunks(name: str, reply: Reply, *, usage: bool) -> Iterator[str]:
    """Server-sent events of a finished answer, a word at a time, in OpenAI's chunk format."""
    head = {
        "id": _id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": name,
    }

    def event(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

    yield event({"role": "assistant", "content": ""})
    for i, word in enumerate(reply.text.split(" ")):
        yield event({"content": word if i == 0 else f" {word}"})
    yield event({}, _finish(reply))
    if usage:
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(reply)})}\n\n"
    yield "data: [DONE]\n\n"


def _id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _finish(reply: Reply) -> str:
    return "stop" if reply.finished else "length"


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }
