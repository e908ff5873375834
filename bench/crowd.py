"""Made-up institutions for the benchmark of federations: real evidence, random updates."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import audit.keys
from audit import witness
from audit.canonical import to_base64
from audit.digests import arrays_digest
from audit.events import Subject
from audit.log import Log
from bench import measure
from configs.load import read_plan
from privacy.wire import Answer, Message, Propose, Round, Update, pack, unpack
from server import store
from server.box import Box
from server.marking import Copy
from server.post import Post
from server.progress import Progress
from server.rounds import Conductor
from server.state import create
from server.store import Enrolled
from server.turn import Party, Reply

_COLUMNS = 256
_DIGEST = "sha256:" + "0" * 64


@dataclass
class Member:
    """One made-up institution: a log, a witness, and nothing to hide."""

    name: str
    log: Log
    witness: witness.Witness
    keys: audit.keys.KeyRing
    hub: Any

    def answer(self, message: Message, noise: np.random.Generator) -> Message:
        """What an honest institution with this plan would send."""
        header = unpack(message, Propose if message.kind == "propose" else Round)
        line = self.witness.cosign_request(
            header.witness.encode(), log_key=self.hub.keys().public().log, origin=self.hub.origin
        )
        if isinstance(header, Propose):
            plan = header.plan.encode()
            from audit import canonical

            digest = canonical.digest(plan)
            self.log.append(
                "approval", {"plan_digest": digest, "decision": "approved", "by": "policy"},
                run=header.run,
            )  # fmt: skip
            return pack(
                Answer(**self._evidence(header.have, line), run=header.run, plan_digest=digest,
                       decision="accepted", reason="none")
            )  # fmt: skip
        arrays = {
            name: noise.normal(scale=1e-3, size=array.shape).astype(np.float32)
            for name, array in message.arrays.items()
        }
        document = self.plan.document()
        receipt = self.log.append(
            "dp-training",
            {
                "plan_digest": header.plan_digest,
                **{key: document[key] for key in
                   ("noise_multiplier", "sample_rate", "clip_norm", "unit", "adjacency",
                    "accountant", "delta")},
                "steps": self.plan.steps_per_round,
                "ledger_head": _DIGEST,
                "input_digest": header.input_digest,
            },
            subjects=[Subject("update", arrays_digest(arrays))], run=header.run, round=header.round,
        )  # fmt: skip
        return pack(
            Update(
                **self._evidence(header.have, line), run=header.run, round=header.round,
                plan_digest=header.plan_digest, update_digest=arrays_digest(arrays),
                statement_index=receipt.index,
            ),
            arrays,
        )  # fmt: skip

    plan: Any = None

    def _evidence(self, have: int, line: str) -> dict[str, Any]:
        checkpoint, size = self.log.checkpoint(), self.log.size
        return {
            "checkpoint": checkpoint,
            "entries": tuple(to_base64(self.log.entry(index)) for index in range(have, size)),
            "witnessed": (self.witness.last(self.hub.origin) or (0, b""))[0],
            "cosignature": line,
        }


class Street:
    """The way to made-up institutions: an update exists only from when it is taken."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members
        self._noise = np.random.default_rng(1)
        self._asked: dict[str, Message] = {}

    def online(self) -> dict[str, int]:
        return dict.fromkeys(self._members, 1)

    @property
    def waiting(self) -> frozenset[str]:
        return frozenset(self._asked)

    def send(self, messages: Mapping[str, Message], *, group: str, ttl_s: float) -> None:
        del group, ttl_s
        self._asked |= messages

    def receive(self) -> list[Reply]:
        if not self._asked:
            return []
        name = next(iter(self._asked))
        return [Reply(name, self._members[name].answer(self._asked.pop(name), self._noise), None)]

    def forget(self) -> None:
        self._asked.clear()


class Unmarked:
    """Sends everybody the same copy: marking needs a model, and is measured elsewhere."""

    def __init__(self, start: dict[str, Any]) -> None:
        self._copy = Copy(start, arrays_digest(start))

    def commit(self, log: Log) -> None:
        del log

    def copies(self, log: Log, number: int, names: Sequence[str]) -> dict[str, Copy]:
        del log, number
        return dict.fromkeys(names, self._copy)


def play(place: Path, *, count: int, megabytes: int, rounds: int) -> dict[str, Any]:
    """One run of the coordinator's own code with `count` made-up institutions."""
    hub = store.create(place / "hub", name="hub", host="127.0.0.1", port=8443, control_port=8444)
    log = hub.log()
    members: dict[str, Member] = {}
    parties: dict[str, Party] = {}
    plan = _plan([f"site-{n:03d}" for n in range(count)], rounds)
    for name in plan.institutions:
        keys = audit.keys.create(place / name / "keys", name)
        own = Log.create(
            place / name / "log", keys=keys, origin=f"privity.invalid/institution/{name}",
            software="bench",
        )  # fmt: skip
        member = Member(name, own, witness.Witness(place / name / "w.sqlite", keys), keys, hub)
        member.plan = plan
        members[name] = member
        site = Enrolled(name, "", keys.public())
        log.append("institution-joined", {"name": name, "keys": keys.public().to_json()})
        parties[name] = Party(site, hub.mirror_of(site))
    rows = megabytes * 1_000_000 // 4 // _COLUMNS // 8
    start = {f"layer.{n}.B": np.zeros((rows, _COLUMNS), np.float32) for n in range(8)}
    state = create(hub.run(plan.run), plan, start)
    street = Post(Street(members), Box(state.path, hub.keys()), state)
    tell = Progress(state.path / "progress.jsonl")
    marking: Any = Unmarked(start)
    conductor = Conductor(log, hub.witness(), state, parties, street, tell, marking)
    measure.resident()
    measure.forget_peak()
    before, began = measure.peak(), time.monotonic()
    conductor.run(join_timeout_s=600.0)
    took = time.monotonic() - began
    return {
        "institutions": count,
        "update_mb": megabytes,
        "peak_mb": round((measure.peak() - before) / 1e6, 2),
        "round_seconds": round(took / rounds, 3),
        "milliseconds_an_update": round(took / rounds / count * 1000, 2),
    }


def _plan(names: list[str], rounds: int) -> Any:
    import json

    return read_plan(
        json.dumps(
            {
                "run": "crowd", "model": "none", "model_digest": _DIGEST,
                "adapter": {"rank": _COLUMNS}, "frozen_digest": _DIGEST, "epsilon": "2",
                "delta": "0.00001", "noise_multiplier": "1.5", "clip_norm": "1",
                "sample_rate": "0.1", "rounds": rounds, "steps_per_round": 4,
                "institutions": names, "quorum": len(names), "round_timeout_s": "600",
            }
        ).encode()
    )  # fmt: skip
