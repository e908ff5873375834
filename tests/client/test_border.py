"""The egress gate in the node's own state: whatever the runner writes, only the cleared leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supernode import start_client_internal as loop

from audit import dsse, note
from audit.canonical import to_base64
from audit.digests import arrays_digest
from audit.note import Checkpoint
from client import border, runner
from privacy import flower
from privacy.errors import EgressDenied
from privacy.wire import Answer, Message, Propose, Round, Update, pack, unpack
from server import plans, state
from tests.hostile import parts

LEAK = "zqleak"
Change = Callable[["Asked", Message], Message]


@dataclass
class Asked:
    """One institution in the middle of a run, and a coordinator that asks it again and again."""

    world: Any
    conductor: Any
    plan: Any
    start: dict[str, Any] = field(repr=False)

    @property
    def station(self) -> Any:
        return self.world.wire.stations["clinic-a"]

    def propose(self, tamper: Any = None) -> Any:
        document = plans.document(self.plan).decode()
        return self._ask(
            pack(Propose(**self._down(), run=self.plan.run, plan=document)), None, tamper
        )

    def round(self, tamper: Any = None) -> Any:
        header = Round(
            **self._down(), run=self.plan.run, round=0, plan_digest=plans.digest(self.plan),
            input_digest=arrays_digest(self.start),
        )  # fmt: skip
        return self._ask(pack(header, self.start), None, tamper)

    def _down(self) -> Any:
        return self.conductor._down("clinic-a")

    def _ask(self, message: Message, _: None, tamper: Any) -> Any:
        wire = self.world.wire
        wire.tamper = {} if tamper is None else {"clinic-a": tamper}
        wire.send({"clinic-a": message}, group="group", ttl_s=60)
        (reply,) = wire.receive()
        if reply.message is not None:
            kind: Any = {"answer": Answer, "update": Update}[reply.message.kind]
            header = unpack(reply.message, kind)
            self.conductor._take_evidence(self.conductor.parties["clinic-a"], header)
        assert LEAK.encode() not in wire.crossings[-1].objects
        return reply

    def verdicts(self) -> list[tuple[str, str]]:
        return [(e.fields["verdict"], e.fields["code"])
                for e in self.world.events("clinic-a", "egress")]  # fmt: skip


@pytest.fixture
def asked(world: Callable[..., Any]) -> Asked:
    """A site that has accepted the plan and trained round 0."""
    from configs.load import load
    from configs.run import Run

    made = world("clinic-a")
    plan = plans.make(load(made.federation.run_file(), Run))
    from server.conduct import _start

    start = _start(plan)
    record = state.create(made.coordinator.run(plan.run), plan, start)
    ready = Asked(made, made.conductor(record), plan, start)
    assert unpack(ready.propose().message, Answer).decision == "accepted"
    assert ready.round().message.kind == "update"
    return ready


def _rewritten(change: Change, asked: Asked) -> Callable[[FlowerMessage], FlowerMessage]:
    """A tamper that changes the runner's message at the wire's level and packs it again."""

    def tamper(reply: FlowerMessage) -> FlowerMessage:
        kind = flower.ANSWERS[reply.metadata.message_type]
        message = change(asked, flower.from_records(reply.content, kind=kind))
        reply.content = flower.to_records(message)
        return reply

    return tamper


def _header(**fields: Any) -> Change:
    def change(asked: Asked, message: Message) -> Message:
        header: Any = unpack(message, Update if message.kind == "update" else Answer)
        made = {k: v(asked, header) if callable(v) else v for k, v in fields.items()}
        return pack(header.model_copy(update=made), message.arrays)

    return change


def _arrays(edit: Callable[[dict[str, Any]], None], *, restamp: bool) -> Change:
    def change(asked: Asked, message: Message) -> Message:
        arrays = {name: a.copy() for name, a in message.arrays.items()}
        edit(arrays)
        header = unpack(message, Update)
        if restamp:
            header = header.model_copy(update={"update_digest": arrays_digest(arrays)})
        return pack(header, arrays)

    return change


def _raw(edit: Callable[[bytes], bytes]) -> Change:
    return lambda _, message: Message(message.kind, edit(message.header), message.arrays)


def _first(arrays: dict[str, Any]) -> Any:
    return arrays[min(arrays)]


def _other_entry(asked: Asked, header: Any) -> tuple[str, ...]:
    return (*header.entries[:-1], to_base64(asked.world.sites["clinic-a"].log().entry(0)))


def _older_checkpoint(asked: Asked, header: Any) -> str:
    return str(asked.world.sites["clinic-a"].log().note_for(1))


def _foreign_checkpoint(asked: Asked, header: Any) -> str:
    return str(asked.world.coordinator.log().checkpoint())


def _foreign_cosignature(asked: Asked, header: Any) -> str:
    """The institution's own witness key over a tree that it never saw."""
    folder = asked.world.sites["clinic-a"]
    text = Checkpoint(folder.invitation().origin, header.witnessed, b"\7" * 32).text
    return str(note.cosign(text, name="clinic-a/witness", key=folder.keys().witness, time=1))


