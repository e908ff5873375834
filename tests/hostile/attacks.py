"""An institution in the middle of a run, and hostile peers on both of its sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message as FlowerMessage
from flwr.app import RecordDict
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from audit.digests import arrays_digest
from configs.load import load
from configs.run import Run
from privacy import flower
from privacy.wire import Answer, Closed, Message, Propose, Round, Update, pack, unpack
from server import plans, state
from server.conduct import _start

SITE = "clinic-a"


@dataclass
class Left:
    """What left the institution in answer to one message."""

    word: str  # of a failure, or "answer: reason", "update", "closed"
    objects: bytes = field(repr=False)
    message: Message | None = field(repr=False, default=None)


@dataclass
class Siege:
    """A site that has accepted a plan and trained round 0, and the coordinator's own means."""

    world: Any
    conductor: Any
    plan: Any
    start: dict[str, Any] = field(repr=False)

    @property
    def folder(self) -> Any:
        return self.world.sites[SITE]

    @property
    def station(self) -> Any:
        return self.world.wire.stations[SITE]

    def down(self) -> dict[str, Any]:
        return dict(self.conductor._down(SITE))

    def document(self, **changes: Any) -> str:
        """The plan as text, with keys changed; a dot leads into a table."""
        values = json.loads(plans.document(self.plan))
        for key, value in changes.items():
            table, names = values, key.split("__")
            for name in names[:-1]:
                table = table[name]
            table[names[-1]] = value
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def propose(self, text: str, run: str = "") -> Message:
        name = run or json.loads(text).get("run", "triage")
        return pack(Propose(**self.down(), run=name, plan=text))

    def round(self, number: int = 0, arrays: Any = None, **header: Any) -> Message:
        start = self.start if arrays is None else arrays
        values = {
            "run": self.plan.run, "round": number, "plan_digest": plans.digest(self.plan),
            "input_digest": arrays_digest(start), **header,
        }  # fmt: skip
        return pack(Round(**self.down() | values), start)

    def send(
        self,
        message: Message | RecordDict,
        kind: str = "",
        tamper: Any = None,
        *,
        evidence: bool = True,
    ) -> Left:
        """Deliver a message as the SuperLink would, and see what leaves."""
        records = message if isinstance(message, RecordDict) else flower.to_records(message)
        kind = kind or flower.TYPES[message.kind]  # type: ignore[union-attr]
        request = FlowerMessage(records, self.station.node_id, kind, ttl=60, group_id="g")
        contents, sent = self.station.answer(request, tamper=tamper)
        objects = b"".join(contents.values())
        whole = inflate_object_from_contents(sent, contents)
        if whole.has_error():
            return Left(whole.error.reason, objects)
        wire = flower.from_records(whole.content, kind=flower.ANSWERS[kind])
        types: dict[str, Any] = {"answer": Answer, "update": Update, "closed": Closed}
        header = unpack(wire, types[wire.kind])
        if evidence:
            self.conductor._take_evidence(self.conductor.parties[SITE], header)
        word = f"answer: {header.reason}" if wire.kind == "answer" else wire.kind
        return Left(word, objects, wire)

    def refusals(self) -> list[tuple[str, str]]:
        return [(e.fields["request"], e.fields["word"])
                for e in self.world.events(SITE, "request-refused")]  # fmt: skip

    def verdicts(self) -> list[str]:
        return [str(e.fields["verdict"]) for e in self.world.events(SITE, "egress")]

    def spent(self) -> tuple[Any, ...]:
        """All that was charged and trained so far."""
        ledger = self.folder.ledger()
        trained = [e.round for e in self.world.events(SITE, "dp-training")]
        return ledger.rows("all"), ledger.begun(self.plan.run), trained


def besiege(world: Callable[..., Any]) -> Siege:
    """Make the site, accept the plan, train round 0."""
    made = world(SITE)
    made.federation.set(SITE, epsilon=10.0)  # so that the budget is not what declines
    made.connect()
    plan = plans.make(load(made.federation.run_file(rounds=3), Run))
    start = dict(_start(plan))
    record = state.create(made.coordinator.run(plan.run), plan, start)
    ready = Siege(made, made.conductor(record), plan, start)
    accepted = ready.send(ready.propose(ready.document()))
    assert accepted.word == "answer: none"
    assert ready.send(ready.round()).word == "update"
    return ready
