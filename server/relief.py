"""What Flower's SuperLink does at each request, and need not: its own bookkeeping, made seldom.

Each request costs the SuperLink several small transactions. Here it looks for tasks without
heartbeat once in a while, not at every request; it keeps no count of bytes, for `server.traffic`
counts what crossed; and it works on one request at a time: its database takes one writer, and
threads that wait for each other's lock and for the interpreter only add to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from anyio import to_thread

# A task is given up after a minute of silence; half a second more changes nothing.
_LOOK_SECONDS = 0.5
_AT_ONCE = 1


def relieve(state: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
    """Make the bookkeeping of Flower's `LinkState` object seldom; its answers stay the same.

    Guarantees: a token that expired is refused at most half a second later than Flower would.
    """
    look, due, lock = state._cleanup_expired_task_tokens, [clock()], threading.Lock()

    def seldom() -> None:
        with lock:
            if clock() < due[0]:
                return
            due[0] = clock() + _LOOK_SECONDS
        look()

    def uncounted(run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        del run_id, bytes_sent, bytes_recv

    state._cleanup_expired_task_tokens = seldom
    state.store_traffic = uncounted


def one_at_a_time() -> None:
    """Let this event loop's requests use the database one after the other."""
    to_thread.current_default_thread_limiter().total_tokens = _AT_ONCE
