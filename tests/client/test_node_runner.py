"""A node does not stay up without the runner that answers for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client import node


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Signals that the node sent to itself, with a runner that ends when it is told to."""
    sent: list[tuple[int, int]] = []
    script = "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(0))"
    script += "; print('up', flush=True); time.sleep(60)"

    def begin(_command: list[str]) -> Any:
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        return child

    ours = SimpleNamespace(Popen=begin, TimeoutExpired=subprocess.TimeoutExpired)
    own = SimpleNamespace(getpid=os.getpid, kill=lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(node, "subprocess", ours)
    monkeypatch.setattr(node, "os", own)
    return sent


def _watched(runner: Any) -> None:
    for thread in threading.enumerate():
        if thread.name == "runner-watch":
            thread.join(timeout=30)
            assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_runner_that_ends_by_itself_takes_the_node_along(
    told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(node, "_TOGETHER_SECONDS", 0.1)
    runner = node._Runner(SimpleNamespace(path=Path("site")), "127.0.0.1:1")  # type: ignore[arg-type]
    runner._child.send_signal(number)
    _watched(runner)
    assert runner.lost
    assert told == [(os.getpid(), signal.SIGTERM)]


def test_a_runner_that_ends_together_with_the_node_is_no_loss(told: list[tuple[int, int]]) -> None:
    runner = node._Runner(SimpleNamespace(path=Path("site")), "127.0.0.1:1")  # type: ignore[arg-type]
    runner._child.terminate()  # as who tells the whole group to end
    runner._child.wait(timeout=30)
    runner.stop()
    _watched(runner)
    assert not runner.lost
    assert told == []
