"""Who was turned away, in the coordinator's own log: a stranger's knock is evidence too."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from audit.log import Log

log = logging.getLogger("privity.strangers")

Asgi = Callable[[Any, Any, Any], Any]

# A flood of knocks must not fill the log: one entry an interface in this time.
_QUIET_SECONDS = 3600.0
_REFUSED = frozenset((401, 403))
_INTERFACES = ("fleet", "control", "runtime")


class Strangers:
    """Writes `access-refused` at most once an hour and interface. Never raises."""

    def __init__(self, open_log: Callable[[], Log]) -> None:
        self._open = open_log
        self._noted: dict[str, float] = {}

    def watch(self, app: Asgi, *, closed: bool) -> Asgi:
        """Wrap `app` so that refusals are written down.

        Args:
            app: what answers.
            closed: whether a path that does not exist here is a refusal too, as on the public
                port, where the other interfaces are not to be found.
        """
        refused = _REFUSED | ({404} if closed else set())

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def tell(message: Any) -> None:
                if message["type"] == "http.response.start" and message["status"] in refused:
                    self._note(scope["path"])
                await send(message)

            await app(scope, receive, tell if scope["type"] == "http" else send)

        return watched

    def _note(self, path: str) -> None:
        word = next((name for name in _INTERFACES if path.startswith(f"/v1/{name}/")), "other")
        now = time.monotonic()
        if now < self._noted.get(word, -_QUIET_SECONDS) + _QUIET_SECONDS:
            return
        self._noted[word] = now
        try:
            self._open().append("access-refused", {"interface": word})
        except Exception as fault:
            log.error("a refusal could not be written down (%s)", type(fault).__name__)
