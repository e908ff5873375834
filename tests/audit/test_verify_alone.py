"""What one check of the verifier alone can find: a falsehood that every other one lets through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import bundle, canonical, events, keys, note, rotation, tenure
from audit.events import Subject

Fields = dict[str, Any]
ONE = "sha256:" + "1" * 64
RUN = "run-1"


def found_in(findings: Any, code: str) -> list[str]:
    """Where a fault of this code was found."""
    return [fault.where for fault in findings.faults if fault.code == code]


def place(played: Any, party: str, kind: str, number: int = 0) -> str:
    """Where a party's log has an event of a kind."""
    log = played.coordinator.log if party == "hub" else played.sites[party].log
    where = "coordinator" if party == "hub" else f"sites/{party}"
    return f"{where} entry {[entry.index for entry in log.entries(kind)][number]}"


def changed(wanted: tuple[str, str, int | None], how: Callable[[Fields], Any]) -> Any:
    """An edit of one kind of event of one party, in one round."""
    return lambda at, of, turn, fields: how(fields) if (at, of, turn) == wanted else fields


def delayed(first: tuple[str, str], until: tuple[str, str]) -> Any:
    """An edit that writes the first event of one kind behind the first of another kind."""
    held: list[Fields] = []

    def edit(at: str, of: str, turn: int | None, fields: Fields) -> Any:
        if (at, of) == first and not held:
            held.append(fields)
            return None
        if (at, of) == until and len(held) == 1:
            held.append({})
            return [fields, (first[1], held[0])]
        return fields

    return edit


class InRun:
    """Gives the run's name to events that an edit adds (they have none of their own)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
        honest = events.statement

        def named(kind: str, fields: Fields, **header: Any) -> Any:
            if kind in kinds and header.get("run") is None:
                header["run"] = RUN
            return honest(kind, fields, **header)

        monkeypatch.setattr(events, "statement", named)


@pytest.mark.parametrize("wrong", ["origin", "keys", "kind"])
def test_a_log_that_does_not_start_with_its_own_name_and_keys_is_found(
    federate: Any, judge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    honest, follow = events.statement, tenure.Tenure.follow
    own: list[keys.PublicKeys] = []
    strangers = federate(tmp_path / "other", names=("beta",)).sites["beta"].public.to_json()

    def forged(kind: str, fields: Fields, **header: Any) -> Any:
        if kind == "log-started" and header["emitter"] == "alpha":
            own.append(keys.PublicKeys.from_json(fields["keys"]))
            if wrong == "kind":
                kind, fields = "verifier-run", {"bundle_digest": ONE, "verdict": "ok"}
            else:
                fields = {**fields, wrong: "alpha/diary" if wrong == "origin" else strangers}
        return honest(kind, fields, **header)

    def lenient(self: tenure.Tenure, event: events.Event) -> None:
        """Our own log would not go on from such a start; another program may."""
        if event.emitter == "alpha":
            self.history = [rotation.Segment(0, own[0])]
        else:
            follow(self, event)

    monkeypatch.setattr(events, "statement", forged)
    monkeypatch.setattr(tenure.Tenure, "follow", lenient)
    findings = judge(federate(tmp_path / "run", names=("alpha",), quorum=1).play().bundle())
    assert [(f.code, f.where) for f in findings.faults] == [("wrong-start", "sites/alpha entry 0")]


def test_a_rounds_note_of_a_site_must_be_the_sites_own_history(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    """The update's own statement fits: only the note that the round keeps is another."""

    def unsigned(fields: Fields) -> Fields:
        notes = fields["site_checkpoints"]
        return {**fields, "site_checkpoints": {**notes, "alpha": notes["beta"]}}

    def forked(fields: Fields) -> Fields:
        ring = other.sites["alpha"].keys
        text = note.Checkpoint("alpha/log", 3, b"f" * 32).text
        signed = str(note.Note(text, (note.sign(text, name="alpha/log", key=ring.log),)))
        return {**fields, "site_checkpoints": {**fields["site_checkpoints"], "alpha": signed}}

    played = federate(tmp_path / "a", edit=changed(("hub", "round-closed", 0), unsigned))
    findings = judge(played.play().bundle())
    assert {f.layer for f in findings.faults} == {"completeness"}
    assert [f.where for f in findings.faults] == [place(played, "hub", "round-closed")]
    other = federate(tmp_path / "b", edit=changed(("hub", "round-closed", 0), forked))
    findings = judge(other.play().bundle())
    assert found_in(findings, "log-forked") == [place(other, "hub", "round-closed")]


