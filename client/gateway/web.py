"""The routes of the service that programs use: models, chat, completions, health, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from client.gateway import replies
from client.gateway.keys import Caller
from client.gateway.metrics import CONTENT_TYPE
from client.gateway.policy import Refused
from client.gateway.question import Busy, Failed, Part, Question, Unservable
from client.gateway.replies import ChatRequest, CompletionRequest, Envelope, error
from client.gateway.service import Draining, Service


def router(service: Service) -> APIRouter:
    """The routes over one service."""
    routes = APIRouter()
    created = int(time.time())

    @routes.get("/health")
    @routes.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok", "model": service.routes.stable}

    @routes.get("/health/ready")
    async def ready() -> Response:
        if service.draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        return JSONResponse({"status": "ok"})

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE)

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"object": "model", "created": created, "owned_by": "privity"}
        data = [{"id": name, **entry, **_choosing(service, name)} for name in service.routes.models]
        return {"object": "list", "data": data}

    @routes.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        messages = tuple(message.plain() for message in asked.messages)
        return await _answer(service, asked, messages, request, raw=False)

    @routes.post("/v1/completions")
    async def complete(asked: CompletionRequest, request: Request) -> Response:
        messages = ({"role": "user", "content": asked.prompt},)
        return await _answer(service, asked, messages, request, raw=True)

    return routes


def _choosing(service: Service, model: str) -> dict[str, list[str]]:
    """The labels of a model that only chooses, beside what OpenAI's interface says of a model."""
    labels = service.labels(model)
    return {"labels": list(labels)} if labels else {}


async def _answer(
    service: Service,
    asked: ChatRequest | CompletionRequest,
    messages: tuple[dict[str, str], ...],
    request: Request,
    *,
    raw: bool,
) -> Response:
    caller: Caller = request.state.caller
    # A user is known by the key and by what the key's owner calls them; the digest goes no further.
    user = f"{caller.name}/{asked.user or ''}"
    model = service.route(asked.model, user)
    if model is None:
        return error(404, "the model asked for is not served here", "model_not_found", "model")
    question = Question(
        model,
        messages,
        asked.limit,
        asked.temperature,
        asked.top_p,
        asked.stops,
        asked.choices,
        raw,
    )
    envelope = Envelope(model, chat=not raw)
    parts = service.answer(question, user=user)
    # The first part is awaited before a status is sent, so that a refusal has its own.
    first = asyncio.ensure_future(anext(parts))
    gone = asyncio.ensure_future(_gone(request))
    tasks: list[asyncio.Future[Any]] = [first, gone]
    try:
        await asyncio.wait({first, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            await _stop(first)
            await parts.aclose()
            return Response(status_code=499)
        try:
            part = first.result()
        except Exception as fault:
            return _refusal(fault)
        if asked.stream:
            gone.cancel()  # from here on the response itself notices
            events = _events(envelope, part, parts, asked, sign=partial(service.record, question))
            return StreamingResponse(
                events, media_type="text/event-stream", headers={"cache-control": "no-store"}
            )
        rest = asyncio.ensure_future(_rest(part, parts))
        tasks.append(rest)
        await asyncio.wait({rest, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not rest.done():
            await _stop(rest)
            await parts.aclose()
            return Response(status_code=499)
        try:
            text, last = rest.result()
            text = asked.written(text)
        except Exception as fault:
            return _refusal(fault)
        counts = replies.usage(last.prompt_tokens, last.tokens)
        record = service.record(question, text)
        body = envelope.whole(text, last.finish or "length", counts, record)
        return JSONResponse(body, headers={"cache-control": "no-store"})
    finally:
        for task in tasks:
            task.cancel()


async def _rest(part: Part, parts: AsyncGenerator[Part, None]) -> tuple[str, Part]:
    texts = [part.text]
    async for part in parts:
        texts.append(part.text)
    return "".join(texts), part


async def _events(
    envelope: Envelope,
    first: Part,
    parts: Any,
    asked: ChatRequest | CompletionRequest,
    *,
    sign: Callable[[str], Mapping[str, Any] | None],
) -> AsyncIterator[str]:
    async with aclosing(parts):
        if opening := envelope.opening():
            yield opening
        part = first
        texts = []
        while True:
            texts.append(part.text)
            if part.text and not asked.choices:
                yield envelope.piece(part.text)
            if part.finish is not None:
                break
            try:
                part = await anext(parts)
            except (Failed, Refused, StopAsyncIteration):
                yield envelope.broken()
                return
        text = asked.written("".join(texts))
        if asked.choices:  # one of a few answers has no beginning that could come sooner
            yield envelope.piece(text)
        usage = replies.usage(part.prompt_tokens, part.tokens) if asked.usage else None
        # Let the answer be noted before the client hears that it is over.
        with suppress(StopAsyncIteration):
            await anext(parts)
        yield envelope.closing(part.finish, usage, sign(text))


async def _gone(request: Request) -> None:
    """Return once the client has closed the connection."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


async def _stop(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task


def _refusal(fault: Exception) -> Response:
    if isinstance(fault, Busy):
        headers = {"retry-after": str(fault.seconds)}
        return error(429, "the model is busy; try again shortly", "busy", headers=headers)
    if isinstance(fault, Draining):
        headers = {"retry-after": "5", "connection": "close"}
        return error(503, "the service is about to restart", "draining", headers=headers)
    if isinstance(fault, Unservable):
        message = "the conversation or a setting is not one that this model can serve"
        return error(400, message, "unservable", "messages")
    if isinstance(fault, Refused):
        message = "the policy of this site does not let the text through"
        return error(400, message, f"policy-{fault.code}", "messages")
    if isinstance(fault, Failed) and fault.code in ("unreachable", "cut-short", "upstream-error"):
        return error(502, "the engine behind this service does not answer", "bad_gateway")
    return error(500, "the model failed to answer", "internal")


# What was wanted, in words that quote nothing of what was sent.
_WANTS: Final = {
    "missing": "is missing",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
}


def add_errors(app: FastAPI) -> None:
    """Answer what cannot be read with OpenAI error objects that quote nothing."""

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, fault: RequestValidationError) -> Response:
        # Only names of our own schema are repeated: an unknown name is the caller's text.
        first = fault.errors()[0]
        if first["type"] == "json_invalid":
            return error(400, "the body is not JSON", "bad-json")
        known = [
            part for part in first["loc"][1:] if part in replies.FIELDS or isinstance(part, int)
        ]
        where = ".".join(str(part) for part in known) or None
        if first["type"] == "extra_forbidden" or (known and known[0] in replies.UNUSED):
            message = f"{where or 'a parameter'} is not supported here"
            return error(400, message, "unsupported_parameter", where)
        if known and known[0] == "response_format":
            message = "response_format may be text, or a json_schema of one choice among strings"
            return error(400, message, "unsupported_parameter", where)
        wants = _WANTS.get(first["type"], "is not valid").format(**first.get("ctx", {}))
        return error(400, f"{where or 'the body'} {wants}", "invalid", where)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, fault: HTTPException) -> Response:
        if fault.status_code in (404, 405):
            return error(fault.status_code, "no such resource or method", "not_found")
        return error(fault.status_code, "the request cannot be read", "invalid")
