"""Real processes on loopback: a machine that runs commands, and a coordinator that is up on it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flow import tracing

READY_SECONDS = 300.0  # under load, processes take their time to start


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Machine:
    """Commands on one machine; every process it starts ends with the test."""

    def __init__(self, home: Path, logs: Path) -> None:
        self.environment = {**os.environ, "PRIVITY_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.logs = logs
        self.running: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "privity", *map(str, arguments)],
            env=self.environment, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.returncode, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def service(self, name: str, *arguments: object) -> subprocess.Popen[bytes]:
        with (self.logs / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "privity", *map(str, arguments)],
                env={**self.environment, "PYTHONUNBUFFERED": "1"},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.running.append(child)
        return child

    def wait_for(self, name: str, words: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        path = self.logs / f"{name}.log"
        while words not in path.read_text():
            assert time.monotonic() < deadline, (name, path.read_text())
            time.sleep(0.1)

    def stop(self) -> None:
        for child in reversed(self.running):
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(child.pid, number)
                    child.wait(timeout=10)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
            child.wait()


@pytest.fixture
def machine(tiny_home: Path, tmp_path: Path) -> Iterator[Machine]:
    logs = tmp_path / "logs"
    logs.mkdir()
    made = Machine(tiny_home, logs)
    made.environment = tracing.environment(logs, made.environment)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def live(machine: Machine, federation: Callable[..., Any]) -> Any:
    """A running coordinator and two enrolled institutions that do not run yet."""
    made = federation()
    settings = made.coordinator.path / "coordinator.toml"
    ports = (free_port(), free_port())
    text = settings.read_text().replace("8443", str(ports[0])).replace("8444", str(ports[1]))
    settings.write_text(text)
    for name in made.sites:
        invitation = made.root / name / "invitation.json"
        invitation.write_text(invitation.read_text().replace(":8443", f":{ports[0]}"))
    machine.service("coordinator", "server", "start", made.coordinator.path)
    machine.wait_for("coordinator", "is ready on")
    made.port, made.control = ports
    return made
