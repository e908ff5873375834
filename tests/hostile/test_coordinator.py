"""A hostile coordinator: each attack leaks nothing, costs nothing, and stands in the site's log."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.constant import TaskType

from client import runner
from privacy import flower
from privacy.wire import FAILURES, Message
from tests.hostile.attacks import Siege

ZERO = "sha256:" + "0" * 64
# The longest thing that leaves in place of an answer: a number, a fixed word, and Flower's frame.
_FAILURE_BYTES = 600


def _edit(**changes: Any) -> Callable[[Siege], Message]:
    return lambda siege: siege.propose(siege.document(**changes), run=siege.plan.run)


def _arrays(change: Callable[[dict[str, Any]], Any]) -> Callable[[Siege], Message]:
    def make(siege: Siege) -> Message:
        arrays = {name: array.copy() for name, array in siege.start.items()}
        change(arrays)
        return siege.round(1, arrays)  # with its own, correct digest

    return make


def _raw(change: Callable[[dict[str, Any]], Any]) -> Callable[[Siege], Message]:
    def make(siege: Siege) -> Message:
        message = siege.round(1)
        values = json.loads(message.header)
        change(values)
        text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        return Message("round", text, message.arrays)

    return make


INVALID, GATE, EVIDENCE = "plan-not-acceptable", "refused-by-gate", "evidence-inconsistent"
PLANS: dict[str, tuple[Callable[[Siege], Message], str]] = {
    "no noise": (_edit(noise_multiplier="0"), INVALID),
    "negative noise": (_edit(noise_multiplier="-1"), INVALID),
    "noise that is no number": (_edit(noise_multiplier="NaN"), INVALID),
    "hardly any noise": (_edit(noise_multiplier="0.001"), "answer: plan-inconsistent"),
    "less noise than stated": (_edit(noise_multiplier="0.5"), "answer: plan-inconsistent"),
    "more steps than stated": (_edit(steps_per_round=400), "answer: plan-inconsistent"),
    "more rounds than stated": (_edit(rounds=900), "answer: plan-inconsistent"),
    "everybody in every step": (_edit(sample_rate="1", steps_per_round=99),
                                "answer: plan-inconsistent"),
    "another delta": (_edit(delta="0.0009"), "answer: delta-mismatch"),
    "an epsilon over every limit": (_edit(epsilon="11"), INVALID),
    "an infinite clip norm": (_edit(clip_norm="Infinity"), INVALID),
    "another base model": (_edit(model="evil/model"), "answer: model-not-allowed"),
    "a folder for a base model": (_edit(model="/etc"), "answer: model-not-allowed"),
    "other weights of the model": (_edit(model_digest=ZERO), "answer: model-not-available"),
    "a frozen half of its own": (_edit(frozen_digest=ZERO), "answer: plan-inconsistent"),
    "another unit": (_edit(unit="record"), INVALID),
    "another adjacency": (_edit(adjacency="replace"), INVALID),
    "another accountant": (_edit(accountant="trust-me"), INVALID),
    "another adapter method": (_edit(adapter__method="full"), INVALID),
    "other records": (_edit(records="/etc/passwd"), INVALID),
    "other columns": (_edit(training__columns=["ssn"]), INVALID),
    "code": (_edit(code="import os"), INVALID),
    "a run of others": (_edit(institutions=["bank-c"]), "answer: plan-inconsistent"),
    "a quorum that nobody can meet": (_edit(quorum=7), "answer: plan-inconsistent"),
    "a name that is a path": (_edit(run="../../keys"), INVALID),
    "a plan that is not canonical": (
        lambda s: s.propose(s.document().replace(":", ": ", 1)), INVALID),
    "a plan that is no plan": (lambda s: s.propose('"zq"', run="triage"), INVALID),
}  # fmt: skip
ROUNDS: dict[str, tuple[Callable[[Siege], Message], str]] = {
    "a spent round from another adapter": (
        lambda s: s.round(0, {n: a + np.float32(1) for n, a in s.start.items()}),
        "round-already-spent"),
    "a round beyond the plan": (lambda s: s.round(3), INVALID),
    "a plan that was never approved": (lambda s: s.round(1, plan_digest=ZERO), "not-approved"),
    "a run that was never proposed": (lambda s: s.round(1, run="other"), "not-approved"),
    "an adapter with another digest": (lambda s: s.round(1, input_digest=ZERO), INVALID),
    "an adapter of other names": (_arrays(lambda a: a.update(zq=a.pop(min(a)))), INVALID),
    "an array more": (_arrays(lambda a: a.update(zq=np.ones(4, np.float32))), INVALID),
    "an array less": (_arrays(lambda a: a.pop(min(a))), INVALID),
    "another shape": (_arrays(lambda a: a.update({min(a): a[min(a)].T.copy()})), INVALID),
    "not a number": (_arrays(lambda a: a[min(a)].fill(np.nan)), INVALID),
    "infinity": (_arrays(lambda a: a[min(a)].fill(np.inf)), INVALID),
    "a field more": (_raw(lambda v: v.update(records="all")), GATE),
    "a field less": (_raw(lambda v: v.pop("have")), GATE),
    "a negative round": (_raw(lambda v: v.update(round=-1)), GATE),
    "entries that never were": (_raw(lambda v: v.update(have=10_000)), EVIDENCE),
    "a cosigned checkpoint of nobody": (_raw(lambda v: v.update(cosigned="zq\n1\nAAAA\n\nx")),
                                        "failed"),
    "a log of somebody else": (_raw(lambda v: v.update(witness="zq")), "failed"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*PLANS, *ROUNDS])
def test_an_attack_leaks_nothing_costs_nothing_and_is_recorded(siege: Siege, name: str) -> None:
    make, word = (PLANS | ROUNDS)[name]
    siege.send(siege.propose(siege.document()))  # the plan in hand is the honest one
    before, size = siege.spent(), siege.folder.log().size
    siege.station.refusals._seen.clear()
    siege.station.tasks._refusals._seen.clear()
    left = siege.send(make(siege))
    assert left.word == word
    assert siege.spent() == before
    fixed = word.removeprefix("answer: ")
    kind = "propose" if name in PLANS else "round"
    new = [e.event for e in siege.folder.log().entries("request-refused") if e.index >= size]
    assert [(e.fields["request"], e.fields["word"]) for e in new] == [(kind, fixed)]
    if left.message is None:
        assert word in FAILURES.values()
        assert len(left.objects) < _FAILURE_BYTES
    else:
        assert not left.message.arrays
    assert b"zq" not in left.objects.replace(left.message.header if left.message else b"", b"")


def test_after_all_of_it_the_honest_coordinator_is_served(siege: Siege) -> None:
    assert siege.send(siege.propose(siege.document())).word == "answer: none"
    assert siege.send(siege.round(1)).word == "update"
    assert siege.spent()[1] == {0, 1}


@pytest.mark.parametrize("kind", ["train", "evaluate", "query", "train.other", "query.shell"])
def test_an_unknown_message_is_not_understood_and_recorded(siege: Siege, kind: str) -> None:
    before = siege.spent()
    siege.station.refusals._seen.clear()
    records = RecordDict({"x": ConfigRecord({"command": "cat /etc/passwd"})})
    left = siege.send(records, kind) if kind in flower.ANSWERS else _answered(siege, records, kind)
    assert left == "unknown-message"
    assert siege.refusals()[-1] == ("unknown", "unknown-message")
    assert siege.spent() == before


def _answered(siege: Siege, records: RecordDict, kind: str) -> str:
    left = siege.send(records, kind)
    assert len(left.objects) < _FAILURE_BYTES
    return left.word


def _header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "big") + text


@pytest.mark.parametrize(
    "records",
    [
        RecordDict({"part-0": ConfigRecord({"part-0": _header(b"{}"), "code": "import os"})}),
        RecordDict({"part-0": ConfigRecord({"part-0": "text"})}),
        RecordDict({"evil": ArrayRecord([np.ones(2, np.float32)])}),
        RecordDict({"part-0": ConfigRecord({"part-0": _header(b"[" * 100_000)})}),
        RecordDict({"part-0": ConfigRecord({"part-0": _header(b"\xff\xfe")})}),
        RecordDict(),
    ],
)
def test_a_message_with_anything_else_in_it_is_not_read(siege: Siege, records: RecordDict) -> None:
    siege.station.refusals._seen.clear()
    left = siege.send(records, "train.round")
    assert left.word == "refused-by-gate"
    assert len(left.objects) < _FAILURE_BYTES
    assert siege.refusals()[-1] == ("round", "refused-by-gate")


def test_a_replayed_message_gives_the_same_update_and_spends_nothing(siege: Siege) -> None:
    siege.send(siege.propose(siege.document()))
    message = siege.round(0)
    first = siege.send(message)
    spent = siege.spent()
    again = siege.send(message, evidence=False)  # every byte of it, and out of turn
    assert first.message is not None
    assert again.message is not None
    for name, array in first.message.arrays.items():
        assert array.tobytes() == again.message.arrays[name].tobytes()
    assert siege.spent() == spent


def test_an_old_proposal_replayed_after_the_round_changes_nothing(siege: Siege) -> None:
    old = siege.propose(siege.document())
    siege.world.coordinator.log().append("institution-revoked", {"name": "nobody"})
    assert siege.send(siege.propose(siege.document())).word == "answer: none"
    spent = siege.spent()
    siege.station.refusals._seen.clear()
    left = siege.send(old)
    assert left.word == EVIDENCE
    assert siege.refusals()[-1] == ("propose", EVIDENCE)
    assert siege.spent() == spent


def test_a_bundle_with_code_is_never_opened_and_recorded(
    siege: Siege, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[Any] = []
    fab = SimpleNamespace(content=property(lambda _: pytest.fail("the bundle was opened")))
    client = SimpleNamespace(close=lambda: None)
    request = SimpleNamespace()
    monkeypatch.setattr(runner.RuntimeHttpClient, "from_server_address", lambda *_, **__: client)
    silent = SimpleNamespace(start=lambda: None, is_running=False)
    monkeypatch.setattr(runner, "HeartbeatSender", lambda beat: silent)
    monkeypatch.setattr(runner, "make_task_heartbeat_fn_http", lambda client: None)
    monkeypatch.setattr(
        runner, "pull_task_input",
        lambda client: (request, None, SimpleNamespace(fab_hash="e" * 64), fab),
    )  # fmt: skip
    monkeypatch.setattr(runner, "FlowerMessage", lambda error, reply_to: error)
    monkeypatch.setattr(runner, "push_message", lambda c, message, x: pushed.append(message))
    monkeypatch.setattr(runner, "push_task_output", lambda *_: None)
    siege.station.refusals._seen.clear()
    runner._work(siege.station.tasks, "127.0.0.1:1", "token", siege.station.refusals)
    assert [error.reason for error in pushed] == ["refused-by-gate"]
    assert siege.refusals()[-1] == ("task", "refused-by-gate")


@pytest.mark.parametrize("kind", [TaskType.AGENT_APP, TaskType.SERVER_APP, "anything"])
def test_an_agent_task_does_not_come_into_being_and_is_recorded(siege: Siege, kind: str) -> None:
    siege.station.state._refusals._seen.clear()
    assert siege.station.state.create_task(kind, 7) is None
    assert siege.refusals()[-1] == ("task", "unknown-message")


def test_a_flood_of_refusals_does_not_fill_the_log(siege: Siege) -> None:
    from client.refusals import _MOST, Refusals

    size = siege.folder.log().size
    notes = Refusals(siege.folder)
    for number in range(_MOST + 50):
        for _ in range(2):
            notes.note("propose", "plan-inconsistent", plan_digest=f"sha256:{number:064x}")
    assert siege.folder.log().size == size + _MOST
