"""The trainer as the runner sees it: a child without network, keys or write access, on a pipe.

Only frames cross: JSON of known fields, and float arrays. Everything that comes back is checked,
for the child opens records and parses a stranger's model.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

from client import frames, withdrawals
from client.cell_main import FAULTS
from client.errors import ClientError
from client.folder import Folder
from client.frames import Frame
from client.lineage import Lineage
from client.people import Report
from client.prepare import sets
from client.trainer import ANSWERS, Arrays, Opened, Round
from configs.run import Plan
from model import catalog

log = logging.getLogger("privity.trainer")

_PACKAGES = ("audit", "client", "configs", "model", "privacy")
# The child's environment: no token or password of the operator's shell is in it.
_ENVIRONMENT = re.compile(
    r"(OMP|MKL|KMP|OPENBLAS|TORCH|LC)_\w+|LANG|LANGUAGE|PATH|TZ|LD_LIBRARY_PATH|PYTHONHASHSEED"
    r"|PYTHONWARNINGS|PRIVITY_DEBUG"
)
_HELLO_BYTES = 4096
_HELLO_SECONDS = 120.0
_LINE = 500
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COUNTED = re.compile(r"[A-Za-z0-9 _./-]{1,64}")
_ROOM_BYTES = 1 << 20
_PERSONS_BYTES = 1 << 30  # eight million persons
_SET = re.compile(r"[a-z0-9][a-z0-9._-]{0,63} hmac-sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Isolation:
    """`network` is "none" for a trainer that is cut off; "open", with the reason, where not."""

    network: str
    reason: str


def probe(folder: Folder) -> Isolation:
    """Try out on this machine whether a trainer can be cut off; opens nothing.

    Raises:
        ClientError: the child process does not start.
    """
    child = _Child(folder, probe=True)
    child.stop()
    return child.isolation


def check(folder: Folder) -> Isolation:
    """Check that this machine trains as `trainer.network` in site.toml asks.

    Raises:
        ClientError: the trainer cannot be cut off from the network, and must be (exit code 3).
    """
    found = probe(folder)
    if found.network == "open":
        if folder.settings.trainer.network != "warn":
            raise _refusal(found)
        log.warning("the trainer has the network and the keys of this account: %s", found.reason)
    return found


class Cell:
    """A trainer in a child process; one child a plan, up across all of its rounds."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._child: _Child | None = None
        self._loaded: tuple[Plan, str] | None = None
        self._records: tuple[int, ...] = ()
        self._opened = False

    @property
    def network(self) -> str:
        """See `client.trainer.Trains`; "open" as long as there is no child."""
        return "open" if self._child is None else self._child.isolation.network

    def load(self, plan: Plan, digest: str) -> str:
        """See `client.trainer.Trains`.

        Raises:
            ClientError: the child cannot be cut off and must be (exit code 3), or it stopped.
        """
        same = self._loaded is not None and self._loaded[1] == digest
        # The child sees the files that were there when it started.
        if same and self._alive() and self._records == self._seen():
            return "none"
        self.stop()
        self._records = self._seen()
        self._child = _Child(self._folder)
        facts = {"plan": plan.document(), "digest": digest}
        answer = self._ask(Frame("load", facts), "loaded").facts.get("answer")
        if answer not in ANSWERS:
            raise self._strange()
        if answer == "none":
            self._loaded, self._opened = (plan, digest), False
        else:
            self.stop()
        return str(answer)

    def open(self) -> Opened | None:
        """See `client.trainer.Trains`.

        Raises:
            ClientError: the records cannot be used, or the child stopped.
        """
        if self._loaded is not None:
            self.load(*self._loaded)  # anew, where the files have changed since
        if self._opened:
            return None
        reply = self._ask(Frame("open"), "opened", most_bytes=_PERSONS_BYTES)
        facts = reply.facts
        if facts.keys() != {"scrubber_digest", "report", "sets"}:
            raise self._strange()
        if reply.arrays.keys() != {"persons"} or not _are_sets(facts["sets"]):
            raise self._strange()
        digest, report = facts["scrubber_digest"], _report(facts["report"])
        if report is None or type(digest) is not str or not _DIGEST.fullmatch(digest):
            raise self._strange()
        persons = frames.digests(reply.arrays["persons"])
        self._opened = True
        return Opened(digest, report, Lineage(tuple(facts["sets"]), persons))

    def train(
        self,
        start: Arrays,
        state: Arrays | None,
        on_step: Callable[[int, int], None],
        *,
        before: int = 0,
    ) -> Round:
        """See `client.trainer.Trains`.

        Raises:
            ClientError: the round failed in the child, or the child stopped or is not ours.
        """
        arrays = frames.joined(start=start, state=state or {})
        most = 8 * sum(array.nbytes for array in start.values()) + _ROOM_BYTES
        steps = self._loaded[0].steps_per_round if self._loaded else 0
        frame = Frame("train", {"state": state is not None, "before": before}, arrays)
        told = 0
        reply = self._ask(frame, "trained", "step", most_bytes=most)
        while reply.kind == "step":
            done = reply.facts.get("step")
            told += 1
            if type(done) is not int or not 0 <= done <= steps or not told <= steps:
                raise self._strange()
            on_step(done, steps)
            reply = self._ask(None, "trained", "step", most_bytes=most)
        delta, kept = (frames.part(reply.arrays, title) for title in ("delta", "state"))
        if len(delta) + len(kept) != len(reply.arrays):
            raise self._strange()
        return Round(delta, kept)

    def stop(self) -> None:
        """End the child; the next `load` starts another."""
        if self._child is not None:
            self._child.stop()
        self._child = self._loaded = None
        self._opened = False

    def _seen(self) -> tuple[int, ...]:
        """Changes when the records, or the list of those who withdrew, change."""
        return _identity(self._folder.data) + _identity(withdrawals.list_file(self._folder))

    def _alive(self) -> bool:
        return self._child is not None and self._child.alive

    def _ask(self, frame: Frame | None, *kinds: str, most_bytes: int = 0) -> Frame:
        child = self._child
        if child is None:
            raise ClientError("no model is loaded", code="model-missing")
        try:
            if frame is not None:
                frames.send(child.pipe, frame)
            reply = frames.receive(child.pipe, most_bytes=most_bytes)
        except ClientError:
            self.stop()
            raise
        if reply.kind == "failed":
            code = reply.facts.get("code")
            raise ClientError(
                "the trainer could not do its part; read its line above",
                code=code if code in FAULTS else "failed",
            )
        if reply.kind not in kinds:
            raise self._strange()
        return reply

    def _strange(self) -> ClientError:
        self.stop()
        return frames.strange()


