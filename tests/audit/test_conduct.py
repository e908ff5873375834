"""Incidents, settings, terms, accusations: how they are logged, and what the verifier says."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from audit import canonical, disclosures, events, incidents, retention, settings
from audit.cli import app
from audit.errors import AuditError
from audit.retention import Due, Terms
from audit.verify import verify
from tests.audit.conftest import recompute
from tests.audit.told import faults, notices

SECRET = "zqsecretvalue"  # longer than chance puts into a key
SOME, OTHER = canonical.digest(b"some"), canonical.digest(b"other")
Make = Callable[..., Any]


@pytest.fixture
def party(federate: Make, tmp_path: Path) -> Any:
    return federate(tmp_path, names=("alpha",)).sites["alpha"]


@pytest.fixture
def played(federate: Make, tmp_path: Path) -> Any:
    return federate(tmp_path / "run", rounds=1).play()


# -- incidents ------------------------------------------------------------------------------------


def test_an_incident_is_opened_and_closed_once(party: Any) -> None:
    words = "Dr Example lost a laptop"
    made = incidents.record(
        party.log, "loss-or-theft", "high", reference="INC-2041", description=words
    )
    (found,) = incidents.listed(party.log)
    assert (found.entry, found.reference, found.closed) == (made.index, "INC-2041", None)
    ended = incidents.close(party.log, made.index)
    (found,) = incidents.listed(party.log)
    assert found.closed == ended.index
    with pytest.raises(AuditError, match="open ones: none"):
        incidents.close(party.log, made.index)
    assert words not in str([entry.statement for entry in party.log.entries()])
    (event,) = (e.event for e in party.log.entries("incident") if e.index == made.index)
    digest = event.fields["description_commitment"]
    assert disclosures.Table(party.log.folder).get([digest])[digest].value == words


@pytest.mark.parametrize(
    ("code", "severity", "reference"),
    [
        ("a patient", "low", ""),
        ("malware", "dreadful", ""),
        ("malware", "low", "Dr Example"),
        ("malware", "low", "INC-"),
        ("malware", "low", "inc-1"),
    ],
)
def test_an_incident_has_no_room_for_words(
    party: Any, code: str, severity: str, reference: str
) -> None:
    with pytest.raises(AuditError) as refused:
        incidents.record(party.log, code, severity, reference=reference)
    assert refused.value.exit_code == 2
    assert incidents.listed(party.log) == ()
    assert not (party.log.folder / disclosures.FILE).exists()


def test_what_the_software_finds_is_one_incident_while_it_is_open(party: Any) -> None:
    first = incidents.raised(party.log, "ledger-fault", "high")
    assert first is not None
    assert incidents.raised(party.log, "ledger-fault", "high") is None
    incidents.close(party.log, first.index)
    assert incidents.raised(party.log, "ledger-fault", "high") is not None


def test_the_verifier_names_open_incidents_and_refuses_a_closing_of_none(played: Any) -> None:
    alpha = played.sites["alpha"].log
    one = incidents.record(alpha, "outage", "low")
    two = incidents.record(alpha, "malware", "high")
    incidents.close(alpha, one.index)
    assert faults(played) == []
    said = notices(played)
    assert f"log of alpha is open: entry {two.index}, malware, high" in said
    assert f"entry {one.index}" not in said
    closing = {"severity": "low", "state": "closed", "description_commitment": SOME}
    for wrong in (
        {"code": "outage"},
        {"code": "outage", "opened": one.index},
        {"code": "outage", "opened": two.index},
    ):
        alpha.append("incident", {**closing, **wrong})
    assert faults(played, "wrong") == [("meaning", "incident-unopened")] * 3


def test_an_incident_does_not_open_another(played: Any) -> None:
    opening = {"code": "outage", "severity": "low", "state": "opened", "opened": 0}
    played.coordinator.log.append("incident", {**opening, "description_commitment": SOME})
    assert faults(played) == [("meaning", "incident-unopened")]


def test_a_person_records_an_incident_from_the_command_line(party: Any, tmp_path: Path) -> None:
    say = CliRunner().invoke
    words = tmp_path / "words.txt"
    words.write_text("what happened\n")
    opening = ["incident", str(party.folder), "--category", "outage", "--text", str(words)]
    assert "incident 1 is open" in say(app, [*opening, "--reference", "OPS-1"]).stdout
    listed = say(app, ["incident", str(party.folder)]).stdout
    assert "outage  OPS-1  open" in listed
    assert "1 incidents, 1 open" in listed
    closed = say(app, ["incident", str(party.folder), "--close", "1", "--json"])
    assert [item["closed"] for item in json.loads(closed.stdout)] == [2]
    words.write_text("")
    for bad in (
        ["--category", "outage", "--close", "1"],
        ["--reference", "OPS-1"],
        ["--category", "outage", "--text", str(words)],
        ["--category", "outage", "--text", str(tmp_path)],
    ):
        refused = say(app, ["incident", str(party.folder), *bad])
        assert getattr(refused.exception, "exit_code", None) == 2, bad


def test_a_report_and_the_page_tell_incidents_that_are_open_from_those_that_are_over(
    played: Any, tmp_path: Path
) -> None:
    from audit import bundle as bundles
    from audit import index, material, report
    from audit.index import Query

    alpha = played.sites["alpha"].log
    over = incidents.record(alpha, "outage", "low", reference="OPS-7")
    open_ = incidents.record(alpha, "malware", "high")
    ended = incidents.close(alpha, over.index)
    access = {"adapter_digest": SOME, "route": "chat", "outcome": "answered"}
    for _ in range(3):
        alpha.append("serving-access", {**access, "caller_commitment": OTHER, "requests": "1-9"})
    step = {"subject": "site", "by_commitment": SOME}
    step |= {"before_commitment": SOME, "after_commitment": OTHER}
    alpha.append("config-changed", {**step, "keys": ["budget.epsilon"]})
    for site in played.sites.values():
        site.witnessed_by(played.coordinator)
    bundle = played.bundle()
    gathered = material.gather(bundle, recompute=recompute)
    written = {section.heading: section.parts for section in report.compose(gathered).sections}
    said = [part for part in written["Incidents"] if hasattr(part, "text")]
    assert [[r.place for r in part.references] for part in said] == [
        [f"alpha:{over.index}", f"alpha:{ended.index}"], [f"alpha:{open_.index}"],
    ]  # fmt: skip
    assert "OPS-7" in said[0].text
    assert "closed on" in said[0].text
    assert "not closed since" in said[1].text
    (table,) = written["Serving"]
    (row,) = table.rows
    assert row.cells[:6] == ("alpha", SOME[:23], "chat", "answered", "1-9", "3")
    (changed,) = written["Settings, keys and retention"]
    assert "in budget.epsilon (salted digests: from" in changed.text
    built = index.opened(bundles.read(bundle), tmp_path / "cache")
    found = built.search(Query(problems=True)).lines
    assert [line.place for line in found] == [f"alpha:{open_.index}"]
    assert built.number("problems") == 1


# -- settings -------------------------------------------------------------------------------------


def change(party: Any, memory: Path, **values: Any) -> Any:
    content = json.dumps(values).encode()
    return settings.note(party.log, subject="site", memory=memory, content=content, values=values)


def test_a_change_of_settings_names_them_and_no_value(party: Any, tmp_path: Path) -> None:
    memory = tmp_path / "state" / "seen.json"
    settings.remember(memory, b"{}", {})
    assert settings.is_known(memory, b"{}")
    made = change(party, memory, name=SECRET, policy={"approve": SECRET, "steps": [1]})
    assert made is not None
    assert change(party, memory, name=SECRET, policy={"approve": SECRET, "steps": [1]}) is None
    change(party, memory, name=SECRET, policy={"approve": SECRET, "steps": [1, 2]}, extra=1)
    first, second = (e.event.fields for e in party.log.entries("config-changed"))
    shown = disclosures.Table(party.log.folder).get([first["before_commitment"]])
    assert [each.value for each in shown.values()] == [settings.digest(b"{}")]
    assert first["keys"] == ["name", "policy.approve", "policy.steps"]
    assert second["keys"] == ["extra", "policy.steps"]
    assert second["before_commitment"] == first["after_commitment"]
    logged = str([entry.statement for entry in party.log.entries()])
    assert settings.digest(b"{}") not in logged  # else a guess at the file could be tried on it
    assert SECRET not in logged


@pytest.mark.parametrize("left", [None, b"{", b'{"format": 1}'])
def test_a_lost_memory_breaks_no_chain(party: Any, tmp_path: Path, left: bytes | None) -> None:
    memory = tmp_path / "seen.json"
    change(party, memory, a=1)
    for values in ({"a": 1}, {"a": 2}):
        memory.unlink()
        if left is not None:
            memory.write_bytes(left)
        change(party, memory, **values)
    found = [e.event.fields for e in party.log.entries("config-changed")]
    assert len(found) == 2
    assert found[1]["before_commitment"] == found[0]["after_commitment"]


def test_a_process_speaks_only_for_the_settings_that_it_was_started_with(
    party: Any, tmp_path: Path
) -> None:
    place, memory = tmp_path / "site.toml", tmp_path / "seen.json"
    settings.remember(memory, b"a = 1", {"a": 1})
    place.write_bytes(b"a = 2")
    settings.notice(party.log, place, memory, b"")
    settings.notice(party.log, place, memory, b"a = 1")
    assert party.log.size == 1
    settings.notice(party.log, place, memory, b"a = 2")
    settings.notice(party.log, place, memory, b"a = 1")  # a service that still runs with the old
    (found,) = (e.event.fields for e in party.log.entries("config-changed"))
    assert (found["subject"], found["keys"]) == ("site", ["a"])


def test_a_change_of_settings_that_was_left_out_is_found(played: Any) -> None:
    alpha = played.sites["alpha"].log
    third = canonical.digest(b"third")

    def step(subject: str, before: str, after: str) -> None:
        ends = {"before_commitment": before, "after_commitment": after}
        alpha.append("config-changed", {"subject": subject, **ends, "by_commitment": SOME})

    step("site", SOME, OTHER)
    step("serving", SOME, OTHER)
    step("site", OTHER, third)
    assert faults(played) == []
    step("site", OTHER, third)
    assert faults(played, "gap") == [("completeness", "settings-gap")]


# -- terms ----------------------------------------------------------------------------------------


def later(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def serve_somebody(played: Any) -> None:
    alpha = played.sites["alpha"]
    table = disclosures.Table(alpha.log.folder)
    fields = {"adapter_digest": SOME, "route": "chat", "outcome": "answered"}
    alpha.log.append("serving-access", {**fields, **table.commit({"caller": "ward-3"})})
    incidents.record(alpha.log, "outage", "low", description="words")


def test_a_term_ends_for_its_class_alone_and_leaves_every_proof(
    played: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_somebody(played)
    alpha, terms = played.sites["alpha"], Terms(access=200, evidence=400)
    assert retention.prune(alpha.folder, terms) == ()
    (dry,) = retention.prune(alpha.folder, terms, now=later(201), dry_run=True)
    assert (dry.retention, dry.disclosures, dry.entry) == ("access", 1, None)
    (done,) = retention.prune(alpha.folder, terms, now=later(201))
    assert done.entry is not None
    assert retention.prune(alpha.folder, terms, now=later(201)) == ()
    left = (alpha.log.folder / disclosures.FILE).read_bytes()
    assert b"ward-3" not in left
    assert b"words" in left
    # The entry is of today, and ends a term in the future: that is what the verifier then says.
    assert faults(played) == [("meaning", "retention-early")]


def test_the_verifier_follows_a_term_that_ended(played: Any) -> None:
    serve_somebody(played)
    alpha = played.sites["alpha"]
    shown = [
        item.text
        for item in disclosures.Table(alpha.log.folder)
        .get(e.event.fields["caller_commitment"] for e in alpha.log.entries("serving-access"))
        .values()
    ]
    before = events.timestamp(datetime.now(UTC) - timedelta(days=184))
    pruned = {"before": before, "disclosures": 7}
    alpha.log.append("retention-pruned", {"retention": "access", **pruned})
    assert faults(played) == []
    assert f"older than {before[:10]}" in notices(played)
    assert "7 values redacted" in notices_of(played, shown)


def notices_of(played: Any, shown: list[str]) -> str:
    """As `notices`, with values that belong to entries younger than the term."""
    from audit import bundle

    site = bundle.Source
    bundle.write(
        played.root / "shown",
        run="run-1",
        coordinator=site(played.coordinator.log.folder, played.coordinator.public),
        sites={n: site(s.log.folder, s.public) for n, s in played.sites.items()},
        plan=canonical.encode(played.plan),
        release=played.release,
        disclosures={"alpha": shown},
    )
    found = verify(played.root / "shown", recompute=recompute)
    assert found.ok
    return "\n".join(found.notices)


def test_a_value_that_is_shown_after_its_term_is_a_fault(played: Any) -> None:
    from audit import verify_disclosures
    from audit.evidence import Collector

    alpha = played.sites["alpha"]
    made = disclosures.make("caller", "ward-3")
    fields = {"adapter_digest": SOME, "route": "chat", "outcome": "answered"}
    alpha.log.append("serving-access", {**fields, "caller_commitment": made.digest})
    ended = {"before": events.timestamp(later(1)), "disclosures": 1}
    for name, wrong in (("evidence", []), ("access", ["erased-and-shown"])):
        alpha.log.append("retention-pruned", {"retention": name, **ended})
        listed = [entry.event for entry in alpha.log.entries()]

        def of(*kinds: str, listed: Any = listed) -> Any:
            return ((i, e) for i, e in enumerate(listed) if e.kind in kinds)

        view = SimpleNamespace(
            events=SimpleNamespace(of=of), of=of, chained=0, keys=alpha.public, place=str
        )
        found = Collector()
        verify_disclosures.check(view, [made.text], "shown", found)  # type: ignore[arg-type]
        assert [fault.code for fault in found.faults] == wrong


@pytest.mark.parametrize("days", [1, 182])
def test_a_term_is_at_least_six_months(days: int) -> None:
    for name in ("access", "evidence"):
        with pytest.raises(AuditError, match="the least is 183"):
            Terms(**{name: days})
    assert Terms(access=183, evidence=None).access == 183


def test_what_a_party_removes_of_its_own_is_counted_and_committed_to(played: Any) -> None:
    alpha = played.sites["alpha"]
    due = (Due("review/index.html", 1, SOME), Due("serving/feedback.sqlite", 40))
    index = retention.note_removed(alpha.folder, due, before=datetime.now(UTC))
    fields = next(e.event.fields for e in alpha.log.entries("retention-pruned"))
    assert (fields["files"], fields["rows"], fields["disclosures"]) == (1, 40, 0)
    digest = fields["listed_commitment"]
    listed = disclosures.Table(alpha.log.folder).get([digest])[digest].value
    assert listed == f"review/index.html\t1\t{SOME}\nserving/feedback.sqlite\t40\t\n"
    assert alpha.log.size == index + 1
    assert faults(played) == []
    assert "1 files, 40 rows" in notices(played)


def test_a_person_prunes_from_the_command_line(played: Any) -> None:
    serve_somebody(played)
    alpha, removed = played.sites["alpha"], []
    own = SimpleNamespace(
        due=(Due("a", 2, SOME),), before=datetime.now(UTC), remove=lambda: removed.append(1)
    )
    given = {"retention": lambda folder: (Terms(), (own,))}
    say = CliRunner().invoke
    dry = say(app, ["retain", str(alpha.folder), "--dry-run"], obj=given)
    assert "0 values, 2 files, 0 rows would be erased" in dry.stdout
    assert removed == []
    done = say(app, ["retain", str(alpha.folder), "--json"], obj=given)
    assert [item["files"] for item in json.loads(done.stdout)] == [2]
    assert removed == [1]
    nothing = {"retention": lambda folder: (Terms(), ())}
    assert say(app, ["retain", str(alpha.folder)], obj=nothing).stdout == "nothing is due\n"
