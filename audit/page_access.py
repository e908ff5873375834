"""Who may see the officer's page: a one-time link, or a header of the reverse proxy in front.

Sessions live in memory and end with the process. Only digests of their secrets are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

LINK_SECONDS = 15 * 60
SESSION_SECONDS = 8 * 3600
COOKIE = "privity_session"
_MOST_SESSIONS = 64
_NAME = re.compile(r"[\x20-\x7e]{1,128}")
# Everything a page may load or do: its own style sheet and forms to itself.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: a browser would then say that a form comes from nowhere.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks: a name to show, and the token that a form of theirs must carry."""

    name: str
    form: str


class Access:
    """Decides over each request.

    Args:
        hosts: the values of `Host` that are answered; others are refused, so that a web page
            elsewhere cannot reach this one under a name of its own.
        header: the reverse proxy's header that names who asks, or empty for log-in by link.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        hosts: frozenset[str],
        *,
        header: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.header = header
        self._hosts = frozenset(host.lower() for host in hosts)
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._links: dict[bytes, float] = {}
        self._sessions: dict[bytes, float] = {}

    def link(self) -> str:
        """Return a token that logs in once, within 15 minutes."""
        token = secrets.token_urlsafe(32)
        self._links[_digest(token)] = self._clock() + LINK_SECONDS
        return token

    def log_in(self, token: str) -> str | None:
        """Exchange a link's token for a session's secret; the token is used up whatever happens."""
        until = self._links.pop(_digest(token), None)
        if self.header or until is None or not self._clock() <= until:
            return None
        session = secrets.token_urlsafe(32)
        if len(self._sessions) >= _MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        self._sessions[_digest(session)] = self._clock() + SESSION_SECONDS
        return session

    def log_out(self, session: str) -> None:
        """End a session."""
        self._sessions.pop(_digest(session), None)

    def answers(self, host: str) -> bool:
        """Whether requests under this `Host` are answered."""
        return host.lower() in self._hosts

    def visitor(self, session: str, named: str) -> Visitor | None:
        """Return who asks, by their cookie or by the proxy's header; None for nobody."""
        if self.header:
            return Visitor(named, self._form(named)) if _NAME.fullmatch(named) else None
        until = self._sessions.get(_digest(session)) if session else None
        if until is None or not self._clock() <= until:
            return None
        return Visitor("officer", self._form(session))

    def _form(self, about: str) -> str:
        return hmac.new(self._secret, about.encode(), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