UPDATES: dict[str, Change] = {
    "a space in the header": _raw(lambda h: h.replace(b":", b": ", 1)),
    "a key twice": _raw(lambda h: b'{"run":"' + LEAK.encode() + b'",' + h[1:]),
    "an unknown key": _raw(lambda h: h[:-1] + b',"zz":"' + LEAK.encode() + b'"}'),
    "another run": _header(run=LEAK),
    "another round": _header(round=1),
    "another plan": _header(plan_digest="sha256:" + "e" * 64),
    "a digest of other arrays": _header(update_digest="sha256:" + "e" * 64),
    "another statement": _header(statement_index=0),
    "a statement that is not there": _header(statement_index=900),
    "fewer entries than the checkpoint": _header(entries=lambda a, h: h.entries[1:] + h.entries[:1]
                                                 if len(h.entries) > 1 else ("YWJj",)),
    "made-up entries": _header(entries=(to_base64(LEAK.encode()),)),
    "an entry in another's place": _header(entries=_other_entry),
    "an older checkpoint": _header(checkpoint=_older_checkpoint),
    "the coordinator's checkpoint": _header(checkpoint=_foreign_checkpoint),
    "a made-up checkpoint": _header(checkpoint=f"{LEAK}\n1\nAAAA\n\nx"),
    "no cosignature": _header(cosignature=""),
    "a foreign cosignature": _header(cosignature=_foreign_cosignature),
    "a text for a cosignature": _header(cosignature=LEAK),
    "another witnessed size": _header(witnessed=lambda a, h: h.witnessed + 1),
    "a renamed array": _arrays(
        lambda a: a.update({LEAK: a.pop(min(a))}), restamp=True
    ),
    "an extra array": _arrays(lambda a: a.update({LEAK: np.ones(3, np.float32)}), restamp=True),
    "a missing array": _arrays(lambda a: a.__delitem__(min(a)), restamp=True),
    "another shape": _arrays(
        lambda a: a.update({min(a): np.ascontiguousarray(_first(a).T)}), restamp=True
    ),
    "not a number": _arrays(lambda a: _first(a).fill(np.nan), restamp=True),
    "a huge norm": _arrays(lambda a: _first(a).fill(1e6), restamp=True),
    "values without a statement": _arrays(lambda a: _first(a).fill(0.25), restamp=True),
    "values under the old digest": _arrays(lambda a: _first(a).fill(0.25), restamp=False),
}  # fmt: skip


def test_no_changed_update_passes_the_gate(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    before = len(asked.verdicts())
    passed = []
    for name, change in UPDATES.items():
        reply = asked.round(_rewritten(change, asked))
        if reply.failure != "refused-by-gate":
            passed.append(name)
    assert passed == []
    seen = asked.verdicts()[before:]
    assert {verdict for verdict, _ in seen} == {"denied"}
    assert LEAK not in caplog.text
    log = asked.world.sites["clinic-a"].log()
    assert not [i for i in range(log.size) if LEAK in str(dsse.parse(log.entry(i)).statement)]
    # The same question again without tampering: the same bytes, and nothing was spent on the way.
    assert asked.round().message.kind == "update"
    assert asked.world.sites["clinic-a"].ledger().begun("triage") == {0}
    assert asked.verdicts()[-1] == ("cleared", "none")


def _records(edit: Callable[[RecordDict], Any]) -> Callable[[FlowerMessage], FlowerMessage]:
    def tamper(reply: FlowerMessage) -> FlowerMessage:
        edit(reply.content)
        return reply

    return tamper


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.update({LEAK: ConfigRecord({"text": LEAK})}),
        lambda r: r.update({"metrics": MetricRecord({LEAK: 0.5})}),
        lambda r: r.update({"more": ArrayRecord([np.ones(2, np.float32)])}),
        lambda r: r.config_records["part-0"].update({LEAK: LEAK}),
        lambda r: r.pop("part-0"),
        parts.file(lambda old: b""),
        parts.file(lambda old: old + LEAK.encode()),
        parts.arrays(lambda a, n: a.update({n: a[n].astype(np.float64)})),
    ],
)
def test_no_other_record_passes_the_gate(asked: Asked, edit: Callable[[RecordDict], Any]) -> None:
    assert asked.round(_records(edit)).failure == "refused-by-gate"


def test_answers_about_other_plans_and_runs_are_held_back(asked: Asked) -> None:
    for change in (
        _header(run=LEAK),
        _header(plan_digest="sha256:" + "e" * 64),
        _header(cosignature=""),
        _header(reason="coordinator-behind", cosignature=_foreign_cosignature),
    ):
        assert asked.propose(_rewritten(change, asked)).failure == "refused-by-gate"
    assert asked.propose().message.kind == "answer"


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (0, "failed"),
        (ErrorCode.CLIENT_APP_CRASHED, "runner-stopped"),
        (103, "budget-exhausted"),
        (999, "failed"),
    ],
)
def test_an_errors_text_becomes_a_fixed_word(asked: Asked, code: int, word: str) -> None:
    seen: list[FlowerMessage] = []

    def tamper(reply: FlowerMessage) -> FlowerMessage:
        request = FlowerMessage(
            RecordDict(), reply.metadata.src_node_id, reply.metadata.message_type
        )
        request.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
        seen.append(FlowerMessage(Error(code, f"ValueError: {LEAK}"), reply_to=request))
        return seen[0]

    assert asked.round(tamper).failure == word


