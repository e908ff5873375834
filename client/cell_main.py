"""The trainer's process: into its namespaces first, then a loop over frames until the pipe ends.

Started by `client.cell`. What it must know comes over standard input; nothing is in its arguments
or its environment. Nothing heavy is imported before `enter`: a process with threads cannot enter.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
from typing import Any

from client import namespace

_SET_PDEATHSIG = 1
# What may be said of a failure; the sentence goes to the operator's terminal only.
FAULTS = ("failed", "data-not-usable", "all-quarantined", "model-missing")
_OF_RECORDS = frozenset(
    ("no-file", "unreadable", "empty", "unknown-kind", "not-utf-8", "not-json", "unknown-columns",
     "no-records", "no-person-column", "prepared-across", "set-changed", "withdrawals-damaged")
)  # fmt: skip


log = logging.getLogger("privity.trainer")


def main(arguments: list[str]) -> int:
    """Entry point: the number of the inherited socket; the rest is JSON on standard input."""
    pipe = socket.socket(fileno=int(arguments[0]))
    begin = json.load(sys.stdin)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("presidio-analyzer").setLevel(logging.WARNING)
    found = {"network": "none", "reason": ""}
    try:
        view = namespace.View(*map(tuple, begin["view"]))
        namespace.enter(view, loopback=begin["loopback"])
    except namespace.Refused as refusal:
        found = {"network": "open", "reason": str(refusal)}
    if sys.platform == "linux":  # after `enter`, which forgets it
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    pipe.sendall(json.dumps(found).encode() + b"\n")
    if begin["probe"] or (found["network"] == "open" and begin["network"] != "warn"):
        return 0
    return _serve(pipe, begin)


def _serve(pipe: socket.socket, begin: dict[str, Any]) -> int:
    from client import frames
    from client.errors import ClientError

    worker = _worker(begin)
    while True:
        try:
            # The runner is on the other end: it sends what fits into memory.
            asked = frames.receive(pipe, most_bytes=1 << 40)
        except ClientError:
            return 0
        try:
            reply = _answer(worker, asked, pipe)
        except Exception as fault:
            # Our own sentences never quote a record; a foreign one is named by its type only.
            known = getattr(fault, "exit_code", None) is not None
            log.error("%s", fault if known else f"unforeseen {type(fault).__name__}")
            if os.environ.get("PRIVITY_DEBUG") == "1":
                log.exception("traceback")
            reply = frames.Frame("failed", {"code": _code(fault)})
        frames.send(pipe, reply)


def _worker(begin: dict[str, Any]) -> Any:
    from dataclasses import dataclass, field
    from pathlib import Path

    from client.folder import Folder
    from client.trainer import Trainer
    from configs.site import Site

    @dataclass(frozen=True, slots=True)
    class Seen(Folder):
        """What the trainer is told of the institution's folder, which it cannot see."""

        secret: bytes = field(repr=False, default=b"")

        def pseudonym_secret(self) -> bytes:
            return self.secret

    settings = Site.model_validate(begin["settings"])
    folder = Seen(Path(begin["folder"]), settings, secret=bytes.fromhex(begin["secret"]))
    return Trainer(folder)


def _answer(worker: Any, asked: Any, pipe: socket.socket) -> Any:
    from client import frames
    from configs.run import Plan

    if asked.kind == "load":
        plan = Plan.model_validate(asked.facts["plan"])
        return frames.Frame("loaded", {"answer": worker.load(plan, asked.facts["digest"])})
    if asked.kind == "open":
        opened = worker.open()
        if opened is None:
            return frames.Frame("opened")
        facts = {
            "scrubber_digest": opened.scrubber_digest,
            "report": opened.report.document(),
            "sets": list(opened.lineage.sets),
        }
        return frames.Frame("opened", facts, {"persons": frames.numbers(opened.lineage.persons)})
    state = frames.part(asked.arrays, "state") if asked.facts["state"] else None

    def on_step(done: int, total: int) -> None:
        frames.send(pipe, frames.Frame("step", {"step": done, "steps": total}))

    before = int(asked.facts["before"])
    done = worker.train(frames.part(asked.arrays, "start"), state, on_step, before=before)
    return frames.Frame("trained", {}, frames.joined(delta=done.delta, state=done.state))


def _code(fault: Exception) -> str:
    code = str(getattr(fault, "code", ""))
    if code in _OF_RECORDS:
        return "data-not-usable"
    return code if code in FAULTS else "failed"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
