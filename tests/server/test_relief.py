"""Flower's bookkeeping, made seldom: what is still done, how late, and that it is there at all."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from typing import Any

from anyio import to_thread
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState

from server import relief


class _State:
    def __init__(self) -> None:
        self.looks = 0

    def _cleanup_expired_task_tokens(self) -> None:
        self.looks += 1

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        raise AssertionError("a transaction for a count that nobody reads")


def test_expired_tasks_are_looked_for_at_once_and_then_twice_a_second() -> None:
    now = [100.0]
    state: Any = _State()
    relief.relieve(state, clock=lambda: now[0])
    for _ in range(50):
        state._cleanup_expired_task_tokens()
    assert state.looks == 1
    for expected in (2, 3, 4):
        now[0] += 0.51
        for _ in range(50):
            state._cleanup_expired_task_tokens()
        assert state.looks == expected


def test_bytes_are_not_counted_twice() -> None:
    state: Any = _State()
    relief.relieve(state)
    state.store_traffic(7, bytes_sent=1, bytes_recv=2)


def test_flowers_own_methods_are_those_that_are_replaced() -> None:
    look = inspect.signature(SqlLinkState._cleanup_expired_task_tokens)
    assert list(look.parameters) == ["self"]
    count = inspect.signature(SqlLinkState.store_traffic)
    assert list(count.parameters) == ["self", "run_id", "bytes_sent", "bytes_recv"]
    source = inspect.getsource(SqlLinkState.get_run_status)
    assert "self._cleanup_expired_task_tokens()" in source, "looked up on the object, each time"


def test_one_request_uses_the_database_at_a_time() -> None:
    at_once: list[int] = []
    inside = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside
        with lock:
            inside += 1
            at_once.append(inside)
        time.sleep(0.02)
        with lock:
            inside -= 1

    async def requests(*, relieved: bool) -> int:
        at_once.clear()
        if relieved:
            relief.one_at_a_time()
        await asyncio.gather(*(to_thread.run_sync(work) for _ in range(6)))
        return max(at_once)

    assert asyncio.run(requests(relieved=True)) == 1
    assert asyncio.run(requests(relieved=False)) > 1
