"""Personal values are erased for good, the log says so, and every proof still holds."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from audit import bundle, canonical, disclosures, erasure
from audit.cli import app
from audit.errors import AuditError

PERSON = "dr-maria-example"
FIELDS = {"adapter_digest": canonical.digest(b"a"), "route": "chat", "outcome": "answered"}


@pytest.fixture
def played(federate: Any, tmp_path: Path) -> Any:
    """A finished run; alpha served three requests, two of them by one person."""
    made = federate(tmp_path, rounds=1).play()
    alpha = made.sites["alpha"]
    table = disclosures.Table(alpha.log.folder)
    for caller in (PERSON, "somebody-else", PERSON):
        alpha.log.append("serving-access", {**FIELDS, **table.commit({"caller": caller})})
    alpha.witnessed_by(made.coordinator)
    return made


def folder(played: Any) -> Path:
    return Path(played.sites["alpha"].folder)


def bytes_of(place: Path) -> bytes:
    return b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())


def sealed(played: Any, name: str, shown: dict[str, list[str]] | None = None) -> Path:
    bundle.write(
        played.root / name,
        run="run-1",
        coordinator=bundle.Source(played.coordinator.log.folder, played.coordinator.public),
        sites={n: bundle.Source(s.log.folder, s.public) for n, s in played.sites.items()},
        plan=canonical.encode(played.plan),
        release=played.release,
        disclosures=shown,
    )
    return Path(played.root / name)


def shown(played: Any) -> list[str]:
    log = played.sites["alpha"].log
    digests = [e.event.fields["caller_commitment"] for e in log.entries("serving-access")]
    table = disclosures.Table(log.folder)
    return [each.text for each in table.get(digests).values()]


def test_the_log_never_holds_the_value_and_salts_each_one(played: Any) -> None:
    log = played.sites["alpha"].log
    log.checkpoint()
    journal = b"".join((log.folder / n).read_bytes() for n in ("journal.sqlite", "checkpoint"))
    assert PERSON.encode() not in journal + bytes_of(log.folder / "tile")
    digests = {e.event.fields["caller_commitment"] for e in log.entries("serving-access")}
    assert len(digests) == 3
    assert (log.folder / disclosures.FILE).stat().st_mode & 0o777 == 0o600


def test_after_erasing_no_byte_is_left_and_the_bundle_is_redacted_not_broken(
    played: Any, judge: Any
) -> None:
    assert PERSON.encode() in bytes_of(folder(played) / "log")
    done = erasure.erase(folder(played), matching=PERSON, reason="data-subject-request")
    assert [name for _, name in done.fields] == ["caller_commitment"] * 2
    assert PERSON.encode() not in bytes_of(folder(played))
    assert b"somebody-else" in bytes_of(folder(played))
    alpha = played.sites["alpha"]
    last = list(alpha.log.entries())[-1].event
    assert last.kind == "disclosure-erased"
    assert [item["entry"] for item in last.fields["erased"]] == [index for index, _ in done.fields]
    found = judge(sealed(played, "after"))
    assert found.ok, found.faults
    assert any("2 values of alpha are redacted" in notice for notice in found.notices)


def test_what_is_disclosed_is_checked_against_the_log(played: Any, judge: Any) -> None:
    told = shown(played)
    found = judge(sealed(played, "shown", {"alpha": told}))
    assert found.ok, found.faults
    assert any("3 values of alpha are disclosed" in notice for notice in found.notices)
    other = disclosures.make("caller", PERSON).text
    for name, lines, code in (
        ("foreign", [*told, other], "disclosure-unmatched"),
        ("broken", [*told[:2], told[2][:-2]], "bad-disclosure"),
    ):
        faults = judge(sealed(played, name, {"alpha": lines})).faults
        assert code in {fault.code for fault in faults}
        assert all(PERSON not in fault.sentence for fault in faults)
    nobody = judge(sealed(played, "nobody", {"nobody": told}))
    assert "unexpected-file" in {fault.code for fault in nobody.faults}


def test_a_value_that_was_erased_and_is_shown_all_the_same_is_found(
    played: Any, judge: Any
) -> None:
    told = shown(played)
    erasure.erase(folder(played), matching=PERSON, reason="data-subject-request")
    found = judge(sealed(played, "shown", {"alpha": told}))
    assert {fault.code for fault in found.faults} == {"erased-and-shown"}


def test_a_disclosure_under_another_name_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    made = federate(tmp_path, rounds=1).play()
    odd = disclosures.make("patient", PERSON)
    alpha = made.sites["alpha"]
    alpha.log.append("serving-access", {**FIELDS, "caller_commitment": odd.digest})
    alpha.log.checkpoint()
    found = judge(sealed(made, "odd", {"alpha": [odd.text]}))
    assert {fault.code for fault in found.faults} == {"disclosure-differs"}


@pytest.mark.parametrize(("entry", "field"), [(999, "caller-commitment"), (0, "caller-commitment"),
                                              (0, "origin")])  # fmt: skip
def test_an_erasure_of_what_never_was_is_found(
    played: Any, judge: Any, entry: int, field: str
) -> None:
    erased = {"erased": [{"entry": entry, "field": field}], "reason": "x"}
    alpha = played.sites["alpha"]
    alpha.log.append("disclosure-erased", erased)
    alpha.log.checkpoint()
    assert {fault.code for fault in judge(sealed(played, "bad")).faults} == {"bad-erasure"}


def test_the_command_erases_by_entry_and_by_value(played: Any) -> None:
    place = str(folder(played))
    run = CliRunner()
    first = next(e.index for e in played.sites["alpha"].log.entries("serving-access"))
    done = run.invoke(app, ["erase", place, "--entry", str(first)])
    assert f"erased caller_commitment of entry {first}" in done.stdout
    again = run.invoke(app, ["erase", place, "--entry", str(first)])
    assert isinstance(again.exception, AuditError)
    assert again.exception.code == "nothing-to-erase"
    file = folder(played) / "value.txt"
    file.write_text(f"{PERSON}\n")
    assert run.invoke(app, ["erase", place, "--matching", str(file)]).stdout.count("erased") == 1
    assert "--entry or --matching" in str(run.invoke(app, ["erase", place]).exception)
    missing = run.invoke(app, ["erase", place, "--matching", str(file) + "x"])
    assert "cannot be read" in str(missing.exception)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=40), st.text(max_size=200))
def test_a_disclosure_reads_back_and_hides_itself(name: str, value: str) -> None:
    made = disclosures.make(name, value)
    assert disclosures.parse(made.text) == made
    assert disclosures.make(name, value).digest != made.digest
    assert repr(made) == f"Disclosure({name!r})"


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60) | st.binary(max_size=60).map(disclosures._encode))
def test_no_text_makes_the_reader_of_disclosures_stumble(text: str) -> None:
    with contextlib.suppress(AuditError):
        assert disclosures.parse(text).text == text
