"""What an officer writes: sign-offs in a log of their own, copies for other systems, an index."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import privity
from audit import bundle as bundles
from audit import digests, formats, index, release_folder, stored
from audit.entries import Entry
from audit.errors import AuditError
from audit.events import Event
from audit.index import Query
from audit.moments import moment
from audit.signoff import Officer


@pytest.fixture
def say(
    capsys: pytest.CaptureFixture[str], account: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setattr(privity, "_recompute", account)
    monkeypatch.setenv("PRIVITY_DEBUG", "")

    def run(*words: object) -> tuple[int, str, str]:
        code = privity.main(["audit", *(str(word) for word in words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_a_sign_off_by_command_is_listed_and_found_to_fit(
    say: Any, sound: Any, tmp_path: Path
) -> None:
    bundle, desk = sound.root / "bundle", tmp_path / "desk"
    assert say("officer", desk, "--name", "office")[0] == 0
    assert say("officer", desk, "--name", "office")[0] == 2
    assert say("officer", tmp_path / "x", "--name", "../office")[0] == 2
    code, out, _ = say("sign-off", bundle, "--officer", desk, "--log", "alpha")
    assert code == 0
    assert "reviewed  alpha 0 to 8  problems 0  verifier ok  fits" in out

    code, out, _ = say("sign-off", bundle, "--officer", desk, "--log", "hub", "--last", 3,
                       "--objected")  # fmt: skip
    assert code == 0
    assert "objected  hub 0 to 3" in out
    assert "2 signed by office" in out


@pytest.mark.parametrize(
    "wrong",
    [
        ("--log", "nobody"),
        ("--log", "hub", "--last", "999"),
        ("--log", "hub", "--first", "9", "--last", "2"),
    ],
)
def test_a_wrong_range_is_not_signed(
    say: Any, sound: Any, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    desk = tmp_path / "desk"
    say("officer", desk, "--name", "office")
    code, _, err = say("sign-off", sound.root / "bundle", "--officer", desk, *wrong)

    assert code == 2
    assert err
    assert Officer.open(desk).listed() == ()


def test_a_log_that_was_exchanged_does_not_fit_its_sign_off(
    say: Any, sound: Any, federate: Any, tmp_path: Path
) -> None:
    desk = tmp_path / "desk"
    say("officer", desk, "--name", "office")
    say("sign-off", sound.root / "bundle", "--officer", desk, "--log", "hub")
    other = federate(tmp_path / "other").play().bundle()
    code, out, err = say("sign-off", other, "--officer", desk)

    assert code == 4
    assert "DOES NOT FIT" in out
    assert "not the one that was signed off" in err


def test_an_officers_log_is_a_log_that_notices_edits(tmp_path: Path, sound: Any) -> None:
    desk = Officer.create(tmp_path / "desk", "office")
    bundle = bundles.read(sound.root / "bundle")
    desk.sign(bundle, log="hub", first=0, last=1, decision="reviewed", holds=True, problems=0)

    again = Officer.open(tmp_path / "desk")
    assert again.fingerprint == desk.fingerprint
    (signed,) = again.listed(bundle)
    assert signed.fits
    assert signed.bundle_digest == bundle.digest
    assert again.listed()[0].fits is None


def test_a_party_that_signs_off_its_own_log_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    federation = federate(tmp_path / "f")
    bundle = bundles.read(federate(tmp_path / "o").play().bundle())
    fields = {
        "bundle_digest": bundle.digest, "log": "alpha", "first": 0, "last": 1, "size": 2,
        "root": "sha256:" + "0" * 64, "verdict": "ok", "decision": "reviewed", "problems": 0,
    }  # fmt: skip
    federation.append(federation.sites["alpha"], "review-signoff", fields)
    findings = judge(federation.play().bundle())

    assert [fault.code for fault in findings.faults] == ["own-review"]


def test_fhir_events_have_what_the_standard_requires(sound: Any, tmp_path: Path) -> None:
    bundle = bundles.read(sound.root / "bundle")
    count = formats.write(stored.merged(bundle), "fhir", tmp_path / "e.ndjson")
    lines = [json.loads(line) for line in (tmp_path / "e.ndjson").read_text().splitlines()]

    assert count == len(lines) > 30
    assert len({line["id"] for line in lines}) == count
    for line in lines:
        assert line["resourceType"] == "AuditEvent"
        assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", line["id"])
        assert set(line["type"]) == {"system", "code", "display"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["recorded"])
        assert line["agent"][0]["requestor"] is True
        assert line["source"]["observer"]["identifier"]["value"]
        assert line["action"] in "CRUDE"
        assert line["outcome"] in ("0", "4")


def test_ocsf_events_have_what_the_base_event_requires(sound: Any, tmp_path: Path) -> None:
    bundle = bundles.read(sound.root / "bundle")
    formats.write(stored.merged(bundle), "ocsf", tmp_path / "e.ndjson")
    lines = [json.loads(line) for line in (tmp_path / "e.ndjson").read_text().splitlines()]

    times = [line["time"] for line in lines]
    assert times == sorted(times)
    for line in lines:
        assert line["type_uid"] == line["class_uid"] * 100 + line["activity_id"]
        assert {"category_uid", "severity_id", "metadata", "message"} <= set(line)
        assert {"version", "product"} <= set(line["metadata"])


def test_an_entry_that_reports_a_problem_is_a_failure_in_every_form(
    federate: Any, tmp_path: Path
) -> None:
    bundle = bundles.read(federate(tmp_path / "f", absent={1: ("gamma",)}).play().bundle())
    record = next(r for r in stored.merged(bundle) if r.entry.problem)

    assert formats.fhir(record)["outcome"] == "4"
    assert formats.fhir(record)["outcomeDesc"] == "absent: gamma"
    assert formats.ocsf(record)["status_id"] == 2
    assert formats.ocsf(record)["severity_id"] == 3


def test_the_table_has_a_line_an_entry_and_no_formula(sound: Any, tmp_path: Path) -> None:
    bundle = bundles.read(sound.root / "bundle")
    records = list(stored.merged(bundle))
    evil = replace(records[0], entry=replace(records[0].entry, name="=cmd"))
    formats.write([*records, evil], "csv", tmp_path / "e.csv")
    with (tmp_path / "e.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))

    assert [row["entry"] for row in rows[:-1]] == [record.place for record in records]
    assert rows[0]["leaf"] == "sha256:" + records[0].leaf.hex()
    assert rows[-1]["entry"] == "'=cmd:0"


@pytest.mark.parametrize("form", ["fhir", "ocsf", "csv"])
def test_the_export_command_writes_every_entry_or_nothing(
    say: Any, copied: Path, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "out"
    code, said, _ = say("export", copied, "--format", form, "--out", out)
    assert code == 0
    assert re.fullmatch(rf"written: {out}, \d+ entries\n", said)
    out.unlink()

    (copied / "plan.json").write_text("{}")
    code, _, err = say("export", copied, "--format", form, "--out", out)
    assert code == 4
    assert "nothing was written" in err
    assert not out.exists()


def test_the_export_command_refuses_what_it_cannot_do(say: Any, sound: Any, tmp_path: Path) -> None:
    bundle = sound.root / "bundle"

    assert say("export", bundle, "--format", "xml", "--out", tmp_path / "x")[0] == 2
    assert say("export", bundle, "--format", "csv", "--out", tmp_path / "no" / "x")[0] == 2
    assert say("export", tmp_path, "--format", "csv", "--out", tmp_path / "x")[0] == 2


def test_show_keeps_only_the_entries_of_a_time(say: Any, sound: Any) -> None:
    bundle = sound.root / "bundle"
    everything = json.loads(say("show", bundle, "--json")[1])["entries"]
    times = sorted(datetime.fromisoformat(item["time"]) for item in everything)
    middle = times[len(times) // 2]
    cut = middle.strftime("%Y-%m-%dT%H:%M:%S.%f")

    later = json.loads(say("show", bundle, "--json", "--since", cut)[1])["entries"]
    assert len(later) == sum(time >= middle for time in times)
    none = json.loads(say("show", bundle, "--json", "--until", "2000-01-01")[1])["entries"]
    assert none == []
    assert say("show", bundle, "--since", "soon")[0] == 2


def test_a_range_of_days_includes_its_last_day() -> None:
    first, last = moment("2026-01-31", "x", end=False), moment("2026-01-31", "x", end=True)
    assert first == datetime(2026, 1, 31, tzinfo=UTC)
    assert last == datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert moment("2026-01-31T09:30+02:00", "x", end=False) == datetime(
        2026, 1, 31, 7, 30, tzinfo=UTC
    )
    assert moment("", "x", end=True) is None
    with pytest.raises(AuditError):
        moment("9999-12-31T23:59:30", "x", end=True)


def _made(count: int) -> list[Entry]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    fields = {"verdict": "cleared", "code": "none", "update_digest": "sha256:" + "0" * 64}
    return [
        Entry(
            f"site-{n % 3}",
            n // 3,
            Event("egress", f"site-{n % 3}", "o", n // 3, "p", start + timedelta(minutes=n), "r",
                  n // 30, {**fields, "verdict": "denied" if n % 50 == 7 else "cleared"}, ()),
        )
        for n in range(count)
    ]  # fmt: skip


def test_pages_of_a_list_follow_each_other_without_gap_or_overlap(tmp_path: Path) -> None:
    made = index.build(tmp_path / "i.sqlite", _made(1234), run="r")
    places, before = [], None
    while True:
        found = made.search(Query(institution="site-1", before=before), limit=50)
        places += [line.place for line in found.lines]
        if not found.more:
            break
        before = found.lines[-1].id

    assert places == [f"site-1:{n}" for n in reversed(range(411))]
    assert made.search(Query()).count == 1000
    assert made.search(Query(problems=True)).count == 25
    assert made.problems("site-1", 0, 2) == 1  # entry 7 of all
    assert made.number("entries") == 1234


def test_an_index_is_made_once_and_anew_for_a_changed_bundle(copied: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    index.opened(bundles.read(copied), cache)
    (first,) = cache.iterdir()
    stamp = first.stat().st_mtime_ns
    index.opened(bundles.read(copied), cache)
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [stamp]

    tile = next((copied / "coordinator/tile/entries").rglob("*.p/*"))
    tile.write_bytes(tile.read_bytes() + b" ")
    index.opened(bundles.read(copied), cache)
    assert len(list(cache.iterdir())) == 2
    with pytest.raises(AuditError) as fault:
        index.opened(bundles.read(copied), copied / "plan.json")
    assert fault.value.exit_code == 2


def test_each_part_of_a_release_is_bound_by_a_digest(federate: Any, tmp_path: Path) -> None:
    from audit import digests, signing

    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: x\n---\n# card\n")
    (folder / "weights.bin").write_bytes(b"w")
    weights = digests.file_digest(folder / "weights.bin").removeprefix("sha256:")
    part = {"name": "weights.bin", "hashes": [{"alg": "SHA-256", "content": weights}]}
    bom = {"bomFormat": "CycloneDX", "metadata": {"component": {"components": [part]}}}
    (folder / "bom.cdx.json").write_text(json.dumps(bom))
    public = signing.create_key(tmp_path / "release.pem")
    signing.sign_folder(folder, tmp_path / "release.pem")

    def event() -> Any:
        fields = {
            "adapter_digest": "sha256:" + "0" * 64,
            "card_digest": digests.file_digest(folder / "README.md"),
            "bom_digest": digests.file_digest(folder / "bom.cdx.json"),
            "folder_digest": digests.folder_digest(folder),
        }
        return Event("release", "hub", "o", 0, "p", datetime.now(UTC), "r", None, fields, ())

    def states(logged: Any, key: Path | None = public) -> dict[str, bool | None]:
        return {f.name: f.holds for f in release_folder.check(folder, logged, key=key)}

    logged = event()
    names = ("model.sig", "bom.cdx.json", "README.md", "weights.bin")
    assert states(logged) == dict.fromkeys(names, True)
    assert states(logged, None) == dict.fromkeys(names, True)
    assert set(states(None).values()) == {None}
    signing.create_key(tmp_path / "other.pem")
    assert states(logged, tmp_path / "other.pem.pub")["model.sig"] is False

    (folder / "README.md").write_text("---\nlicense: y\n---\n")
    assert [name for name in ("README.md", "model.sig") if states(logged)[name]] == []
    # Logged anew, the signature is still over the former card.
    assert states(event())["model.sig"] is False
    assert states(event())["README.md"] is True
    (folder / "weights.bin").write_bytes(b"v")
    assert states(event())["bom.cdx.json"] is False
    assert states(event())["weights.bin"] is False
    (folder / "model.sig").write_text("{}")
    assert states(event())["model.sig"] is False
    (folder / "README.md").write_text("no front matter")
    assert states(event())["README.md"] is False


def test_an_officers_keys_are_locked_like_every_partys(
    copied: Path, tmp_path: Path, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery staple")
    secret.chmod(0o600)
    monkeypatch.setenv("PRIVITY_PASSPHRASE_FILE", str(secret))
    desk = tmp_path / "desk"
    assert say("officer", desk, "--name", "office", "--lock")[0] == 0
    for path in (desk / "keys").glob("*.pem"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"ENCRYPTED" in path.read_bytes()
    signing = ("sign-off", copied, "--officer", desk, "--log", "alpha", "--last", "3")
    assert say(*signing)[0] == 0
    monkeypatch.delenv("PRIVITY_PASSPHRASE_FILE")
    code, _, err = say(*signing)
    assert (code, "are locked" in err) == (2, True)
    open_desk = tmp_path / "open"
    assert say("officer", open_desk, "--name", "office")[0] == 0
    monkeypatch.setenv("PRIVITY_PASSPHRASE_FILE", str(secret))
    assert "3 keys locked" in say("lock", open_desk)[1]
    assert say("rotate", open_desk)[0] == 0
    assert say("sign-off", copied, "--officer", open_desk, "--log", "alpha")[0] == 0
    code, _, err = say("officer", tmp_path / "x", "--name", "o", "--module", "/lib/x.so")
    assert (code, "--module and --token" in err) == (2, True)


def test_an_officers_log_says_what_was_verified_and_exported(
    copied: Path, tmp_path: Path, say: Any
) -> None:
    desk = tmp_path / "desk"
    say("officer", desk, "--name", "office")
    assert say("verify", copied, "--officer", desk)[0] == 0
    out = tmp_path / "entries.csv"
    exporting = ("export", copied, "--format", "csv", "--out", out, "--officer", desk)
    assert say(*exporting, "--for", "Dr Example")[0] == 0
    (copied / "plan.json").write_bytes(b"{}")
    assert say("verify", copied, "--officer", desk)[0] == 4
    opened = Officer.open(desk)
    ran = [entry.event.fields for entry in opened._log.entries("verifier-run")]
    assert [fields["verdict"] for fields in ran] == ["ok", "faults"]
    assert ran[1]["faults"] == ["changed-file"]
    (exported,) = (entry.event.fields for entry in opened._log.entries("export"))
    assert exported["digest"] == digests.file_digest(out)
    assert exported["entries"] == len(out.read_text().splitlines()) - 1
    assert "Example" not in str(exported)
    assert say("verify", copied, "--officer", tmp_path / "none")[0] == 2
