"""Rounds with small machines, liars, latecomers, and answers that are lost for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import trainer
from privacy.wire import Message, Update, unpack
from server.errors import ServerError

Make = Callable[..., Any]


def _shape(message: Message) -> set[int]:
    return {array.shape[1] for array in message.arrays.values()}


def _add(run: Path, text: str) -> Path:
    run.write_text(run.read_text() + text)
    return run


def test_a_small_machine_trains_fewer_columns_and_each_is_averaged_over_who_trained_it(
    world: Make,
) -> None:
    made = world()
    made.federation.set("clinic-b", columns=1)
    made.connect()
    run = made.federation.run_file(quorum=2)
    state = made.train(run)
    (one, _), (whole, _) = (made.wire.sent(site, "update") for site in ("clinic-b", "clinic-a"))
    assert (_shape(one), _shape(whole)) == ({1}, {2})
    start, after = state.adapter(0), state.adapter(1)
    for name, array in whole.arrays.items():
        small = one.arrays[name]
        assert np.abs(small).max() > 0
        both = (array[:, :1].astype(np.float64) + small) / 2
        np.testing.assert_array_equal(
            after[name][:, :1], (start[name][:, :1] + both).astype(np.float32)
        )
        np.testing.assert_array_equal(after[name][:, 1:], start[name][:, 1:] + array[:, 1:])
    stated = [e.fields.get("columns") for e in made.events("clinic-b", "dp-training")]
    assert stated == [1, 1]
    assert [e.fields.get("columns") for e in made.events("clinic-a", "dp-training")] == [None] * 2
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_an_update_of_other_columns_than_its_statement_does_not_count(world: Make) -> None:
    from audit.digests import arrays_digest
    from privacy.wire import pack

    made = world()

    def cut(message: Message) -> Message:
        if message.kind != "update":
            return message
        less = {name: np.ascontiguousarray(a[:, :1]) for name, a in message.arrays.items()}
        header = unpack(message, Update)
        return pack(header.model_copy(update={"update_digest": arrays_digest(less)}), less)

    made.wire.swap["clinic-b"] = cut
    made.train(made.federation.run_file())
    reasons = {e.fields["reason"] for e in made.events("hub", "update-rejected")}
    assert reasons == {"no-receipt"}


@pytest.mark.parametrize("method", ["median", "trimmed-mean"])
def test_a_robust_run_says_so_in_its_log_and_verdict(world: Make, method: str) -> None:
    made = world("clinic-a", "clinic-b", "clinic-c")
    run = _add(
        made.federation.run_file(quorum=3), f'[aggregation]\nmethod = "{method}"\nfaulty = 1\n'
    )
    made.train(run)
    first = made.events("hub", "aggregation")[0].fields
    assert method.split("-")[0][:4] in first["method"]
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())
    assert any("were not computed again" in notice for notice in found.notices)


def test_a_rule_that_the_quorum_cannot_feed_is_refused_before_it_costs(world: Make) -> None:
    made = world()
    run = _add(made.federation.run_file(quorum=2), '[aggregation]\nmethod = "krum"\nfaulty = 1\n')
    with pytest.raises(ServerError, match="quorum of 5") as refusal:
        made.train(run)
    assert refusal.value.exit_code == 2
    assert not made.wire.crossings


def test_a_round_whose_quorum_is_lost_for_good_is_skipped_and_said_everywhere(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world()
    run = made.federation.run_file(rounds=2, quorum=2)
    real, crashed = trainer.train, []

    def train(*given: Any, **more: Any) -> Any:
        if made.events("hub", "update-accepted") and not crashed:
            crashed.append(1)
            raise ValueError("the second site's process is lost here")
        return real(*given, **more)

    monkeypatch.setattr(trainer, "train", train)
    with pytest.raises(ServerError, match="round 1 has 1 of 2"):
        made.train(run)
    made.connect()
    state = made.train(run, resume=True)
    assert state.round == 2
    closed = made.events("hub", "round-closed")
    assert [sorted(e.fields["accepted"]) for e in closed] == [
        ["clinic-a"],
        ["clinic-a", "clinic-b"],
    ]
    assert closed[0].fields["rejected"] == ["clinic-b"]
    assert [e.round for e in made.events("hub", "aggregation")] == [1]
    for name, array in state.adapter(0).items():
        np.testing.assert_array_equal(array, state.adapter(1)[name])
    assert [f["skipped"] for f in made.heard("closed")] == [True, False]
    for site in made.sites:
        assert made.sites[site].ledger().begun("triage") == {0, 1}
    released = made.release(run)
    found = made.verify(released)
    assert found.ok, list(found.lines())
    assert "round 0 missed its quorum and changed nothing" in found.notices
    card = (Path(released["release"]) / "README.md").read_text()
    assert "1 (not averaged)" in card
    assert "Not every invited institution took part" in card


def test_a_site_that_loses_its_answer_on_the_way_is_asked_again_in_the_round(world: Make) -> None:
    made = world()
    run = made.federation.run_file(quorum=2)
    lost: list[int] = []
    real = made.wire.receive

    def receive() -> list[Any]:
        replies = real()
        for place, reply in enumerate(replies):
            if reply.message is not None and reply.message.kind == "update" and not lost:
                lost.append(1)
                replies[place] = type(reply)(reply.site, None, "no-answer")
        return list(replies)

    made.wire.receive = receive
    state = made.train(run)
    assert state.round == 2
    closed = made.events("hub", "round-closed")
    assert [e.fields["rejected"] for e in closed] == [[], []]
    updates = made.wire.sent("clinic-a", "update")
    assert unpack(updates[0], Update).update_digest == unpack(updates[1], Update).update_digest
    assert made.sites["clinic-a"].ledger().begun("triage") == {0, 1}
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_latecomer_does_not_hold_up_the_round_that_is_under_way(world: Make) -> None:
    """It agrees while another site's update is awaited, and is asked from the next round on."""
    made = world()
    run = made.federation.run_file(quorum=1, join_timeout_s=0.2)
    made.wire.offline.add("clinic-b")
    asked: list[tuple[str, str]] = []
    real = made.wire.receive
    held: list[float] = []

    def receive() -> list[Any]:
        import time

        if made.heard("round") and not made.heard("closed"):
            if not held:
                held.append(time.monotonic())
            made.wire.offline.clear()
            if time.monotonic() < held[0] + 3.0:  # clinic-a trains for three seconds
                made.wire.silent.add("clinic-a")
                return list(real())
        made.wire.silent.clear()
        return list(real())

    made.wire.receive = receive
    made.wire.before = lambda site, request: asked.append((site, request.metadata.group_id))
    made.train(run)
    assert asked.index(("clinic-b", "plan")) < asked.index(("clinic-a", "round-0"))
    assert ("clinic-b", "round-0") not in asked
    assert ("clinic-b", "round-1") in asked


def test_a_round_waits_for_a_site_that_its_quorum_needs(world: Make) -> None:
    made = world()
    run = made.federation.run_file(quorum=2)
    real = made.wire.send
    gone: list[int] = []

    def send(messages: Any, **more: Any) -> None:
        if more["group"] == "round-0" and not gone:
            gone.append(1)
            made.wire.offline.add("clinic-b")
        real(messages, **more)

    made.wire.send = send
    made.on_tell = lambda event, facts: made.wire.offline.clear() if event == "waiting" else None
    state = made.train(run)
    assert made.heard("waiting")[0]["missing"] == ["clinic-b"]
    assert state.participants == ["clinic-a", "clinic-b"]
    assert [e.fields["absent"] for e in made.events("hub", "round-closed")] == [[], []]
