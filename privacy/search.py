"""Run one expression over one text within a limit of processor time.

The regular expressions' own limit counts time on the wall, so that on a busy machine a harmless
text would be held back. Here a search that was merely kept waiting gets a second, longer chance;
one that has really worked for too long ends in `TimeoutError`, and the text in quarantine.
"""

from __future__ import annotations

import time
from typing import Any, Final

CPU_S: Final = 2.0
"""Longest processor time that one rule may take over one text."""
WALL_S: Final = 30.0
"""Longest time on the wall that it may take, however busy the machine is."""


def matches(compiled: Any, text: str) -> list[Any]:
    """Return every match of a compiled `regex` expression in `text`, in order.

    Raises:
        TimeoutError: it took more than `CPU_S` of this thread's time, or more than `WALL_S`.
    """
    for limit in (CPU_S, WALL_S):
        started = time.thread_time()
        try:
            return list(compiled.finditer(text, timeout=limit))
        except TimeoutError:
            if not time.thread_time() - started < CPU_S:
                raise
    raise TimeoutError
