"""Our own commands as processes: started, watched, and all stopped whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.errors import DemoError

_STOP_SECONDS = 8.0
_LOOK_SECONDS = 0.25


@dataclass(slots=True)
class Processes:
    """Every process that the demo started. Use as a context manager: leaving it stops all.

    Each child leads a process group of its own, so that Ctrl-C reaches it through us and in order,
    and Linux ends it should this process be killed.
    """

    logs: Path
    _running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def command(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> str:
        """Run one command to its end and return its standard output.

        `meanwhile` is called a few times a second while it runs.

        Raises:
            DemoError: it failed; the sentence is the command's own, the exit code too.
        """
        child = self._start(name, arguments, subprocess.PIPE)
        try:
            out = b""
            while child.returncode is None:
                try:
                    out, _ = child.communicate(timeout=_LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    meanwhile()
        finally:
            self._forget(child)
        if child.returncode != 0:
            raise DemoError(self._reason(name), exit_code=_code(child.returncode))
        return out.decode()

    def begin(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command that prints JSON, and do something else meanwhile; see `outcome`."""
        return self._start(name, [*arguments, "--json"], subprocess.PIPE)

    def outcome(self, child: subprocess.Popen[bytes]) -> Any:
        """Wait for the JSON of a command that may fail; None where it printed none."""
        try:
            out, _ = child.communicate()
        finally:
            self._forget(child)
        try:
            return json.loads(out)
        except ValueError:
            return None

    def json(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Any:
        """Run one command and parse the JSON it prints; see `command`."""
        return json.loads(self.command(name, [*arguments, "--json"], meanwhile=meanwhile))

    def service(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process that stays."""
        child = self._start(name, arguments, None)
        return child

    def wait_for(self, name: str, words: str, *, seconds: float) -> None:
        """Wait until a service's log says `words`.

        Raises:
            DemoError: it ended, or took longer than `seconds`.
        """
        path = self.logs / f"{name}.log"
        deadline = time.monotonic() + seconds
        while words not in path.read_text(encoding="utf-8", errors="replace"):
            self.check_others(None)
            if time.monotonic() > deadline:
                raise DemoError(f"{name} did not start in {seconds:g} s; see {path}", exit_code=5)
            time.sleep(0.05)

    def check_others(self, but: subprocess.Popen[bytes] | None) -> None:
        """Make sure that every service but one still runs."""
        for name, child in self._running:
            if child is not but and child.poll() is not None:
                raise DemoError(self._reason(name), exit_code=_code(child.returncode))

    def finished(self, child: subprocess.Popen[bytes]) -> None:
        """Take a service that was to end out of the list.

        Raises:
            DemoError: it failed.
        """
        name = next(name for name, other in self._running if other is child)
        self._running = [(n, other) for n, other in self._running if other is not child]
        if child.returncode != 0:
            raise DemoError(self._reason(name), exit_code=_code(child.returncode))

    def _start(
        self, name: str, arguments: Sequence[str], out: int | None
    ) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PRIVITY_DIE_WITH_PARENT": str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }
        with (self.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "privity", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log if out is None else out,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._running.append((name, child))
        return child

    def _forget(self, child: subprocess.Popen[bytes]) -> None:
        if child.poll() is None:
            _stop([child])
        self._running = [(name, other) for name, other in self._running if other is not child]

    def _reason(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line for line in lines if line.startswith("privity: ")]
        if said:
            return f"{name}: {said[-1].removeprefix('privity: ')}"
        return f"{name} ended unexpectedly; see {path}"

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        # Last started, first stopped: institutions leave before the coordinator goes.
        _stop([child for _, child in reversed(self._running)])
        self._running.clear()


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        _signal(child, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=max(0.0, deadline - time.monotonic()))
    for child in children:
        # The group outlives its leader when a grandchild hangs.
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _code(returncode: int) -> int:
    return returncode if 0 < returncode < 128 else 1


def free_port() -> int:
    """A loopback port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
