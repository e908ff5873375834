"""A run without sockets in which somebody lies, goes back to a copy, or changes what was agreed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from audit import incidents
from audit.digests import arrays_digest
from client import alarms
from client.errors import ClientError
from configs.load import read_plan
from privacy.wire import Answer, Message, Propose, Round, Update, pack, unpack
from server import plans, rounds
from server.errors import ServerError
from tests.flow.world import of_round, once

Make = Callable[..., Any]


def _restamp(message: Message, arrays: dict[str, Any]) -> Message:
    """The same update with other arrays under their own, correct digest."""
    header = unpack(message, Update)
    return pack(header.model_copy(update={"update_digest": arrays_digest(arrays)}), arrays)


def _changed(message: Message, change: Callable[[dict[str, Any]], None]) -> Message:
    arrays = {name: array.copy() for name, array in message.arrays.items()}
    change(arrays)
    return _restamp(message, arrays)


# -- bad updates ----------------------------------------------------------------------------------


def test_updates_that_are_not_the_plans_are_recorded_and_the_run_goes_on(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_GRACE_SECONDS", 60.0)  # for a machine with other work to do
    names = ("good", "nan", "shape", "extra", "huge", "digest")
    made = world(*names)
    run = made.federation.run_file()

    def first(arrays: dict[str, Any]) -> str:
        return min(arrays)

    def nan(arrays: dict[str, Any]) -> None:
        arrays[first(arrays)][0, 0] = np.nan

    def shape(arrays: dict[str, Any]) -> None:
        arrays[first(arrays)] = np.ascontiguousarray(arrays[first(arrays)].T)

    def extra(arrays: dict[str, Any]) -> None:
        arrays["leak"] = np.zeros(3, np.float32)

    def huge(arrays: dict[str, Any]) -> None:
        arrays[first(arrays)] += np.float32(1e9)

    faults = {"nan": nan, "shape": shape, "extra": extra, "huge": huge}
    seen: set[str] = set()

    def lie(site: str) -> Callable[[Message], Message]:
        def swap(message: Message) -> Message:
            if message.kind != "update" or site in seen:
                return message
            seen.add(site)
            if site == "digest":
                header = unpack(message, Update)
                return pack(
                    header.model_copy(update={"update_digest": "sha256:" + "0" * 64}),
                    message.arrays,
                )
            return _changed(message, faults[site])

        return swap

    for site in names[1:]:
        made.wire.swap[site] = lie(site)
    made.train(run)
    rejected = {e.fields["institution"]: e.fields["reason"]
                for e in made.events("hub", "update-rejected")}  # fmt: skip
    assert rejected == dict.fromkeys(("nan", "shape", "extra"), "egress-denied") | {
        "digest": "digest-differs", "huge": "norm-over-limit"
    }  # fmt: skip
    closed = made.events("hub", "round-closed")
    assert closed[0].fields["accepted"] == ["good"]
    assert sorted(closed[1].fields["accepted"]) == sorted(names)
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_an_update_without_its_statement_is_not_accepted(world: Make) -> None:
    made = world()

    def forge(message: Message) -> Message:
        if message.kind != "update":
            return message
        return _changed(message, lambda arrays: arrays[min(arrays)].fill(1e-4))

    made.wire.swap["clinic-b"] = forge
    made.train(made.federation.run_file())
    reasons = {e.fields["reason"] for e in made.events("hub", "update-rejected")}
    assert reasons == {"no-receipt"}
    assert all(e.fields["accepted"] == ["clinic-a"] for e in made.events("hub", "round-closed"))


# -- restored copies and forks --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "word"), [("ledger.sqlite", "ledger-fault"), ("log", "evidence-inconsistent")]
)
def test_a_site_that_restored_an_older_copy_trains_no_more(
    world: Make, part: str, word: str
) -> None:
    made = world()
    site = made.sites["clinic-a"].path
    kept = site.parent / "backup"

    def save() -> None:
        # As a careful backup is taken: of the database and of what its journal still holds.
        kept.mkdir()
        for path in site.glob(part + "*"):
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, kept / path.name)

    def restore() -> None:
        for path in site.glob(part + "*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in kept.iterdir():
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, site / path.name)
        (site / "ledger.sqlite").chmod(0o600)

    save()
    made.wire.before = once(restore, of_round(1, "clinic-a"))
    made.train(made.federation.run_file())
    assert made.wire.failures("clinic-a") == [word]
    closed = made.events("hub", "round-closed")
    assert [e.fields["accepted"] for e in closed] == [["clinic-a", "clinic-b"], ["clinic-b"]]
    made.connect()
    with pytest.raises(ServerError) as refusal:
        made.train(made.federation.run_file(name="next", epsilon=0.5, quorum=2, join_timeout_s=0.3))
    assert refusal.value.exit_code == 3
    assert "clinic-a" in str(refusal.value)
    assert not made.wire.sent("clinic-a", "update")
    found = [item.code for item in incidents.listed(made.sites["clinic-a"].log())]
    # A log that was restored must not grow beside the newer one, not even by an incident.
    assert found == (["ledger-fault"] if part == "ledger.sqlite" else [])


def test_a_forked_coordinator_log_is_refused_and_recorded(world: Make) -> None:
    made = world()
    log = made.coordinator.path / "log"
    shutil.copytree(log, log.parent / "log-before")
    made.train(made.federation.run_file(epsilon=0.5))
    size, _ = made.sites["clinic-a"].witness().last(made.coordinator.origin)
    shutil.rmtree(log)
    (log.parent / "log-before").rename(log)
    forked = made.coordinator.log()
    while forked.size <= size + 2:
        forked.append("institution-revoked", {"name": f"nobody-{forked.size}"})
    made.connect()
    with pytest.raises(ServerError) as refusal:
        made.train(made.federation.run_file(name="second", epsilon=0.5, join_timeout_s=4.0))
    assert refusal.value.exit_code == 3
    assert set(made.wire.failures("clinic-a")) == {"evidence-inconsistent"}
    for site in made.sites.values():
        records = site.witness().contradictions()
        assert records
        origin, older, newer = records[0]
        assert origin == made.coordinator.origin
        assert older != newer
        log = site.log()
        refused = [entry.event.fields for entry in log.entries("witness-refused")]
        assert (refused[0]["older"], refused[0]["newer"]) == (older, newer)
        (found,) = incidents.listed(log)
        assert (found.code, found.severity, found.closed) == ("log-inconsistent", "high", None)
        with pytest.raises(ClientError, match=f"--close {found.entry}"):
            alarms.check(log)
        incidents.close(log, found.entry)
        alarms.check(log)
    assert made.spent("clinic-a").rows[0].run == "triage"
    assert len(made.spent("clinic-a").rows) == 1


# -- changed plans --------------------------------------------------------------------------------


def test_a_run_that_changed_is_not_resumed(world: Make) -> None:
    made = world()
    made.wire.offline |= {"clinic-a", "clinic-b"}
    with pytest.raises(ServerError, match="not connected"):
        made.train(made.federation.run_file(join_timeout_s=0.1))
    with pytest.raises(ServerError, match=r"RUN\.toml changed") as refusal:
        made.train(made.federation.run_file(rounds=3), resume=True)
    assert refusal.value.exit_code == 2
    with pytest.raises(ServerError, match="exists already"):
        made.train(made.federation.run_file())


def test_a_plan_that_changed_after_its_approval_is_not_trained(world: Make) -> None:
    made = world("clinic-a")
    run = made.federation.run_file(quorum=1)
    real = made.wire.send

    def send(messages: dict[str, Any], **more: Any) -> None:
        """A coordinator that swaps the plan's digest for that of a dearer plan."""
        out = {}
        for site, message in messages.items():
            if message.kind == "round":
                values = json.loads(message.header)
                values["plan_digest"] = "sha256:" + "d" * 64
                header = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
                message = Message("round", header, message.arrays)
            out[site] = message
        real(out, **more)

    made.wire.send = send
    with pytest.raises(ServerError, match="round 1 has 0 of 1"):
        made.train(run)
    assert made.wire.failures("clinic-a") == ["not-approved"]
    assert not made.spent("clinic-a").rows


