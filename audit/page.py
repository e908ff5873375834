"""The officer's page: read-only views over bundles, and sign-offs into the officer's own log.

Server-rendered, no script, nothing from elsewhere. This module and its templates are the one door
to FastAPI in this package; the verifier needs none of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import jinja2
from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from audit import page_views, stored
from audit.errors import AuditError
from audit.events import decimal
from audit.index import Query
from audit.page_access import COOKIE, HEADERS, SESSION_SECONDS, Access, Visitor
from audit.page_shelf import Book
from audit.signoff import DECISIONS, Officer

_HERE = Path(__file__).parent
_OPEN = ("/login", "/officer.css")  # what is answered before anybody is known
_MOST_FORM_BYTES = 8192
_MOST_PROBLEMS = 10
_Next = Callable[[Request], Awaitable[Response]]


def create(books: tuple[Book, ...], access: Access, *, officer: Officer | None = None) -> FastAPI:
    """Make the application.

    Args:
        books: the bundles, at least one.
        access: who may see them.
        officer: who signs off; without one the page has no form.
    """
    shelf = {book.key: book for book in books}
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    show = _Templates(shelf, officer)
    _guard(app, access, show)
    _door(app, access, show)
    _views(app, shelf, show)
    _signing(app, shelf, officer, show)
    return app


def _guard(app: FastAPI, access: Access, show: _Templates) -> None:
    """Who is answered at all, and what a refusal looks like."""

    @app.middleware("http")
    async def guard(request: Request, call_next: _Next) -> Response:
        response = await _guarded(request, call_next)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _guarded(request: Request, call_next: _Next) -> Response:
        if not access.answers(request.headers.get("host", "")):
            return PlainTextResponse("this page does not answer to that name\n", 421)
        # Twice means that a proxy added its own to one that it should have removed.
        named = request.headers.getlist(access.header) if access.header else []
        visitor = access.visitor(
            request.cookies.get(COOKIE, ""), named[0] if len(named) == 1 else ""
        )
        request.state.visitor = visitor
        if visitor is None and request.url.path not in _OPEN:
            return show(request, "closed.html", status=401, proxied=bool(access.header))
        return await call_next(request)

    @app.exception_handler(AuditError)
    async def refused(request: Request, error: AuditError) -> Response:
        status = 400 if error.exit_code == 2 else 409
        return show(request, "refused.html", status=status, sentence=str(error))

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: Exception) -> Response:
        return show(request, "refused.html", status=404, sentence="There is no such page.")


def _door(app: FastAPI, access: Access, show: _Templates) -> None:
    """Coming in and going out."""

    @app.get("/officer.css")
    def style() -> Response:
        text = (_HERE / "assets" / "officer.css").read_text(encoding="utf-8")
        return Response(text, media_type="text/css")

    @app.get("/login")
    def log_in(request: Request, token: str = "") -> Response:
        session = access.log_in(token)
        if session is None:
            return show(request, "closed.html", status=401, proxied=bool(access.header))
        response = show(request, "welcome.html")
        # No redirect: a strict cookie is not sent on one that began on another site.
        response.set_cookie(
            COOKIE,
            session,
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path="/",
        )
        return response

    @app.post("/logout")
    async def log_out(request: Request) -> Response:
        await _form(request)
        access.log_out(request.cookies.get(COOKIE, ""))
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, path="/")
        return response


def _views(app: FastAPI, shelf: Mapping[str, Book], show: _Templates) -> None:
    """What a bundle holds, to be looked at."""

    @app.get("/")
    def overview(request: Request) -> Response:
        shown = [
            (book, page_views.budgets(book),
             book.index.search(Query(problems=True), limit=_MOST_PROBLEMS))
            for book in shelf.values()
        ]  # fmt: skip
        return show(request, "overview.html", shown=shown)

    @app.get("/b/{key}")
    def run(request: Request, key: str) -> Response:
        book = _book(shelf, key)
        first = page_views.query({"round": request.query_params.get("first", "")}).round or 0
        names, rows = page_views.grid(book, first)
        return show(
            request,
            "run.html",
            book=book,
            budgets=page_views.budgets(book),
            names=names,
            rows=rows,
            first=first,
            rounds=book.index.number("rounds"),
            step=page_views.ROUNDS,
            timeline=page_views.timeline(book),
        )

    @app.get("/b/{key}/entries")
    def entries(request: Request, key: str) -> Response:
        book, given = _book(shelf, key), dict(request.query_params)
        found = book.index.search(page_views.query(given))
        onward = {name: value for name, value in given.items() if value and name != "before"}
        if found.more:
            onward["before"] = str(found.lines[-1].id)
        return show(
            request, "entries.html", book=book, found=found, given=given, onward=urlencode(onward)
        )

    @app.get("/b/{key}/entry/{log}/{number}")
    def entry(request: Request, key: str, log: str, number: int) -> Response:
        book = _book(shelf, key)
        exact = stored.prove(book.bundle, log, number)
        place = f"{log}:{number}"
        return show(
            request,
            "entry.html",
            book=book,
            exact=exact,
            place=place,
            statement=page_views.statement(exact),
            commands=page_views.commands(book, place),
        )

    @app.get("/b/{key}/entry/{log}/{number}/receipt")
    def receipt(key: str, log: str, number: int) -> Response:
        exact = stored.prove(_book(shelf, key).bundle, log, number)
        return _download(exact.receipt, f"{log}-{number}.tlog-proof", "text/plain")

    @app.get("/b/{key}/entry/{log}/{number}/envelope")
    def envelope(key: str, log: str, number: int) -> Response:
        exact = stored.prove(_book(shelf, key).bundle, log, number)
        return _download(exact.envelope, f"{log}-{number}.dsse.json", "application/json")

    @app.get("/b/{key}/release")
    def release(request: Request, key: str) -> Response:
        book = _book(shelf, key)
        return show(request, "release.html", book=book, steps=page_views.dossier(book))

    @app.get("/b/{key}/witnesses")
    def witnesses(request: Request, key: str) -> Response:
        book = _book(shelf, key)
        return show(request, "witnesses.html", book=book, board=page_views.witnesses(book))


def _signing(
    app: FastAPI, shelf: Mapping[str, Book], officer: Officer | None, show: _Templates
) -> None:
    """What was signed off, and signing off more."""

    @app.get("/b/{key}/signoff")
    def signoffs(request: Request, key: str) -> Response:
        book = _book(shelf, key)
        listed = [] if officer is None else officer.listed(book.bundle)[::-1]
        return show(request, "signoff.html", book=book, listed=listed, decisions=DECISIONS)

    @app.post("/b/{key}/signoff")
    async def sign(request: Request, key: str) -> Response:
        book, given = _book(shelf, key), await _form(request)
        if officer is None:
            raise AuditError(
                "nobody signs off here; start the page with --officer", code="no-officer",
                exit_code=2,
            )  # fmt: skip
        numbers = [page_views.query({"round": given.get(name, "")}).round
                   for name in ("first", "last")]  # fmt: skip
        if None in numbers:
            raise AuditError("give the first and the last entry", code="bad-range", exit_code=2)
        first, last = numbers[0] or 0, numbers[1] or 0
        log = given.get("log", "")
        officer.sign(
            book.bundle,
            log=log,
            first=first,
            last=last,
            decision=given.get("decision", ""),
            holds=book.findings.ok,
            problems=book.index.problems(log, first, last),
        )
        return RedirectResponse(f"/b/{key}/signoff", 303)


def _book(shelf: Mapping[str, Book], key: str) -> Book:
    if key not in shelf:
        raise HTTPException(404)
    return shelf[key]


async def _form(request: Request) -> dict[str, str]:
    """Read a form that this page made.

    Raises:
        AuditError: exit code 2; it is another site's, or too long, or lacks the visitor's token.
    """
    failed = AuditError(
        "this form did not come from this page; go back and load it again",
        code="foreign-form",
        exit_code=2,
    )
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise failed
    body = b""
    async for chunk in request.stream():
        body += chunk
        if not len(body) <= _MOST_FORM_BYTES:
            raise failed
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=16)
    given = {name: values[-1] for name, values in fields.items()}
    visitor: Visitor = request.state.visitor
    if given.get("form") != visitor.form:
        raise failed
    return given


def _download(data: str | bytes, name: str, kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=kind, headers=headers)


class _Templates:
    """Renders a template for a visitor; every value is escaped unless made as markup here."""

    def __init__(self, shelf: dict[str, Book], officer: Officer | None) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["moment"] = lambda t: t.strftime("%Y-%m-%d %H:%M:%S UTC")
        self._environment.filters["decimal"] = decimal
        self._environment.globals.update(shelf=shelf, officer=officer)

    def __call__(
        self, request: Request, name: str, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        visitor = getattr(request.state, "visitor", None)
        template = self._environment.get_template(name)
        text = template.render(visitor=visitor, path=request.url.path, **values)
        return HTMLResponse(text, status)
