"""`privity client review`: the sample of a dry run on loopback, read and decided record by record.

One link opens it, once: its key becomes a cookie and is worth nothing afterwards. Forms work
without script; each carries the session's own word against forged posts. Answers are never stored
by the browser and load nothing from anywhere.
"""

from __future__ import annotations

import html
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from client import review_html as pages
from client import review_lists
from client.errors import ClientError
from client.review import VERDICTS, Review

_COOKIE: Final = "privity-review"
_LARGEST: Final = 64 * 1024
_MOST_WORDS: Final = 50
_LONGEST_WORD: Final = 200
_SAID: Final = {
    "accepted": "Accept: no identifier is left and the text still makes sense",
    "missed": "Reject: an identifier is left",
    "damaged": "Reject: too much was taken",
}


class _Session:
    """One link, one browser."""

    def __init__(self, key: str) -> None:
        self.key: str | None = key
        self.cookie = secrets.token_urlsafe(32)
        self.word = secrets.token_urlsafe(16)
        self.lock = threading.Lock()

    def redeem(self, key: str) -> bool:
        """Say whether this is the link's key, used for the first time."""
        with self.lock:
            good = self.key is not None and secrets.compare_digest(key.encode(), self.key.encode())
            if good:
                self.key = None
            return good


def create_app(review: Review, *, key: str, hosts: Callable[[], frozenset[str]]) -> FastAPI:
    """Make the service.

    Args:
        review: what is read.
        key: of the one link.
        hosts: the Host headers that are answered, so that no foreign name can lead here.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    session = _Session(key)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        if request.headers.get("host", "") not in hosts():
            answer: Response = _refused("This address is not the review's.")
        elif request.url.path == "/open" and request.method == "GET":
            answer = await call_next(request)
        elif not secrets.compare_digest(
            request.cookies.get(_COOKIE, "").encode(), session.cookie.encode()
        ):
            answer = _refused("Open the link that the command printed; it works once.")
        else:
            answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = pages.POLICY
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        return answer

    @app.exception_handler(ClientError)
    async def refuse(request: Request, fault: ClientError) -> Response:
        del request
        return _page("Not done", f'<p class="note bad">{html.escape(str(fault))}</p>', code=400)

    @app.exception_handler(HTTPException)
    async def missing(request: Request, fault: HTTPException) -> Response:
        del request
        return _page("Not here", '<p>There is no such page. <a href="/">The review</a></p>',
                     code=fault.status_code)  # fmt: skip

    @app.get("/open")
    async def enter(key: str = "") -> Response:
        if not session.redeem(key):
            return _refused("This link was used already, or is not the one that was printed.")
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(_COOKIE, session.cookie, httponly=True, samesite="strict", path="/")
        return answer

    @app.get("/")
    async def overview() -> Response:
        return _overview(review, session.word)

    @app.get("/record/{number}")
    async def record(number: int) -> Response:
        if not 1 <= number <= len(review.items):
            raise HTTPException(404)
        return _record(review, number, session.word)

    @app.post("/record/{number}")
    async def decide(number: int, request: Request) -> Response:
        form = await _form(request, session.word)
        if not 1 <= number <= len(review.items):
            raise HTTPException(404)
        deny = [
            (kind, text.strip()[:_LONGEST_WORD])
            for kind, text in zip(form.get("kind", []), form.get("text", []), strict=False)
            if text.strip() and kind in review_lists.TYPES
        ][:_MOST_WORDS]
        allow = [text for text in form.get("allow", []) if _stands(review, number - 1, text)]
        review.decide(number - 1, form.get("verdict", [""])[0], deny=deny, allow=allow)
        undecided = _undecided(review, number)
        where = "/#done" if undecided is None else f"/record/{undecided}"
        return RedirectResponse(where, status_code=303)

    @app.post("/finish")
    async def finish(request: Request) -> Response:
        form = await _form(request, session.word)
        review.finish(form.get("reviewer", [""])[0].strip())
        return RedirectResponse("/", status_code=303)

    @app.get("/report")
    async def report() -> Response:
        return HTMLResponse(pages.report(review.document))

    return app


async def _form(request: Request, word: str) -> dict[str, list[str]]:
    """The fields of a posted form, if this session's own page posted it."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            raise HTTPException(413)
    try:
        form = parse_qs(body.decode("ascii"), max_num_fields=400, keep_blank_values=True)
    except ValueError:
        raise HTTPException(400) from None
    if not secrets.compare_digest(form.get("word", [""])[0].encode(), word.encode()):
        raise ClientError("the page is out of date; load it again", code="bad-word")
    return form


def _stands(review: Review, number: int, text: str) -> bool:
    """Say whether a text is one of a record's spans: nothing else may be allowed from here."""
    return any(
        half["before"][start:end] == text
        for half in review.items[number]["halves"]
        for start, end, _ in half["spans"]
    )


def _undecided(review: Review, after: int) -> int | None:
    """The next record without a verdict, from 1; those before come last."""
    total = len(review.items)
    order = [*range(after + 1, total + 1), *range(1, after + 1)]
    return next((n for n in order if str(n - 1) not in review.decisions), None)


def _page(title: str, body: str, *, code: int = 200) -> Response:
    inside = f'<header><h1>{html.escape(title)}</h1></header><main id="main">{body}</main>'
    return HTMLResponse(pages.page(title, inside), status_code=code)


def _refused(sentence: str) -> Response:
    return _page("Not open", f"<p>{html.escape(sentence)}</p>", code=403)


def _word(word: str) -> str:
    return f'<input type="hidden" name="word" value="{html.escape(word)}">'