def test_the_envelope_is_the_requests_not_the_runners(asked: Asked) -> None:
    def tamper(reply: FlowerMessage) -> FlowerMessage:
        reply.metadata.group_id = LEAK
        reply.metadata.src_task_id = 0x7A716C65616B
        return reply

    assert asked.round(tamper).message.kind == "update"  # and `_ask` looked for the word
    assert (0x7A716C65616B).to_bytes(6, "big") not in asked.world.wire.crossings[-1].objects


def test_an_answer_to_another_question_is_held_back(asked: Asked) -> None:
    def tamper(reply: FlowerMessage) -> FlowerMessage:
        reply.metadata.__dict__["_reply_to_message_id"] = LEAK.encode().hex().ljust(64, "0")
        return reply

    assert asked.round(tamper).failure == "refused-by-gate"


def _node(asked: Asked) -> tuple[Any, FlowerMessage, FlowerMessage]:
    """A node with a request in hand, and the runner's honest reply to it."""
    station = asked.station
    header = Round(
        **asked._down(), run=asked.plan.run, round=0, plan_digest=plans.digest(asked.plan),
        input_digest=arrays_digest(asked.start),
    )  # fmt: skip
    request = FlowerMessage(
        flower.to_records(pack(header, asked.start)), station.node_id, "train.round"
    )
    loop._insert_message(request, station.state, station.state.object_store)
    station.state.get_messages_legacy(is_reply=False)
    reply = runner.answer(station.tasks, request)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return station.state, request, reply


def _push(state: Any, reply: FlowerMessage, tree: ObjectTree, extra: dict[str, bytes]) -> None:
    state.store_message_and_object_tree(reply, tree, state.start_session(7))
    for name, part in get_all_nested_objects(reply).items():
        state.object_store.put(name, part.deflate())
    for name, data in extra.items():
        state.object_store.put(name, data)


def test_objects_beside_the_answer_do_not_leave(asked: Asked) -> None:
    state, _, reply = _node(asked)
    stowaway = ConfigRecord({"text": LEAK})
    tree = get_object_tree(reply)
    tree.children.append(ObjectTree(object_id=stowaway.object_id))
    _push(state, reply, tree, {stowaway.object_id: stowaway.deflate()})
    (leaving,) = state.get_messages_legacy(is_reply=True)
    assert leaving.has_content()
    whole = state.object_store.get_object_tree(leaving.metadata.message_id)
    left = {node.object_id for node in iterate_object_tree(whole)}
    assert stowaway.object_id not in left
    assert all(LEAK.encode() not in state.object_store.get(name) for name in left)


def test_an_answer_that_nobody_asked_for_is_dropped(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    state, request, reply = _node(asked)
    state.delete_messages(message_ids=[request.metadata.message_id])
    _push(state, reply, get_object_tree(reply), {})
    assert list(state.get_messages_legacy(is_reply=True)) == []
    assert "nobody asked for" in caplog.text
    assert reply.metadata.message_id not in state.object_store


def test_an_answer_whose_arrays_never_arrive_is_held_back(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.gate._OBJECTS_DEADLINE_SECONDS", 0.05)
    state, _, reply = _node(asked)
    state.store_message_and_object_tree(reply, get_object_tree(reply), state.start_session(7))
    (leaving,) = state.get_messages_legacy(is_reply=True)
    assert leaving.error.reason == "refused-by-gate"


def test_a_log_that_cannot_be_read_lets_nothing_out(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(LEAK)

    monkeypatch.setattr(border, "clear", broken)
    assert asked.round().failure == "refused-by-gate"
    assert "could not judge an answer (RuntimeError)" in caplog.text
    assert LEAK not in caplog.text


def test_the_gates_verdict_leaves_with_the_update(asked: Asked) -> None:
    log = asked.world.sites["clinic-a"].log()
    mirrored = asked.conductor.parties["clinic-a"].mirror
    assert mirrored.size == log.size
    assert mirrored.event(mirrored.size - 1).kind == "egress"


def test_only_client_tasks_exist_and_no_duration_leaves(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    state = asked.station.state
    caplog.set_level(logging.ERROR)
    for kind in (TaskType.AGENT_APP, TaskType.SERVER_APP, "anything"):
        assert state.create_task(kind, 7) is None
    assert isinstance(state.create_task(TaskType.CLIENT_APP, 7), int)
    state.record_message_processing_start("m")
    assert state.get_message_processing_duration("m") == 0.0


def test_clear_refuses_a_kind_that_no_answer_has(asked: Asked) -> None:
    with pytest.raises(EgressDenied, match="unknown kind"):
        border.clear(asked.world.sites["clinic-a"], Message("propose", b"{}"))