def test_an_update_needs_an_entry_that_tells_of_its_training(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    """A carried update whose site logged it, cleared it, and never trained for it under privacy."""

    class Untrained(federate):  # type: ignore[misc]
        def append(self, party: Any, kind: str, fields: Fields, **more: Any) -> Any:
            if kind == "egress" and party.name == "alpha":
                more["subjects"] = [Subject("update", fields["update_digest"])]
            receipt = super().append(party, kind, fields, **more)
            if kind == "egress" and party.name == "alpha":
                self.cleared = receipt
            return receipt

    def point(fields: Fields) -> Fields:
        if fields["institution"] != "alpha":
            return fields
        index, leaf = played.cleared.index, played.cleared.leaf_digest
        return {**fields, "statement_index": index, "statement_leaf": leaf}

    played = Untrained(tmp_path, edit=changed(("hub", "update-accepted", 1), point))
    findings = judge(played.play().bundle())
    assert [f.code for f in findings.faults] == ["statement-wrong"]


def test_a_training_does_not_stand_for_the_same_update_of_another_round(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    first: list[Fields] = []

    def edit(at: str, of: str, turn: int | None, fields: Fields) -> Fields:
        if (at, of) == ("hub", "update-accepted") and fields["institution"] == "alpha":
            first.append(fields)
            names = ("update_digest", "statement_index", "statement_leaf")
            return {**fields, **{name: first[0][name] for name in names}}
        return fields

    findings = judge(federate(tmp_path, edit=edit).play().bundle())
    assert len(found_in(findings, "statement-wrong")) == 1


def test_a_plan_is_compared_with_its_digest_and_with_the_bundles(
    federate: Any, judge: Any, tmp_path: Path, copied: Path, relisted: Any
) -> None:
    played = federate(
        tmp_path / "log",
        edit=changed(("hub", "run-started", None), lambda f: {**f, "plan_digest": ONE}),
    )
    findings = judge(played.play().bundle())
    assert place(played, "hub", "run-started") in found_in(findings, "plan-differs")
    (copied / bundle.PLAN).write_bytes(canonical.encode({"name": "another"}))
    relisted(copied)
    assert [(f.code, f.where) for f in judge(copied).faults] == [("plan-differs", "plan.json")]


def test_an_aggregate_of_no_update_is_found(federate: Any, judge: Any, tmp_path: Path) -> None:
    everyone = ("alpha", "beta", "gamma")
    played = federate(tmp_path, absent={1: everyone})
    findings = judge(played.play().bundle())
    assert found_in(findings, "inputs-differ") == [place(played, "hub", "aggregation", 1)]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"steps": 0}])
def test_a_reservation_of_nothing_is_found(
    federate: Any, judge: Any, tmp_path: Path, wrong: Fields
) -> None:
    edit = changed(("alpha", "budget-reserved", None), lambda fields: {**fields, **wrong})
    played = federate(tmp_path, edit=edit)
    findings = judge(played.play().bundle())
    assert found_in(findings, "bad-reservation") == [place(played, "alpha", "budget-reserved")]


