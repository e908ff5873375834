"""A whole run without sockets: evidence, decisions, quorum, and nothing that leaks."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import privity
from privacy.plan import Mechanism, epsilon
from server import conduct, rounds
from server.errors import ServerError
from tests.flow.world import once

Make = Callable[..., Any]


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


def test_what_depends_on_records_is_logged_at_few_moments(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry's time leaves with it, and would say how long reading and training took."""
    from audit.log import Log
    from client import moments

    made = world("clinic-a")
    seen: list[str] = []
    append, wait = Log.append, moments.wait

    def appended(log: Any, kind: str, *given: Any, **more: Any) -> Any:
        seen.append(kind)
        return append(log, kind, *given, **more)

    def waited(began: float) -> None:
        wait(began)
        seen.append("moment")

    monkeypatch.setattr(Log, "append", appended)
    monkeypatch.setattr(moments, "wait", waited)
    made.train(made.federation.run_file())
    for kind, times in (("pii-scrub", 1), ("dp-training", 2)):
        before = [seen[at - 1] for at, one in enumerate(seen) if one == kind]
        assert before == ["moment"] * times


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
    from client import trainer

    real = trainer.train

    def train(model: Any, people: Any, start: Any, plan: Any, **more: Any) -> Any:
        if world.events("hub", "round-closed"):
            raise ValueError(f"{CANARY}: a library quotes its input")
        return real(model, people, start, plan, **more)

    run = world.federation.run_file(quorum=1)
    monkeypatch.setattr(trainer, "train", train)
    with pytest.raises(ServerError, match="round 2 has 0 of 1"):
        world.train(run)
    assert world.wire.failures("clinic-a") == ["failed"]
    crossings = list(world.wire.crossings)
    # A crashed round is spent, so this run stays short of a release; another one gets there.
    monkeypatch.setattr(trainer, "train", real)
    for name in world.sites:
        world.federation.set(name, epsilon=4.0)
    world.connect()
    second = world.federation.run_file(name="second")
    world.train(second)
    released = world.release(second)
    crossings += world.wire.crossings
    assert world.verify(released).ok
    assert len(crossings) > 20

    assert not [c.kind for c in crossings if not c.objects]
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


# -- decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approve", "refuse"])
def test_a_run_waits_until_the_institution_has_decided(
    world: Make,
    decision: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
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

    made.on_tell = once(
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
    (told,) = [it.getMessage() for it in caplog.records if "waits" in it.getMessage()]
    assert told.endswith(f"privity client approve {path} triage")
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
    run = made.federation.run_file(quorum=2, round_timeout_s=3.0)
    made.wire.before = once(
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


def test_a_late_joiner_takes_part_from_the_next_round(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_GRACE_SECONDS", 60.0)  # for a machine with other work to do
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


def test_a_site_that_leaves_after_its_update_has_left_its_evidence(world: Make) -> None:
    made = world()
    run = made.federation.run_file()
    made.on_tell = lambda event, facts: (
        made.wire.offline.add("clinic-b") if (event, facts.get("round")) == ("closed", 0) else None
    )
    made.train(run)
    released = made.release(run)
    assert released["witnesses"] == ["clinic-a"]
    found = made.verify(released)
    assert found.ok, list(found.lines())


def test_a_site_that_is_revoked_in_a_run_stays_in_its_evidence(world: Make) -> None:
    from server import enrolment

    made = world()

    def revoke() -> None:
        enrolment.revoke(made.coordinator, "clinic-b")
        made.wire.offline.add("clinic-b")  # as the SuperLink does with a node it no longer knows

    made.on_tell = once(revoke, lambda event, _: event == "closed")
    run = made.federation.run_file()
    state = made.train(run)
    assert [e.fields["accepted"] for e in made.events("hub", "round-closed")] == [
        ["clinic-a", "clinic-b"],
        ["clinic-a"],
    ]
    released = conduct.release(
        made.coordinator, state.plan.run, None, base=made.federation.root, licence="Apache-2.0"
    )
    found = made.verify(released)
    assert found.ok, list(found.lines())
    assert [i.name for i in found.institutions] == ["clinic-a", "clinic-b"]
    for institutions in (["clinic-a", "stranger"], ["clinic-a", "clinic-b"]):
        with pytest.raises(ServerError, match=f"{institutions[1]} not enrolled"):
            made.train(made.federation.run_file(name="next", institutions=institutions))


def test_a_run_goes_on_and_is_released_without_a_site_that_was_revoked(world: Make) -> None:
    from server import enrolment

    made = world()
    run = made.federation.run_file()

    def stop(event: str, facts: dict[str, Any]) -> None:
        if event == "update" and facts["institution"] == "clinic-b":  # the last one asked
            raise KeyboardInterrupt

    made.on_tell = stop
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    enrolment.revoke(made.coordinator, "clinic-b")
    made.connect().offline.add("clinic-b")
    made.on_tell = lambda event, facts: None
    made.train(run, resume=True)
    closed = made.events("hub", "round-closed")
    assert [e.fields["accepted"] for e in closed] == [["clinic-a", "clinic-b"], ["clinic-a"]]
    assert sorted(closed[0].fields["site_checkpoints"]) == ["clinic-a", "clinic-b"]
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


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
