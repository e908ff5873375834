"""Real processes that can be killed and cut off: what the tests of faults have in common."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.flow.machine import Machine, free_port

PATIENCE = 400.0


class Relay:
    """A TCP relay between one institution and the coordinator, which a test can cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.cut_now = False
        self.cut_after: int | None = None  # bytes upwards since the last ones downwards
        self.cuts = 0
        self.up = 0
        self.down = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.cut_now:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            burst = [0]
            for source, sink, upwards in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, upwards, burst), daemon=True
                ).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, upwards: bool, burst: list[int]
    ) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if upwards:
                    burst[0] += len(data)
                    self.up += len(data)
                    if self.cut_after is not None and burst[0] > self.cut_after:
                        self.cut_after = None
                        self.cut()
                        break
                else:
                    burst[0] = 0
                    self.down += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        with self._lock:
            self._open -= {source, sink}

    def cut(self) -> None:
        """Drop every connection and take no new one."""
        self.cut_now = True
        self.cuts += 1
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        self.cut_now = False

    def close(self) -> None:
        self.cut()
        self._listener.close()


class Field:
    """A coordinator and institutions as processes, with a relay before each institution."""

    def __init__(self, machine: Machine, federation: Any) -> None:
        self.machine = machine
        self.federation = federation
        self.hub = federation.coordinator.path
        self.public, self.control = free_port(), free_port()
        settings = self.hub / "coordinator.toml"
        text = settings.read_text().replace("8443", str(self.public))
        settings.write_text(text.replace("8444", str(self.control)))
        self.relays: dict[str, Relay] = {}
        for name in federation.sites:
            relay = Relay(self.public)
            self.relays[name] = relay
            invitation = self.site(name) / "invitation.json"
            changed = invitation.read_text().replace(":8443", f":{relay.port}")
            invitation.write_text(changed)
            federation.set(name, epsilon=10.0, max_steps=100_000)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.started: dict[str, float] = {}
        self.starts = 0

    def site(self, name: str) -> Path:
        return Path(self.federation.root / name)

    # -- processes --------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start the coordinator ("hub") or an institution; returns when it says that it is up."""
        self.starts += 1
        self.started[name] = time.time()
        log = f"{name}-{self.starts}"
        if name == "hub":
            self.processes[name] = self.machine.service(log, "server", "start", self.hub)
            self.machine.wait_for(log, "is ready on")
        else:
            self.processes[name] = self.machine.service(log, "client", "run", self.site(name))

    def train(self, run_file: Path, *, resume: bool = False) -> subprocess.Popen[bytes]:
        """Start `privity server run`."""
        self.starts += 1
        more = ["--resume"] if resume else []
        self.processes["run"] = self.machine.service(
            f"run-{self.starts}", "server", "run", self.hub, "--run", run_file, "--json", *more
        )
        return self.processes["run"]

    def victim(self, name: str) -> psutil.Process:
        """The process of a name; `runner:SITE` and `trainer:SITE` are children of a client."""
        part, _, site = name.partition(":")
        if site:
            module = {"runner": "client.runner", "trainer": "client.cell_main"}[part]
            parent = psutil.Process(self.processes[site].pid)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                for child in parent.children(recursive=True):
                    with suppress(psutil.Error):  # it may just have ended
                        if module in child.cmdline():
                            return child
                time.sleep(0.1)
            raise AssertionError(f"{name} did not start")
        return psutil.Process(self.processes[name].pid)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process and wait until it is gone."""
        process = self.victim(name)
        process.send_signal(number)
        if name in self.processes:
            self.processes[name].wait(timeout=60)
        else:
            psutil.wait_procs([process], timeout=60)

    def back(self, name: str, *, since: float | None = None) -> float:
        """Seconds until the coordinator hears an institution that came back at `since` (epoch).

        Without `since`: until it hears the process that was started last.
        """
        began = self.started[name] if since is None else since
        self.until(lambda: self.heard(name) >= began - 1, f"{name} is heard", step=0.25)
        return time.time() - began

    def back_from_cut(self, name: str) -> float:
        """Seconds from now until bytes of the coordinator arrive again and it lists the site."""
        began, relay = time.time(), self.relays[name]
        before = relay.down
        self.until(
            lambda: relay.down > before and name in self.connected(), f"{name} is back", step=0.1
        )
        return time.time() - began

    def return_of(self, name: str) -> dict[str, float]:
        """Start an institution again; seconds until the coordinator lists the new process.

        Returns:
            "start" is from the command; "running" from the new process' first child, which tries
            out whether a trainer can be cut off: Python has then read what it needs.
        """
        self.start(name)
        lock = self.site(name) / "runtime" / "node.json"
        pid = self.processes[name].pid

        def joined() -> bool:
            try:
                return bool(
                    json.loads(lock.read_bytes())["pid"] == pid and name in self.connected()
                )
            except (OSError, ValueError, KeyError):
                return False

        parent = psutil.Process(pid)
        self.until(lambda: bool(parent.children()), "a child process", step=0.02)
        running = time.time()
        self.until(joined, f"{name} is back", step=0.1)
        now = time.time()
        return {
            "start": round(now - self.started[name], 1), "running": round(now - running, 1)
        }  # fmt: skip

    def note(self, case: str, **facts: Any) -> None:
        """Write figures of a case to the file that PRIVITY_FAULTS names, one JSON a line."""
        path = os.environ.get("PRIVITY_FAULTS")
        if path:
            with Path(path).open("a", encoding="utf-8") as out:
                out.write(json.dumps({"case": case, **facts}) + "\n")

    def heard(self, name: str) -> float:
        """When the coordinator heard a connected institution last; 0 where it is not connected."""
        from server import flower, store

        seen = (flower.nodes(store.open_folder(self.hub)) or {}).get(name)
        return seen.heartbeat if seen and seen.online else 0.0

    def connected(self) -> set[str]:
        from server import flower, store

        seen = flower.nodes(store.open_folder(self.hub)) or {}
        return {name for name, node in seen.items() if node.online}

    # -- watching ---------------------------------------------------------------------------------

    def until(self, holds: Callable[[], bool], what: str, *, step: float = 0.05) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"never: {what}\n{self.tail()}"
            time.sleep(step)

    def tail(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-1500:]}"
            for path in sorted(self.machine.logs.glob("*.log"))
        )

    def told(self, run: str, event: str, **facts: object) -> bool:
        """Whether the run's progress has such an event."""
        path = self.hub / "runs" / run / "progress.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return any(
            told["event"] == event and all(told.get(k) == v for k, v in facts.items())
            for told in map(json.loads, lines)
        )

    def at_step(self, site: str, run: str, number: int) -> bool:
        """Whether an institution is in the middle of a round's steps."""
        path = self.site(site) / "runs" / run / "progress.json"
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return False
        return bool(values["round"] == number and values["step"] < values["steps"])

    def ended(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code of a command, once it has ended."""
        try:
            return process.wait(timeout=PATIENCE * 2)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.tail()) from None

    # -- the truth --------------------------------------------------------------------------------

    def check(self, run: str) -> dict[str, Any]:
        """Nothing was spent twice, and the logs of both sides tell the same.

        Returns:
            Closed rounds: accepted, rejected and absent institutions by round.
        """
        log = self.federation.coordinator.log()
        accepted: set[tuple[int, str]] = set()
        for entry in log.entries("update-accepted", run):
            key = (entry.event.round or 0, str(entry.event.fields["institution"]))
            assert key not in accepted, "an update was accepted twice"
            accepted.add(key)
        for name in self.federation.sites:
            folder = self.federation.sites[name]
            begun = folder.ledger().begun(run)
            trained = [e.event.round for e in folder.log().entries("dp-training", run)]
            assert len(trained) == len(set(trained)), f"{name} trained a round twice"
            assert set(trained) <= begun, f"{name} trained what it had not charged"
            assert {number for number, site in accepted if site == name} <= set(trained)
        closed = {
            entry.event.round: {key: entry.event.fields[key]
                                for key in ("accepted", "rejected", "absent")}
            for entry in log.entries("round-closed", run)
        }  # fmt: skip
        for number, fates in closed.items():
            assert {(number, name) for name in fates["accepted"]} <= accepted
        return closed

    def close(self) -> None:
        for relay in self.relays.values():
            relay.close()
        self.machine.stop()


@contextmanager
def field(
    home: Path, place: Path, names: tuple[str, ...] = ("clinic-a", "clinic-b")
) -> Iterator[Field]:
    """A running coordinator and running institutions."""
    from tests.conftest import _federation

    logs = place / "logs"
    logs.mkdir(parents=True)
    os.environ["PRIVITY_HOME"] = str(home)
    made = Field(Machine(home, logs), _federation(place, names))
    try:
        made.start("hub")
        for name in names:
            made.start(name)
        yield made
    finally:
        made.close()
