"""Pages for people: try a model beside another, judge answers, review judgements, sign in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader
from pydantic import Field, StringConstraints

from client.gateway.feedback import FeedbackStore, Judgement
from client.gateway.formats import Closed
from client.gateway.guard import COOKIE
from client.gateway.keys import KeyFile
from client.gateway.replies import ChatMessage, error
from client.gateway.service import Service

_FOLDER: Final = Path(__file__).parent / "pages"
_ASSETS: Final = {"style.css": "text/css", "chat.js": "text/javascript"}
_SHOWN: Final = 50
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # Not "no-referrer": browsers then send the forms of our own pages with the origin "null".
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_Text = Annotated[str, Field(max_length=100_000)]
# Without blanks around it, as in records: whoever withdraws is to be found by it.
_Person = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class FeedbackRequest(Closed):
    """What somebody says about an answer."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    model: Annotated[str, Field(min_length=1, max_length=200)]
    verdict: Literal["up", "down"]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=256)]
    answer: _Text
    correction: _Text | None = None
    comment: Annotated[str, Field(max_length=10_000)] | None = None
    person: _Person | None = None
    consented: bool = False
    user: Annotated[str, Field(max_length=200)] | None = None


def router(service: Service, store: FeedbackStore | None, keys: KeyFile | None) -> APIRouter:
    """The pages over one service; without a store nothing can be judged."""
    routes = APIRouter()

    def page(name: str, **values: Any) -> HTMLResponse:
        with_keys = keys is not None and bool(keys.rows()) and name != "sign-in.html"
        return _page(name, reviews=store is not None, with_keys=with_keys, **values)

    @routes.get("/")
    async def front() -> Response:
        return RedirectResponse("/chat", status_code=303)

    @routes.get("/assets/{name}")
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            return error(404, "no such resource or method", "not_found")
        return Response(_asset(name), media_type=_ASSETS[name], headers=_HEADERS)

    @routes.get("/chat")
    async def chat(request: Request) -> Response:
        may_judge = store is not None and "feedback" in request.state.caller.scopes
        models = service.routes.models
        labels = {name: service.labels(name) for name in models}
        return page(
            "chat.html", models=models, other=models[-1], labels=labels, may_judge=may_judge
        )

    @routes.get("/sign-in")
    async def ask_for_key(request: Request) -> Response:
        to = "/feedback" if request.query_params.get("to") == "/feedback" else "/chat"
        return page("sign-in.html", to=to, wrong="wrong" in request.query_params)

    @routes.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        form = await _form(request)
        to = "/feedback" if form.get("to") == "/feedback" else "/chat"
        key = form.get("key", "").strip()
        if keys is None or keys.find(key) is None:
            return RedirectResponse(f"/sign-in?to={to}&wrong", status_code=303)
        answer = RedirectResponse(to, status_code=303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=secure)
        return answer

    @routes.post("/sign-out")
    async def sign_out() -> Response:
        answer = RedirectResponse("/sign-in", status_code=303)
        answer.delete_cookie(COOKIE)
        return answer

    if store is not None:
        _add_feedback(routes, service, store, page)
    return routes


def _add_feedback(
    routes: APIRouter, service: Service, store: FeedbackStore, page: Callable[..., HTMLResponse]
) -> None:
    @routes.post("/v1/feedback")
    async def judge(said: FeedbackRequest, request: Request) -> Response:
        if said.person is not None and not said.consented:
            return error(
                400, "a person is kept only with consented: true", "no-consent", "consented"
            )
        judgement = Judgement(
            said.id,
            said.model,
            f"{request.state.caller.name}/{said.user or ''}",
            said.verdict,
            tuple(message.plain() for message in said.messages),
            said.answer,
            said.correction or None,
            said.comment or None,
            said.person,
        )
        await asyncio.to_thread(store.add, judgement)
        service.metrics.judged(said.verdict)
        return JSONResponse({"kept": True})

    @routes.get("/feedback")
    async def review() -> Response:
        rows = await asyncio.to_thread(store.rows, "new", most=_SHOWN)
        counts = await asyncio.to_thread(store.counts)
        return page("review.html", rows=rows, counts=counts)

    @routes.post("/feedback/{number}")
    async def decide(number: int, request: Request) -> Response:
        decision = (await _form(request)).get("decision")
        if decision not in ("accepted", "rejected"):
            return error(400, "a decision is accepted or rejected", "invalid", "decision")
        if not await asyncio.to_thread(store.review, number, decision):  # type: ignore[arg-type]
            return error(404, "no such resource or method", "not_found")
        return RedirectResponse("/feedback", status_code=303)


async def _form(request: Request) -> Mapping[str, str]:
    """A form's fields; ours are few and short, so the standard library reads them."""
    text = (await request.body()).decode("utf-8", errors="replace")
    try:
        return {name: values[-1] for name, values in parse_qs(text, max_num_fields=20).items()}
    except ValueError:
        return {}


def _page(name: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(name).render(**values), headers=_HEADERS)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


@cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