def test_another_plan_under_the_name_of_a_charged_run_is_not_trained(world: Make) -> None:
    made = world("clinic-a")
    state = made.train(made.federation.run_file(epsilon=0.5))
    dearer = read_plan(plans.document(state.plan).replace(b'"clip_norm":"1"', b'"clip_norm":"2"'))
    assert dearer != state.plan
    made.connect()
    conductor = made.conductor(state)

    def ask(header: Callable[[dict[str, Any]], Any], arrays: Any = None) -> None:
        message = pack(header(conductor._down("clinic-a")), arrays)
        made.wire.send({"clinic-a": message}, group="", ttl_s=60)
        (reply,) = made.wire.receive()
        if reply.message is not None:
            conductor._take_evidence(conductor.parties["clinic-a"], unpack(reply.message, Answer))

    ask(lambda down: Propose(**down, run="triage", plan=plans.document(dearer).decode()))
    ask(
        lambda down: Round(
            **down, run="triage", round=0, plan_digest=plans.digest(dearer),
            input_digest=arrays_digest(state.adapter(0)),
        ),
        state.adapter(0),
    )  # fmt: skip
    assert made.wire.failures("clinic-a") == ["plan-not-acceptable"]
    assert len(made.spent("clinic-a").rows) == 1


def test_an_adapter_other_than_the_announced_one_is_not_trained_on(world: Make) -> None:
    made = world("clinic-a")
    real = made.wire.send

    def send(messages: dict[str, Any], **more: Any) -> None:
        out = {}
        for site, message in messages.items():
            arrays = {name: array + 1 for name, array in message.arrays.items()}
            out[site] = Message(message.kind, message.header, arrays)
        real(out, **more)

    made.wire.send = send
    with pytest.raises(ServerError):
        made.train(made.federation.run_file())
    assert made.wire.failures("clinic-a") == ["plan-not-acceptable"]
    assert not made.spent("clinic-a").rows