def test_a_training_before_its_reservation_is_found(
    federate: Any, judge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InRun(monkeypatch, "budget-reserved")
    edit = delayed(("alpha", "budget-reserved"), ("alpha", "egress"))
    played = federate(tmp_path, edit=edit)
    findings = judge(played.play().bundle())
    assert found_in(findings, "not-reserved") == [place(played, "alpha", "dp-training")]


def test_a_release_without_an_entry_is_found_in_the_bundle_and_at_each_receiver(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    played = federate(tmp_path, edit=changed(("hub", "release", None), lambda fields: None))
    findings = judge(played.play().bundle())
    receivers = [place(played, name, "release-received") for name in played.names]
    assert found_in(findings, "release-unlogged") == ["release", *receivers]


def test_a_release_of_a_run_that_committed_to_no_mark_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    gone = changed(("hub", "watermark-committed", None), lambda fields: None)
    played = federate(tmp_path, edit=gone)
    findings = judge(played.play().bundle())
    assert place(played, "hub", "release") in found_in(findings, "mark-uncommitted")


def test_two_keys_for_one_recipient_are_found(federate: Any, judge: Any, tmp_path: Path) -> None:
    def twice(fields: Fields) -> Fields:
        rows = fields["commitments"]
        return {**fields, "commitments": [{**rows[0], "commitment": ONE}, *rows]}

    played = federate(tmp_path, edit=changed(("hub", "watermark-keys", None), twice))
    assert [f.code for f in judge(played.play().bundle()).faults] == ["mark-recommitted"]


def test_keys_that_were_fixed_after_their_use_are_found(
    federate: Any, judge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InRun(monkeypatch, "watermark-keys")
    edit = delayed(("hub", "watermark-keys"), ("hub", "watermark-committed"))
    played = federate(tmp_path, edit=edit)
    places = found_in(judge(played.play().bundle()), "mark-uncommitted")
    assert places.count(place(played, "hub", "broadcast-marked")) == len(played.names)
    assert places.count(place(played, "hub", "watermark-committed")) == 1


def test_an_update_of_a_round_that_was_never_averaged_is_judged_without_it(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    lost = changed(("hub", "aggregation", 0), lambda fields: None)
    played = federate(tmp_path, edit=lost)
    assert found_in(judge(played.play().bundle()), "aggregation-missing") == ["coordinator"]


def test_updates_that_name_no_entry_are_told_once_and_stop_nothing(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    far = changed(
        ("hub", "update-accepted", 1), lambda fields: {**fields, "statement_index": 10**6}
    )
    played = federate(tmp_path, edit=far)
    findings = judge(played.play().bundle())
    assert len(found_in(findings, "statement-missing")) == len(played.names)
    assert findings.intact


def test_a_bundle_without_an_invited_sites_log_is_judged_to_its_end(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    played = federate(tmp_path).play()
    sites = {
        name: bundle.Source(site.log.folder, site.public)
        for name, site in played.sites.items()
        if name != "alpha"
    }
    bundle.write(
        tmp_path / "less",
        run=RUN,
        coordinator=bundle.Source(played.coordinator.log.folder, played.coordinator.public),
        sites=sites,
        plan=canonical.encode(played.plan),
        release=played.release,
    )
    findings = judge(tmp_path / "less")
    assert found_in(findings, "site-missing") == ["sites"]
    assert findings.intact
    assert {institution.name for institution in findings.institutions} == {"beta", "gamma"}


def test_an_accusation_of_somebody_who_has_no_log_here_is_passed_over(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    played = federate(tmp_path)
    accused = {"origin": "mallory/log", "reason": "fork", "older": "a note\n"}
    played.sites["alpha"].log.append("witness-refused", accused)
    assert judge(played.play().bundle()).ok


def test_a_stamp_of_entries_that_a_log_does_not_have_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    """Its own log key signed the checkpoint; a log that cannot be read has no stamps to judge."""
    played = federate(tmp_path, rounds=1).play()
    text = note.Checkpoint("hub/log", 999, bytes(32)).text
    signed = note.Note(text, (note.sign(text, name="hub/log", key=played.coordinator.keys.log),))
    files = {"stamps/hub/999.checkpoint": str(signed).encode(), "stamps/hub/999.tsr": b"token"}
    opened = bundle.add(played.bundle(), files)
    findings = judge(opened.path)
    assert [(f.code, f.where) for f in findings.faults] == [("stamp-differs", "stamps/hub/999.tsr")]
    bundle.add(opened.path, {name.replace("hub", "alpha"): data for name, data in files.items()})
    bundle.add(opened.path, {"sites/alpha/checkpoint": b"nothing"})
    assert found_in(judge(opened.path), "stamp-differs") == ["stamps/hub/999.tsr"]


def test_a_log_that_starts_twice_or_under_other_keys_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    twice = federate(tmp_path / "twice")
    site = twice.sites["alpha"].log
    site._write_entry("log-started", dict(next(site.entries()).event.fields))
    assert [fault.code for fault in judge(twice.play().bundle()).faults] == ["wrong-start"]

    other = federate(tmp_path / "other")
    beta, fresh = other.sites["beta"], keys.create(tmp_path / "fresh", "beta")
    beta.keys = keys.KeyRing("beta", beta.keys.log, beta.keys.event, fresh.witness)
    beta.witness = type(beta.witness)(tmp_path / "w.sqlite", beta.keys)
    assert [fault.code for fault in judge(other.play().bundle()).faults] == ["wrong-keys"]
