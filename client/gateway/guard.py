"""What stands before every request: its size, where it comes from, whose key it has, how often."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.errors import ClientError
from client.gateway import replies
from client.gateway.keys import ANYONE, Caller, KeyFile
from client.gateway.limits import Limits

LARGEST_REQUEST_BYTES: Final = 256 * 1024
COOKIE: Final = "privity_key"
# First path that fits says which scope it takes; what is not listed needs none.
_SCOPES: Final = (
    ("/v1/feedback", "feedback"),
    ("/v1/", "chat"),
    ("/feedback", "review"),
    ("/metrics", "metrics"),
    ("/chat", "chat"),
)
_log = logging.getLogger("privity.serving")
_PAGES: Final = frozenset({"/chat", "/feedback"})


class Guard:
    """Lets a request through to the service, with its caller in the request's state.

    Without any key every caller is "anyone", and then only a browser that sees this machine by a
    loopback address gets in: a page of somebody else's that resolves its name to this machine does
    not. A key comes in the Authorization header, or from our own pages in a cookie.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyFile | None,
        required: bool,
        per_minute: int,
        open_hosts: frozenset[str] = frozenset(),
        refused: Callable[[str], None] = lambda code: None,
        patience: Callable[[], int] = lambda: 0,
    ) -> None:
        """Stand before `app`.

        Args:
            app: the service.
            keys: the institution's keys; None if there is no file for them.
            required: ask for a key even while there is none.
            per_minute: most requests of a caller whose key does not say otherwise.
            open_hosts: names beside the loopback ones under which it may be open to anyone.
            refused: told the code of every refusal.
            patience: seconds until the engine has room, 0 if it has: in a rush a question is turned
                away before its body is read, so that those who are answered do not pay for it.
        """
        self._app, self._keys, self._required = app, keys, required
        self._per_minute, self._open_hosts = per_minute, open_hosts
        self._refused, self._limits, self._patience = refused, Limits(), patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            answer = self._check(scope)
        except ClientError as fault:  # the file of keys cannot be read: nobody gets in
            _log.error("%s", fault)
            answer = _refusal(503, fault.code, "the keys of this service cannot be read")
        if answer is None:
            body = await _whole(receive)
            if body is None:
                answer = _refusal(413, "too-large", f"the limit is {LARGEST_REQUEST_BYTES} bytes")
            else:
                await self._serve(scope, _replay(body, receive), send)
                return
        status, code, message, headers = answer
        self._refused(code)
        if status == 401 and scope["path"] in _PAGES:
            status, headers = 303, {"location": f"/sign-in?to={scope['path']}"}
        await replies.error(status, message, code, headers=headers)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as fault:  # its text may quote the request, so only its type is told
            _log.error("a request failed with %s", type(fault).__name__)
            if not begun:
                await replies.error(500, "the service failed", "internal")(scope, receive, send)

    def _check(self, scope: Scope) -> tuple[int, str, str, Mapping[str, str]] | None:
        headers = Headers(scope=scope)
        if _foreign(headers):
            return _refusal(403, "foreign-origin", "the page that asks is not this service's own")
        needed = next(
            (scope_ for start, scope_ in _SCOPES if scope["path"].startswith(start)), None
        )
        scope.setdefault("state", {})
        if needed is None:
            return None
        caller = self._caller(headers)
        if caller is None:
            return _refusal(
                401,
                "invalid_api_key",
                "an API key that is valid here is needed",
                {"www-authenticate": "Bearer"},
            )
        if caller is ANYONE and not self._near(headers.get("host", "")):
            return _refusal(403, "foreign-host", "without keys only loopback addresses are served")
        if needed not in caller.scopes:
            return _refusal(403, "insufficient_scope", f"this key does not allow {needed}")
        wait = 0
        if scope["method"] == "POST":
            wait = self._limits.take(caller.name, caller.per_minute or self._per_minute)
        if wait:
            headers_ = {"retry-after": str(wait)}
            return _refusal(429, "rate_limit_exceeded", f"try again in {wait} s", headers_)
        if scope["path"].endswith("/completions") and (wait := self._patience()):
            headers_ = {"retry-after": str(wait)}
            return _refusal(429, "busy", "the model is busy; try again shortly", headers_)
        scope["state"]["caller"] = caller
        return None

    def _caller(self, headers: Headers) -> Caller | None:
        rows = self._keys.rows() if self._keys else ()
        if not rows and not self._required:
            return ANYONE
        kind, _, key = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            key = _cookie(headers)
        return self._keys.find(key.strip()) if self._keys and key else None

    def _near(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or self._open_hosts & {name, "*"}:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _refusal(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> tuple[int, str, str, Mapping[str, str]]:
    return status, code, message, headers or {}


def _foreign(headers: Headers) -> bool:
    """Whether a browser says that another site's page sends this."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


async def _whole(receive: Receive) -> bytes | None:
    """The body, or None if it is too large, whatever its headers say."""
    parts: list[bytes] = []
    size = 0
    async for part in _parts(receive):
        size += len(part)
        if not size <= LARGEST_REQUEST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        yield message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _replay(body: bytes, receive: Receive) -> Receive:
    whole: Message = {"type": "http.request", "body": body, "more_body": False}
    pending = [whole]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