def _overview(review: Review, word: str) -> Response:
    counts, bound = review.counts(), review.bound()
    undecided = _undecided(review, 0)
    total = counts["sampled"]
    parts = [pages.reading(review.document)]
    shown = (("decided", total - counts["open"]), ("open", counts["open"]),
             ("accepted", counts["accepted"]), ("with a miss", counts["missed"]),
             ("too much taken", counts["damaged"]))  # fmt: skip
    tiles = "".join(f"<li><b>{number}</b><span>{name}</span></li>" for name, number in shown)
    parts.append(f'<h2 id="done">The reading</h2><ul class="tiles">{tiles}</ul>')
    if bound is not None:
        parts.append(f"<p>{html.escape(pages.sentence({**counts, 'miss_bound': bound}))}</p>")
    if undecided is not None:
        started = "Go on" if bound is not None else "Begin"
        parts.append(
            f'<p class="row"><a class="button" href="/record/{undecided}">{started} with record '
            f"{undecided}</a></p>"
        )
    if bound is not None:
        parts.append(
            f'<form method="post" action="/finish">{_word(word)}<fieldset><legend>Sign the reading'
            '</legend><label for="reviewer">Your name or initials</label>'
            '<div class="pair"><input type="text" id="reviewer" name="reviewer" maxlength="63" '
            'required pattern="[A-Za-z0-9][A-Za-z0-9._\\-]*" autocomplete="off" '
            'aria-describedby="logged"><button>Sign into the log</button></div>'
            '<p class="soft" id="logged">The log gets this name, the counts above and the bound, '
            "and nothing of any record. Letters, digits, dot, dash, underline.</p></fieldset>"
            "</form>"
        )
    rows = "".join(_line(review, n) for n in range(1, total + 1))
    parts.append(f'<h2>The records</h2><ol class="list">{rows}</ol>')
    parts.append("<h2>The whole file</h2>")
    parts += pages.figures(review.document)
    parts.append('<p class="row"><a class="button plain" href="/report">The report without any '
                 "record</a></p>")  # fmt: skip
    return _page("De-identification: a sample to read", "".join(parts))


def _line(review: Review, number: int) -> str:
    decision = review.decisions.get(str(number - 1))
    said = "open" if decision is None else decision["verdict"]
    return (
        f'<li><a href="/record/{number}">Record {number}</a> <span class="soft">{said}</span></li>'
    )


def _record(review: Review, number: int, word: str) -> Response:
    item, total = review.items[number - 1], len(review.items)
    decision: Mapping[str, Any] = review.decisions.get(str(number - 1), {})
    picks = "".join(
        f'<label class="pick"><input type="radio" name="verdict" value="{verdict}" required'
        f"{' checked' if decision.get('verdict') == verdict else ''}> {html.escape(_SAID[verdict])}"
        "</label>"
        for verdict in VERDICTS
    )
    missed = [*decision.get("deny", []), *[("PERSON", "")] * 3][:_MOST_WORDS]
    lines = "".join(_missed(n, kind, text) for n, (kind, text) in enumerate(missed, start=1))
    taken = dict.fromkeys(
        (half["before"][start:end], name)
        for half in item["halves"] for start, end, name in half["spans"]
    )  # fmt: skip
    wrong = "".join(
        f'<label class="pick"><input type="checkbox" name="allow" value="{html.escape(text)}"'
        f"{' checked' if text in decision.get('allow', []) else ''}> "
        f'<span>{html.escape(text)} <span class="soft">({html.escape(pages.kind(name))})</span>'
        "</span></label>"
        for text, name in taken
    )
    spared = (
        f"<details><summary>What should not have been taken</summary>{wrong}</details>"
        if wrong
        else ""
    )
    form = (
        f'<form method="post" action="/record/{number}">{_word(word)}'
        f"<fieldset><legend>Your verdict</legend>{picks}</fieldset>"
        f"<fieldset><legend>What was missed, if anything</legend>{lines}"
        '<p class="soft">Copied into lists that this site can switch on; they stay here.</p>'
        f'</fieldset>{spared}<p class="row"><button>Keep and go on</button>'
        f"{_near(number - 1, total, 'Back')}{_near(number + 1, total, 'Skip')}"
        '<a href="/">Overview</a></p></form>'
    )
    return _page(f"Record {number} of {total}", pages.article(item, "Before and after") + form)


def _missed(number: int, kind: str, text: str) -> str:
    options = "".join(
        f'<option value="{one}"{" selected" if one == kind else ""}>{html.escape(pages.kind(one))}'
        "</option>"
        for one in review_lists.TYPES
    )
    return (
        f'<div class="pair"><input type="text" name="text" maxlength="{_LONGEST_WORD}" '
        f'value="{html.escape(text)}" aria-label="Missed text {number}" autocomplete="off">'
        f'<select name="kind" aria-label="Type of missed text {number}">{options}</select></div>'
    )


def _near(number: int, total: int, said: str) -> str:
    return f'<a href="/record/{number}">{said}</a>' if 1 <= number <= total else ""


def serve(review: Review, *, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted, on 127.0.0.1 only.

    Args:
        review: what is read.
        port: 0 is any free one.
        ready: told the link, once it can be opened.

    Raises:
        ClientError: the port is taken.
    """
    import uvicorn

    from client import listen

    key = secrets.token_urlsafe(32)
    address: list[str] = []
    app = create_app(review, key=key, hosts=lambda: frozenset(address))
    with listen.bind("127.0.0.1", port) as listener:
        listener.listen()
        taken = listener.getsockname()[1]
        address += [f"127.0.0.1:{taken}", f"localhost:{taken}"]
        ready(f"http://127.0.0.1:{taken}/open?key={key}")
        # No access log: its lines would hold the link's key.
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, ws="none"
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
