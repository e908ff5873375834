"""A runner in an attacker's hands: nothing but the cleared leaves, and each try is written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supernode import start_client_internal as loop

from client import gate, moments, runner
from privacy import flower
from privacy.wire import FAILURES
from tests.hostile import parts
from tests.hostile.attacks import Siege, besiege

LEAK = "zqleak"


@pytest.fixture
def siege(world: Callable[..., Any]) -> Siege:
    return besiege(world)


def _replace(change: Callable[[RecordDict], Any]) -> Callable[[FlowerMessage], FlowerMessage]:
    def tamper(reply: FlowerMessage) -> FlowerMessage:
        change(reply.content)
        return reply

    return tamper


def _filled(value: float) -> Callable[[RecordDict], Any]:
    return parts.arrays(lambda a, n: a.update({n: np.full(a[n].shape, value, np.float32)}))


SMUGGLES: dict[str, Callable[[RecordDict], Any]] = {
    "text in an array's name": parts.arrays(lambda a, n: a.update({LEAK: a.pop(n)})),
    "an array more": parts.arrays(lambda a, n: a.update({LEAK: np.ones(2, np.float32)})),
    "text as an array": parts.arrays(
        lambda a, n: a.update({n: np.frombuffer(LEAK.encode().ljust(8), np.float32)})
    ),
    "text in a metric's key": lambda r: r.update({"metrics": MetricRecord({LEAK: 1.0})}),
    "text in a record's key": lambda r: r.update({LEAK: MetricRecord({"a": 1})}),
    "text beside the header": lambda r: r.config_records["part-0"].update({LEAK: LEAK}),
    "a config record": lambda r: r.update({"c": ConfigRecord({"text": LEAK})}),
    "a part more": lambda r: r.update({"part-1": ConfigRecord({"part-1": LEAK.encode()})}),
    "an array record": lambda r: r.update({"more": ArrayRecord([np.ones(2, np.float32)])}),
    "bytes behind the arrays": parts.file(lambda old: old + LEAK.encode()),
    "padding behind the index of the arrays": parts.padded(b" " * 8),
    "facts beside the arrays": parts.index(
        lambda entries, n: entries.update({"__metadata__": {LEAK: LEAK}})
    ),
    "another stated type": parts.index(lambda entries, n: entries[n].update(dtype="I32")),
    "another stated shape": parts.index(
        lambda entries, n: entries[n].update(shape=entries[n]["shape"][::-1])
    ),
    "double precision": parts.arrays(lambda a, n: a.update({n: a[n].astype(np.float64)})),
    "huge values": _filled(1e30),
    "infinite values": _filled(np.inf),
    "values that are no numbers": _filled(np.nan),
    "payloads of values that are no numbers": parts.arrays(
        lambda a, n: a.update({n: np.full(a[n].shape, 0x7FC0BEEF, np.uint32).view(np.float32)})
    ),
    "other values than stated": _filled(0.125),
}


def test_nothing_is_smuggled_in_an_update_and_every_try_is_recorded(siege: Siege) -> None:
    outcome: dict[str, tuple[str, bool, int]] = {}
    for name, change in SMUGGLES.items():
        siege.station.state._refusals._seen.clear()
        before = len(siege.verdicts()) + len(siege.refusals())
        left = siege.send(siege.round(0), tamper=_replace(change))
        after = len(siege.verdicts()) + len(siege.refusals())
        outcome[name] = (left.word, LEAK.encode() in left.objects, after - before)
    assert outcome == dict.fromkeys(SMUGGLES, ("refused-by-gate", False, 1))
    assert "denied" in siege.verdicts()
    assert ("answer", "refused-by-gate") in siege.refusals()
    assert siege.send(siege.round(0)).word == "update"  # and the honest runner is let through


@pytest.mark.parametrize("code", [0, 7, 100, 104, 255, 10**9, -1])
def test_of_an_error_a_listed_word_leaves_and_no_text(siege: Siege, code: int) -> None:
    def tamper(reply: FlowerMessage) -> FlowerMessage:
        request = FlowerMessage(RecordDict(), 1, reply.metadata.message_type)
        request.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
        return FlowerMessage(Error(code, f"KeyError: {LEAK}"), reply_to=request)

    left = siege.send(siege.round(0), tamper=tamper)
    assert left.word in FAILURES.values()
    assert LEAK.encode() not in left.objects


def _held(siege: Siege) -> tuple[Any, FlowerMessage, FlowerMessage]:
    """The node with a request in hand, and an honest answer to it."""
    station = siege.station
    records = flower.to_records(siege.round(0))
    request = FlowerMessage(records, station.node_id, "train.round", ttl=60)
    loop._insert_message(request, station.state, station.state.object_store)
    station.state.get_messages_legacy(is_reply=False)
    reply = runner.answer(station.tasks, request)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return station.state, request, reply


def _push(state: Any, reply: FlowerMessage) -> None:
    state.store_message_and_object_tree(reply, get_object_tree(reply), state.start_session(7))
    for name, part in get_all_nested_objects(reply).items():
        state.object_store.put(name, part.deflate())


def test_one_answer_leaves_however_many_the_runner_gives(siege: Siege) -> None:
    state, request, reply = _held(siege)
    _push(state, reply)
    for _ in range(5):
        again = FlowerMessage(Error(103, LEAK), reply_to=request)
        again.metadata.__dict__["_message_id"] = again.object_id
        _push(state, again)
    assert len(state.get_messages_legacy(is_reply=True)) == 1
    assert list(state.get_messages_legacy(is_reply=True)) == []
    assert siege.refusals()[-1] == ("answer", "refused-by-gate")
    assert len(siege.refusals()) == 1


def test_an_answer_is_gated_also_where_messages_of_both_ways_are_asked_for(siege: Siege) -> None:
    state, request, _ = _held(siege)
    smuggled = FlowerMessage(Error(103, LEAK), reply_to=request)
    smuggled.metadata.__dict__["_message_id"] = smuggled.object_id
    _push(state, smuggled)
    (left,) = state.get_messages_legacy()
    assert left.error.reason == FAILURES[103]


def test_the_runner_asks_nothing_that_it_could_answer(siege: Siege) -> None:
    """A question of its own would lend its names to the envelope of the answer."""
    state, request, reply = _held(siege)
    meta = request.metadata
    forged = FlowerMessage(RecordDict(), meta.dst_node_id, "train.round", ttl=60, group_id=LEAK)
    forged.metadata.__dict__.update(
        _run_id=meta.run_id, _src_node_id=meta.src_node_id, _message_id=forged.object_id
    )
    tree = get_object_tree(forged)
    stored, _ = state.store_message_and_object_tree(forged, tree, state.start_session(7))
    assert not stored
    assert list(state.get_messages_legacy(is_reply=False)) == []
    _push(state, reply)
    (left,) = state.get_messages_legacy(is_reply=True)
    state.delete_messages(message_ids=[left.metadata.message_id, meta.message_id])
    said = FlowerMessage(Error(103, ""), reply_to=forged)
    said.metadata.__dict__["_message_id"] = said.object_id
    _push(state, said)
    assert list(state.get_messages_legacy(is_reply=True)) == []
    assert siege.refusals()[-1] == ("answer", "refused-by-gate")


def test_a_late_second_answer_does_not_leave(siege: Siege) -> None:
    state, request, reply = _held(siege)
    _push(state, reply)
    (left,) = state.get_messages_legacy(is_reply=True)
    late = FlowerMessage(Error(104, LEAK), reply_to=request)
    late.metadata.__dict__["_message_id"] = late.object_id
    _push(state, late)
    assert list(state.get_messages_legacy(is_reply=True)) == []
    state.delete_messages(message_ids=[left.metadata.message_id, request.metadata.message_id])
    _push(state, late)  # and after the exchange is over
    assert list(state.get_messages_legacy(is_reply=True)) == []


class _Clock:
    """The gate's clock, which goes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_answers_leave_at_few_moments_only(siege: Siege, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr(gate, "time", clock)
    monkeypatch.setattr(moments, "time", clock)
    for elapsed in (0.0, 0.05, 0.09, 77.0):
        state, _, reply = _held(siege)
        began = clock.now
        clock.sleep(elapsed)
        _push(state, reply)
        assert len(state.get_messages_legacy(is_reply=True)) == 1
        assert clock.now - began == pytest.approx(moments.moment(elapsed), abs=1e-9)
        state.delete_messages(message_ids=list(state.msg_store))


def test_a_moment_says_less_than_a_byte_within_two_days() -> None:
    two_days = 172_800.0
    asked = np.geomspace(1e-4, two_days / 1.1, 100_000)
    found = [moments.moment(float(elapsed)) for elapsed in asked]
    assert len(set(found)) <= 256
    assert math.log2(len(set(found))) < 8
    for elapsed, moment in zip(asked, found, strict=True):
        assert elapsed <= moment <= max(1.1 * elapsed, 1 / 64)
