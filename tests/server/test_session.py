"""The end of a session with the SuperLink: who interrupted, Flower or a person."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.supercore.task_identity import TaskIdentity

from privacy.wire import Message
from server import flower
from server.errors import ServerError
from server.turn import Reply


class _Grid:
    """A grid whose SuperLink answers as it is told; as Flower does, a refusal interrupts us."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers
        self.closed = False
        self._retry_invoker = self
        self._runtime_client = self
        self.max_tries = 0

    def get_nodes(self) -> list[Any]:
        status = self.answers.pop(0)
        if status == 0:
            raise httpx.ConnectError("gone")
        if status == 401:
            os.kill(os.getpid(), signal.SIGINT)
            request = httpx.Request("POST", "http://link")
            raise httpx.HTTPStatusError(
                "no", request=request, response=httpx.Response(401, request=request)
            )
        return []

    def PushTaskOutput(self, _request: Any) -> None:
        raise httpx.ConnectError("gone")

    def close(self) -> None:
        self.closed = True


class _Heartbeat:
    is_running = False


def _leave(answers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "_LOOK_AGAIN_SECONDS", 0.01)
    grid: Any = _Grid(answers)
    heartbeat: Any = _Heartbeat()
    with flower.Session(grid, heartbeat):
        raise KeyboardInterrupt


@pytest.mark.parametrize("answers", [[401], [0], [200, 401], [200, 0]])
def test_a_task_that_was_given_up_ends_with_the_way_on_and_not_as_interrupted(
    answers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ServerError, match="--resume") as ended:
        _leave(answers, monkeypatch)
    assert (ended.value.code, ended.value.exit_code) == ("link-lost", 5)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_persons_interrupt_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        _leave([200, 200], monkeypatch)


class _Nodes(_Grid):
    """A SuperLink with one connected site, which never answers."""

    def __init__(self) -> None:
        super().__init__([])
        self.since = "2026-11-22T08:00:00+00:00"

    def get_nodes(self) -> list[Any]:
        return [
            SimpleNamespace(
                name="clinic-a", node_id=1, status="online", last_activated_at=self.since
            )
        ]

    def push_messages(self, messages: list[Any]) -> list[str]:
        return ["1" for _ in messages]

    def pull_messages(self, _identifiers: list[str]) -> list[Any]:
        return []


def test_a_request_dies_with_the_client_that_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(flower, "_LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    grid: Any = _Nodes()
    heartbeat: Any = _Heartbeat()
    session = flower.Session(grid, heartbeat)
    session.send({"clinic-a": Message("close", b"{}")}, group="g", ttl_s=60.0)
    assert session.receive() == []
    assert session.waiting == {"clinic-a"}
    grid.since = "2026-11-22T08:00:05+00:00"  # another process of the same node
    assert session.receive() == [Reply("clinic-a", None, "no-answer")]
    assert session.waiting == frozenset()
    assert session.receive() == []