class _Child:
    """One child process, its pipe, and its words, which are printed line by line and cleaned."""

    def __init__(self, folder: Folder, *, probe: bool = False) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "client.cell_main", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        self.pipe = ours
        begin = {
            "probe": probe,
            "network": folder.settings.trainer.network,
            "view": _view(folder),
            "loopback": folder.settings.runtime.processes > 1,
            "folder": str(folder.path.absolute()),
            "settings": folder.settings.model_dump(mode="json"),
            "secret": "" if probe else folder.pseudonym_secret().hex(),
        }
        threading.Thread(target=_print, args=(self._process.stdout,), daemon=True).start()
        try:
            self._begin(begin)
            self.isolation = self._hello()
        except BaseException:
            self.stop()
            raise
        if self.isolation.network == "open" and not probe:
            if folder.settings.trainer.network != "warn":
                self.stop()
                raise _refusal(self.isolation)
            log.warning("the trainer is not cut off from the network (%s)", self.isolation.reason)

    def _begin(self, begin: Mapping[str, Any]) -> None:
        into = self._process.stdin
        try:
            if into is not None:
                into.write(json.dumps(begin).encode())
                into.close()
        except OSError:
            raise _not_started() from None

    def _hello(self) -> Isolation:
        line = b""
        self.pipe.settimeout(_HELLO_SECONDS)
        try:
            while not line.endswith(b"\n") and len(line) < _HELLO_BYTES:
                part = self.pipe.recv(1)
                if not part:
                    raise _not_started()
                line += part
            values = json.loads(line)
            found = Isolation(str(values["network"]), str(values["reason"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise _not_started() from None
        self.pipe.settimeout(None)
        if found.network not in ("none", "open"):
            raise _not_started()
        return found

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Kill the child and wait for it."""
        self.pipe.close()
        self._process.kill()
        self._process.wait()


def _view(folder: Folder) -> tuple[list[str], list[str], list[str]]:
    """What the child may read, in the order of `namespace.View`: packages, models, records."""
    here = Path(__file__).resolve().parent.parent
    read: list[str | Path] = [sys.prefix, sys.base_prefix, str(catalog.home().absolute())]
    read += [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    read += [str(here / name) for name in _PACKAGES]
    read += [str(Path(m).expanduser().absolute()) for m in folder.settings.policy.models
             if Path(m).expanduser().is_dir()]  # fmt: skip
    own = folder.path.absolute()
    scrub = folder.settings.scrub
    inside = [folder.data.absolute()] if folder.data.is_file() else []
    around = (withdrawals.list_file(folder), *sets.beside(folder, folder.data))
    inside += [path.absolute() for path in around if path.is_file()]
    for part in (scrub.lists, *(table.path for table in scrub.models)):
        path = (own / part).absolute()
        if part and path.exists():
            (inside if path.is_relative_to(own) else read).append(path)
    return [str(path) for path in read], [str(own)], [str(path) for path in inside]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _ENVIRONMENT.fullmatch(name)}
    return kept | {
        "HOME": "/tmp",  # noqa: S108 - its own, empty one
        "PRIVITY_HOME": str(catalog.home().absolute()),
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _identity(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    # A file may be written over in its place, and a new one may get an old one's number.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _are_sets(values: Any) -> bool:
    return (
        type(values) is list
        and len(values) <= 1
        and all(type(value) is str and _SET.fullmatch(value) for value in values)
    )


def _report(values: Any) -> Report | None:
    """A report of counts and nothing else, or None."""
    if type(values) is not dict or values.keys() != {field.name for field in fields(Report)}:
        return None
    for value in values.values():
        counts = list(value.values()) if type(value) is dict else [value]
        names = list(value) if type(value) is dict else []
        if any(type(count) is not int or not 0 <= count < 2**40 for count in counts):
            return None
        if len(names) > 1000 or not all(_COUNTED.fullmatch(name) for name in names):
            return None
    tables = {"removed", "quarantined", "faults"}
    if any((type(value) is dict) is not (name in tables) for name, value in values.items()):
        return None
    return Report(**values)


def _print(words: IO[bytes] | None) -> None:
    """Pass the child's lines on without control characters."""
    if words is None:
        return
    with words:
        for line in iter(lambda: words.readline(_LINE), b""):
            text = "".join(c if c.isprintable() else " " for c in line.decode("utf-8", "replace"))
            if text.strip():
                log.info("trainer: %s", text.strip())


def _refusal(found: Isolation) -> ClientError:
    return ClientError(
        f"the trainer cannot be cut off from the network here ({found.reason}); ask the "
        "administrator to allow user namespaces, or put an outbound firewall around the machine "
        'and set trainer.network = "warn" in site.toml',
        code="trainer-not-isolated",
        exit_code=3,
    )


def _not_started() -> ClientError:
    return ClientError(
        "the trainer's process does not start; read its lines above and install privity again",
        code="trainer-stopped",
        exit_code=1,
    )
