"""What a run tells while it goes: one line of JSON an event, and whatever the caller draws."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Show = Callable[[str, dict[str, Any]], None]


class Progress:
    """Appends events to `progress.jsonl` of a run and hands them to the terminal."""

    def __init__(self, path: Path, show: Show | None = None) -> None:
        self._path = path
        self._show = show
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def __call__(self, event: str, **facts: Any) -> None:
        """Tell one event; facts are names, numbers and codes, never records."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **facts})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._show:
            self._show(event, facts)
