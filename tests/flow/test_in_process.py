"""A whole run without sockets: what holds when everything goes right, and when it does not."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import privity
from audit.digests import arrays_digest
from configs.load import read_plan
from privacy.plan import Mechanism, epsilon
from privacy.wire import Answer, Message, Propose, Round, Update, pack, unpack
from server import plans, rounds
from server.errors import ServerError

Make = Callable[..., Any]


def _updates(world: Any, site: str) -> list[str]:
    return [unpack(m, Update).update_digest for m in world.wire.sent(site, "update")]


def _restamp(message: Message, arrays: dict[str, Any]) -> Message:
    """The same update with other arrays under their own, correct digest."""
    header = unpack(message, Update)
    return pack(header.model_copy(update={"update_digest": arrays_digest(arrays)}), arrays)


def _changed(message: Message, change: Callable[[dict[str, Any]], None]) -> Message:
    arrays = {name: array.copy() for name, array in message.arrays.items()}
    change(arrays)
    return _restamp(message, arrays)


def _once(act: Callable[[], None], when: Callable[..., bool]) -> Callable[..., None]:
    """Run `act` the first time that `when` holds."""
    done: list[bool] = []

    def hook(*given: Any) -> None:
        if not done and when(*given):
            done.append(True)
            act()

    return hook


def _round(number: int, site: str) -> Callable[[str, Any], bool]:
    return lambda name, request: name == site and request.metadata.group_id == f"round-{number}"


# -- everything goes right ------------------------------------------------------------------------


def test_a_run_of_scrubbed_records_ends_in_a_bundle_that_verifies(scrubbing_world: Make) -> None:
    world = scrubbing_world("clinic-a", "clinic-b", "bank-c")
    rows = world.sites["clinic-a"].data.read_text().splitlines()[:4]
    (world.federation.root / "public.jsonl").write_text("\n".join(rows) + "\n")
    run = world.federation.run_file(evaluation="public.jsonl")
    state = world.train(run)
    assert (state.round, state.outcome) == (2, "trained")
    assert state.participants == ["bank-c", "clinic-a", "clinic-b"]
    released = world.release(run)
    assert released["witnesses"] == ["bank-c", "clinic-a", "clinic-b"]
    assert released["evaluation"]["records"] == 4
    found = world.verify(released)
    assert found.ok, list(found.lines())
    assert sorted(i.name for i in found.institutions) == ["bank-c", "clinic-a", "clinic-b"]
    assert found.rounds == 2


def test_epsilon_in_ledger_log_plan_and_verdict_is_the_pld_of_the_plan(world: Make) -> None:
    made = world()
    run = made.federation.run_file()
    plan = made.train(run).plan
    expected = epsilon(
        [Mechanism(plan.noise_multiplier, plan.sample_rate, plan.steps)], delta=plan.delta
    )
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())
    for site in made.sites:
        balance = made.spent(site)
        assert balance.spent == pytest.approx(expected, abs=1e-9)
        assert balance.reserved == pytest.approx(0, abs=1e-9)
        (reserved,) = made.events(site, "budget-reserved")
        assert float(reserved.fields["epsilon_after"]) == pytest.approx(expected, abs=1e-6)
        (verified,) = (i for i in found.institutions if i.name == site)
        assert verified.epsilon == pytest.approx(expected, abs=1e-6)
    assert expected <= 2.0


def test_two_runs_of_one_cohort_add_up(world: Make) -> None:
    made = world()
    first = made.federation.run_file(epsilon=0.5)
    second = made.federation.run_file(name="second", epsilon=0.5)
    plans = [made.train(first).plan]
    made.connect()
    plans.append(made.train(second).plan)
    rows = [Mechanism(p.noise_multiplier, p.sample_rate, p.steps) for p in plans]
    together = epsilon(rows, delta=1e-5)
    assert together > epsilon(rows[:1], delta=1e-5) + 0.1
    assert made.spent("clinic-a").spent == pytest.approx(together, abs=1e-9)
    found = made.verify(made.release(second))
    assert found.ok, list(found.lines())
    assert found.institutions[0].epsilon == pytest.approx(together, abs=1e-6)


# -- nothing leaks --------------------------------------------------------------------------------

CANARY = "zqxvkanarienvogel"
PERSON = "zqxvperson77"


def _spellings(word: str) -> Iterator[bytes]:
    raw = word.encode()
    yield raw
    yield raw.hex().encode()
    yield word.encode("utf-16-le")
    for shift in range(3):  # base64 of a text that the word stands in, at any of three offsets
        yield base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]


def _holds(data: bytes) -> bool:
    lowered = data.lower()
    return any(
        spelling in data or spelling.lower() in lowered
        for word in (CANARY, PERSON)
        for spelling in _spellings(word)
    )


def test_nothing_of_a_record_is_in_messages_logs_folders_bundle_or_output(
    scrubbing_world: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    world = scrubbing_world()
    for folder in world.sites.values():
        lines = [
            json.dumps({"instruction": f"{CANARY} has a cough and {CANARY} a fever, {n}.",
                        "response": CANARY, "unit_id": f"{PERSON}-{n % 5}", "category": CANARY})
            for n in range(12)
        ]  # fmt: skip
        lines.append(f"{{{CANARY} broken json")
        folder.data.write_text("\n".join(lines) + "\n")
    from client import tasks

    real = tasks.train

    def train(model: Any, people: Any, start: Any, plan: Any, **more: Any) -> Any:
        if world.events("hub", "round-closed"):
            raise ValueError(f"{CANARY}: a library quotes its input")
        return real(model, people, start, plan, **more)

    run = world.federation.run_file(quorum=1)
    monkeypatch.setattr(tasks, "train", train)
    with pytest.raises(ServerError, match="round 2 has 0 of 1"):
        world.train(run)
    assert world.wire.failures("clinic-a") == ["failed"]
    crossings = list(world.wire.crossings)
    # A crashed round is spent, so this run stays short of a release; another one gets there.
    monkeypatch.setattr(tasks, "train", real)
    for name in world.sites:
        world.federation.set(name, epsilon=4.0)
    world.connect()
    second = world.federation.run_file(name="second")
    world.train(second)
    released = world.release(second)
    crossings += world.wire.crossings
    assert world.verify(released).ok
    assert len(crossings) > 20

    assert not [c.kind for c in crossings if _holds(c.objects)]
    found = {
        path.relative_to(world.federation.root).as_posix()
        for path in world.federation.root.rglob("*")
        if path.is_file() and _holds(path.read_bytes())
    }
    assert found == {"clinic-a/records.jsonl", "clinic-b/records.jsonl"}  # and so the search works
    out, err = capfd.readouterr()
    assert not _holds((out + err + caplog.text).encode())
    assert "unforeseen ValueError" in caplog.text


def test_the_search_finds_a_word_in_every_spelling() -> None:
    for shift in range(6):
        text = (b"-" * shift) + CANARY.encode() + b"--"
        assert _holds(text)
        assert _holds(base64.b64encode(text)), shift
        assert _holds(text.hex().encode())
    assert not _holds(b"nothing here" * 50)


# -- crashes --------------------------------------------------------------------------------------


def test_a_coordinator_that_crashed_in_a_round_goes_on_without_new_spend(world: Make) -> None:
    made = world()
    run = made.federation.run_file()

    def crash() -> None:
        raise KeyboardInterrupt

    made.wire.before = _once(crash, _round(0, "clinic-b"))
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    first = _updates(made, "clinic-a")
    assert len(first) == 1
    made.connect()
    assert made.train(run, resume=True).participants == ["clinic-a", "clinic-b"]
    assert len(_updates(made, "clinic-a")) == 1, "an accepted update is not asked for again"
    assert len(_updates(made, "clinic-b")) == 2
    assert made.events("hub", "update-accepted")[0].fields["update_digest"] == first[0]
    assert len(made.events("clinic-a", "dp-training")) == 2
    assert made.sites["clinic-a"].ledger().begun("triage") == {0, 1}
    assert len(made.events("hub", "update-accepted")) == 4
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_lost_answer_is_given_again_with_the_same_bytes(world: Make) -> None:
    made = world("clinic-a")
    run = made.federation.run_file()
    lost: list[bytes] = []

    def lose(message: Message) -> Message:
        if message.kind == "update" and not lost:
            lost.append(b"".join(a.tobytes() for _, a in sorted(message.arrays.items())))
            raise KeyboardInterrupt
        return message

    made.wire.swap["clinic-a"] = lose
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    made.connect()
    made.train(run, resume=True)
    again = made.wire.sent("clinic-a", "update")[0]
    assert b"".join(a.tobytes() for _, a in sorted(again.arrays.items())) == lost[0]
    assert made.spent("clinic-a").rows[0].rounds_begun == 2
    assert made.verify(made.release(run)).ok


@pytest.mark.parametrize("at", ["aggregation", "round-closed"])
def test_a_crash_while_a_round_is_closed_leaves_one_closing(
    world: Make, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    from audit.log import Log

    made = world()
    run = made.federation.run_file()
    real = Log.append
    crashed: list[str] = []

    def append(log: Any, kind: str, *given: Any, **more: Any) -> Any:
        receipt = real(log, kind, *given, **more)
        if kind == at and not crashed:
            crashed.append(kind)
            raise KeyboardInterrupt
        return receipt

    monkeypatch.setattr(Log, "append", append)
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    made.connect()
    made.train(run, resume=True)
    assert [e.round for e in made.events("hub", "aggregation")] == [0, 1]
    assert [e.round for e in made.events("hub", "round-closed")] == [0, 1]
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_site_that_is_gone_when_its_round_is_resumed_does_not_spoil_the_evidence(
    world: Make,
) -> None:
    made = world()
    run = made.federation.run_file(join_timeout_s=0.3)

    def crash() -> None:
        raise KeyboardInterrupt

    made.wire.before = _once(crash, _round(0, "clinic-b"))
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    made.connect().offline.add("clinic-a")
    made.train(run, resume=True)
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


# -- bad updates ----------------------------------------------------------------------------------


def test_updates_that_are_not_the_plans_are_recorded_and_the_run_goes_on(world: Make) -> None:
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
    assert rejected == dict.fromkeys(("nan", "shape", "extra", "huge"), "egress-denied") | {
        "digest": "digest-differs"
    }
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
        return _changed(message, lambda arrays: arrays[min(arrays)].fill(0.5))

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
    made.wire.before = _once(restore, _round(1, "clinic-a"))
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
        made.train(made.federation.run_file(name="second", epsilon=0.5, join_timeout_s=0.5))
    assert refusal.value.exit_code == 3
    assert set(made.wire.failures("clinic-a")) == {"evidence-inconsistent"}
    for site in made.sites.values():
        records = site.witness().contradictions()
        assert records
        origin, older, newer = records[0]
        assert origin == made.coordinator.origin
        assert older != newer
    assert made.spent("clinic-a").rows[0].run == "triage"
    assert len(made.spent("clinic-a").rows) == 1


# -- decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approve", "refuse"])
def test_a_run_waits_until_the_institution_has_decided(
    world: Make,
    decision: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "_ASK_AGAIN_SECONDS", 0.01)
    made = world()
    made.federation.set("clinic-a", approve="ask")
    made.connect()
    path = made.sites["clinic-a"].path
    rows_while_pending: list[int] = []

    def decide() -> None:
        rows_while_pending.append(len(made.spent("clinic-a").rows))
        assert privity.main(["client", decision, str(path), "triage"]) == 0

    made.on_tell = _once(
        decide,
        lambda event, facts: (
            event == "answered"
            and (facts["institution"], facts["status"]) == ("clinic-a", "pending")
        ),
    )
    run = made.federation.run_file()
    made.train(run)
    assert rows_while_pending == [0]
    assert "plan sha256:" in capfd.readouterr().out
    (approval,) = made.events("clinic-a", "approval")
    assert approval.fields["by"] == "operator"
    answered = [f for f in made.heard("answered") if f["institution"] == "clinic-a"]
    assert answered[0] == {
        "institution": "clinic-a", "status": "pending", "reason": "waiting-for-approval"
    }  # fmt: skip
    if decision == "approve":
        assert approval.fields["decision"] == "approved"
        assert len(made.wire.sent("clinic-a", "update")) == 2
    else:
        assert answered[-1]["reason"] == "refused-by-operator"
        assert not made.wire.sent("clinic-a", "update")
        assert not made.spent("clinic-a").rows
        assert not made.events("clinic-a", "pii-scrub")
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_run_over_the_budget_is_declined_before_a_record_is_opened(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world()
    made.train(made.federation.run_file(epsilon=2.0))
    made.connect()
    from client import people

    monkeypatch.setattr(people, "read", lambda folder: pytest.fail("records were opened"))
    with pytest.raises(ServerError, match="clinic-a: epsilon-over-budget") as refusal:
        made.train(made.federation.run_file(name="more", epsilon=2.0))
    assert refusal.value.exit_code == 3
    assert len(made.spent("clinic-a").rows) == 1


def test_each_rule_of_a_site_declines_with_its_own_word(world: Make) -> None:
    made = world("model", "steps", "policy", "records", "delta")
    made.federation.set("model", models=["another"])
    made.federation.set("steps", max_steps=1)
    made.federation.set("policy", run_epsilon=0.5)
    made.federation.set("delta", delta=1e-6)
    made.sites["records"].data.unlink()
    made.connect()
    with pytest.raises(ServerError):
        made.train(made.federation.run_file())
    assert {f["institution"]: f["reason"] for f in made.heard("answered")} == {
        "model": "model-not-allowed",
        "steps": "too-many-steps",
        "policy": "epsilon-over-policy",
        "records": "records-missing",
        "delta": "delta-mismatch",
    }


# -- quorum and late joiners ----------------------------------------------------------------------


def test_a_lost_quorum_ends_with_exit_code_3_and_resume_goes_on(world: Make) -> None:
    made = world()
    run = made.federation.run_file(quorum=2, round_timeout_s=0.5)
    made.wire.before = _once(
        lambda: made.wire.silent.add("clinic-b"), lambda _, r: r.metadata.group_id == "round-1"
    )
    with pytest.raises(ServerError, match="round 2 has 1 of 2 needed updates") as refusal:
        made.train(run)
    assert refusal.value.exit_code == 3
    begun = made.sites["clinic-a"].ledger().begun("triage")
    made.connect()
    assert made.train(run, resume=True).round == 2
    assert made.sites["clinic-a"].ledger().begun("triage") == begun == {0, 1}
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_late_joiner_takes_part_from_the_next_round(world: Make) -> None:
    made = world()
    run = made.federation.run_file(join_timeout_s=0.3)
    made.wire.offline.add("clinic-b")
    made.on_tell = lambda event, facts: (
        made.wire.offline.clear() if (event, facts.get("round")) == ("closed", 0) else None
    )
    made.train(run)
    closed = made.events("hub", "round-closed")
    assert [e.fields["accepted"] for e in closed] == [["clinic-a"], ["clinic-a", "clinic-b"]]
    assert closed[0].fields["absent"] == ["clinic-b"]
    assert made.sites["clinic-b"].ledger().begun("triage") == {1}
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_revoked_site_is_not_asked_again(world: Make) -> None:
    from server import enrolment

    made = world()
    run = made.federation.run_file()
    made.on_tell = _once(
        lambda: enrolment.revoke(made.coordinator, "clinic-b"), lambda event, _: event == "closed"
    )
    made.wire.before = lambda site, request: (
        made.wire.silent.add("clinic-b") if request.metadata.group_id == "round-1" else None
    )
    with pytest.raises(ServerError, match="not enrolled"):
        made.train(made.federation.run_file(name="wrong", institutions=["clinic-a", "stranger"]))
    made.federation.run_file(round_timeout_s=1.0)
    made.train(run)
    assert made.events("hub", "institution-revoked")[0].fields == {"name": "clinic-b"}
    with pytest.raises(ServerError, match="clinic-b not enrolled"):
        made.train(made.federation.run_file(name="next"))


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


# -- the bundle -----------------------------------------------------------------------------------


def test_a_bundle_is_checked_against_an_earlier_checkpoint(world: Make) -> None:
    made = world("clinic-a")
    run = made.federation.run_file()
    made.train(run)
    earlier = made.coordinator.log().checkpoint()
    released = made.release(run)
    assert made.verify(released, against=earlier).ok
    ledger = Path(released["bundle"]) / "plan.json"
    ledger.write_bytes(ledger.read_bytes().replace(b'"epsilon":"2"', b'"epsilon":"1"'))
    assert not made.verify(released).ok
