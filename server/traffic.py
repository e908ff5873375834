"""Bytes that crossed the public port, counted by this process and left where others can read it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import files

Asgi = Callable[[Any, Any, Any], Any]


@dataclass(slots=True)
class Traffic:
    """Bytes of bodies since `since` (seconds of the epoch); TLS and HTTP heads come on top."""

    since: float
    received: int = 0
    sent: int = 0

    def counting(self, app: Asgi) -> Asgi:
        """Wrap `app` so that the bodies it reads and writes are counted."""

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            async def taking() -> Any:
                event = await receive()
                self.received += len(event.get("body", b""))
                return event

            async def giving(event: Any) -> None:
                self.sent += len(event.get("body", b""))
                await send(event)

            await app(scope, taking, giving)

        return counted

    def save(self, path: Path) -> None:
        """Leave the numbers where `privity server status` reads them."""
        document = {
            "since": round(self.since, 3),
            "time": round(time.time(), 3),
            "received": self.received,
            "sent": self.sent,
        }
        files.replace(path, json.dumps(document).encode(), mode=files.PRIVATE)


def read(path: Path) -> dict[str, Any] | None:
    """What a running coordinator left last, or None."""
    try:
        values = json.loads(path.read_bytes())
        return {key: values[key] for key in ("since", "time", "received", "sent")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
