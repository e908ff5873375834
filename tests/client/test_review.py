"""The sample, its reading, and what of it may be known elsewhere."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from client import columns, folder, people, quasi, records, review, review_lists, scrubbing
from client.errors import ClientError
from client.records import Record
from client.scrubbing import Further, SiteScrubber
from privacy.errors import Quarantined
from privacy.surrogates import Surrogates
from tests.client.reader import SECRET, Reader

ROWS = [
    {"unit_id": f"p-{n % 4}", "patient_name": "Maria Quillfeather", "age": 30 + n,
     "sex": "F", "instruction": f"Mr. Salter called 5551234{n:03}; Quillfeather too <script>x",
     "response": "desk"}
    for n in range(9)
]  # fmt: skip


@pytest.fixture
def site(federation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    made = federation(["clinic-a"]).sites["clinic-a"]
    lines = [json.dumps(row) for row in ROWS]
    lines.append(json.dumps({"unit_id": "p-9", "instruction": "BAD", "response": "desk"}))
    made.data.write_text("\n".join(lines) + "\nnot json\n")
    tool = SiteScrubber(Reader(), surrogates=Surrogates(SECRET), strict=False)
    monkeypatch.setattr(people, "scrubber", lambda folder: tool)
    return made


def test_the_columns_of_a_record_are_looked_for_in_its_texts(site: Any) -> None:
    reading = people.read(site)
    tool = people.scrubber(site)
    notes = people.scrub(reading, tool, said=people.stated(site)).notes
    assert all("Quillfeather" not in note.instruction for note in notes)
    blind = people.scrub(records.Reading(tuple(
        Record(r.person, r.instruction, r.response, None, None, r.line) for r in reading.records
    ), (), 0), tool).notes  # fmt: skip
    assert all("Quillfeather" in note.instruction for note in blind)
    assert "Quillfeather" not in repr(reading.records[0])


def test_a_site_can_say_what_a_column_is() -> None:
    said = columns.stated({"names": ["kontakt"], "plain": ["patient_name"], "quasi": ["x"]})
    found = columns.known([("kontakt", "Ada Roe"), ("patient_name", "Bob"), ("x", "y")], said)
    assert found == {"name 0": "Ada Roe"}
    assert columns.known([("patient_name", "Bob"), ("note", "Carl")], {}) == {"name 0": "Bob"}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Patient Name", "PERSON"), ("firstName", "PERSON"), ("next_of_kin", "PERSON"),
        ("姓名", "PERSON"), ("家属姓名", "PERSON"), ("drug_name", "text"),
        ("hospital", "ORGANIZATION"),
        ("MRN", "RECORD_NUMBER"), ("account_no", "RECORD_NUMBER"), ("住院号", "RECORD_NUMBER"),
        ("SSN", "NATIONAL_ID"), ("身份证号", "NATIONAL_ID"), ("DOB", "DATE_TIME"),
        ("admissionDate", "DATE_TIME"), ("home_phone", "PHONE_NUMBER"), ("手机号", "PHONE_NUMBER"),
        ("e-mail", "EMAIL_ADDRESS"), ("zip_code", "ADDRESS"), ("家庭住址", "ADDRESS"),
        ("sex", "keep"), ("icd10_code", "keep"), ("notes", "text"), ("chief_complaint", "text"),
        ("dosage", "text"), ("patient_history", "text"), ("valid", "text"),
    ],
)  # fmt: skip
def test_a_columns_name_says_what_it_is_or_nothing(name: str, role: str) -> None:
    assert columns.role(name) == role


def test_the_sample_is_private_and_the_report_holds_no_record(site: Any) -> None:
    found = review.dry_run(site, sample=5, explain=True)
    where = review.place(site)
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    names = {path.name for path in where.iterdir()}
    assert names == {"sample.json", "index.html", "report.json", "report.html"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in where.iterdir())
    page = (where / "index.html").read_text()
    assert "Quillfeather" in page
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page
    assert "<script" not in page
    assert re.search(r'(src|href)="(?!#main)', page) is None
    for name in ("report.json", "report.html"):
        text = (where / name).read_text()
        for secret in ("Quillfeather", "Salter", "5551234", "desk"):
            assert secret not in text, (name, secret)
    assert found.document["scrub"]["quarantined"] == {"residual": 1}
    assert found.document["quarantine"][0]["lines"] == [10]
    assert found.document["sampled"] == 5
    assert len(json.loads((where / "sample.json").read_text())["items"]) == 5


def test_a_sample_is_another_one_each_time(site: Any) -> None:
    seen = set()
    for _ in range(6):
        review.dry_run(site, sample=3)
        kept = json.loads((review.place(site) / "sample.json").read_text())
        seen.add(tuple(sorted(item["line"] for item in kept["items"])))
    assert len(seen) > 1


def test_delete_overwrites_and_removes_what_holds_records(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    review.dry_run(site, sample=3)
    review.open_review(site).decide(0, "missed", deny=[("PERSON", "Salter")], allow=[])
    last: dict[str, bytes] = {}
    unlink = Path.unlink

    def look(path: Path, missing_ok: bool = False) -> None:
        last[path.name] = path.read_bytes()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", look)
    assert review.delete(site) == 3
    assert set(last.values()) == {b""}
    assert {path.name for path in review.place(site).iterdir()} == {"report.json", "report.html"}
    assert review.delete(site) == 0
    with pytest.raises(ClientError, match="no sample"):
        review.open_review(site)


def test_a_reading_goes_into_the_log_as_counts_only(site: Any) -> None:
    review.dry_run(site, sample=9)
    opened = review.open_review(site)
    with pytest.raises(ClientError, match="at least one"):
        opened.finish("ada")
    for number in range(6):
        opened.decide(number, "accepted", deny=[], allow=[])
    opened.decide(6, "missed", deny=[("PERSON", "Zebulon")], allow=["Salter"])
    with pytest.raises(ClientError, match="no verdict"):
        opened.decide(7, "perhaps", deny=[], allow=[])
    again = review.open_review(site)
    assert again.counts() == {"accepted": 6, "missed": 1, "damaged": 0, "open": 2, "sampled": 9}
    with pytest.raises(ClientError, match="initials"):
        again.finish("Ada Roe <x>")
    assert again.finish("ada.roe") == again.bound()
    (entry,) = site.log().entries("scrub-review")
    fields = entry.event.fields
    assert fields["reviewer"] == "ada.roe"
    assert (fields["sampled"], fields["accepted"], fields["missed"]) == (9, 6, 1)
    assert "Zebulon" not in json.dumps(fields)
    report = (review.place(site) / "report.html").read_text()
    assert "1 miss in 7 reviewed: at most 52.08 % of the records at 95 %." in report
    assert "Zebulon" not in report


def test_a_sites_lists_take_what_was_missed_and_leave_what_was_not_a_name(
    site: Any, tmp_path: Path
) -> None:
    review.dry_run(site, sample=2)
    opened = review.open_review(site)
    opened.decide(0, "missed", deny=[("PERSON", "Zebulon"), ("PERSON", "Ada")], allow=["Hodgkin"])
    path = tmp_path / "lists.yaml"
    assert review_lists.write(path, opened.decisions) == (2, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    made = yaml.safe_load(path.read_text())
    assert made["recognizers"] == [
        {"name": "Reviewed PERSON", "supported_language": "en", "supported_entity": "PERSON",
         "deny_list": ["Ada", "Zebulon"]}
    ]  # fmt: skip
    assert scrubbing.read_allowed(path)[0] == ("Hodgkin",)
    path.write_text("- x")
    with pytest.raises(ClientError, match="lists"):
        scrubbing.read_allowed(path)


def test_the_digest_of_a_scrubber_with_lists_says_nothing_to_who_lacks_the_sites_secret(
    federation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever has the log could try names until the digest fits."""
    monkeypatch.setattr("privacy.scrub.Scrubber.load", lambda **given: Reader())
    found = []
    for made in federation(["clinic-a", "clinic-b"]).sites.values():
        (made.path / "lists.yaml").write_text("recognizers: []\nallow_list: [Zebulon]\n")
        text = (made.path / "site.toml").read_text()
        (made.path / "site.toml").write_text(text + '\n[scrub]\nlists = "lists.yaml"\n')
        site = folder.open_folder(made.path)
        found.append(scrubbing.load(site).digest)
        assert scrubbing.load(site).digest == found[-1]
    assert found[0] != found[1]


def _one(tool: SiteScrubber, text: str, known: dict[str, str] | None = None) -> Any:
    (done,) = tool.scrub_many([text], ["p"], [known or {}])
    return done


def _tool(**more: Any) -> SiteScrubber:
    return SiteScrubber(Reader(), surrogates=Surrogates(SECRET), strict=False, **more)


def test_an_allowed_word_stays_unless_a_column_says_that_it_is_somebody() -> None:
    text = "Mr. Hodgkin and Mr. Salter, 5551234567"
    done = _one(_tool(allowed=["mr. hodgkin"]), text)
    assert "Mr. Hodgkin" in done.text
    assert "Salter" not in done.text
    assert "5551234567" not in done.text
    assert [text[s.start : s.end] for s in done.spans] == ["Mr. Salter", "5551234567"]
    named = _one(_tool(allowed=["Hodgkin"]), "seen Hodgkin", {"name 0": "Hodgkin"})
    assert "Hodgkin" not in named.text
    assert "5551234567" not in _one(_tool(allowed=["5551234567"]), text).text


def test_a_further_detector_adds_and_a_medical_one_spares() -> None:
    def find(text: str) -> list[tuple[int, int, str, float]]:
        at = text.index("Zebulon")
        return [(at, at + 7, "PER", 0.9), (0, 4, "PER", 0.1), (5, 3, "PER", 0.9)]

    finds = Further(find, {"PER": "PERSON"}, keeps=False, score=0.5)
    done = _one(_tool(further=[finds]), "seen Zebulon twice")
    assert "Zebulon" not in done.text
    assert done.text.startswith("seen ")
    unknown = Further(find, {}, keeps=False, score=0.5)
    assert "Zebulon" in _one(_tool(further=[unknown]), "seen Zebulon twice").text
    spares = Further(lambda text: [(0, 9, "DRUG", 0.9)], {}, keeps=True, score=0.5)
    assert "Mr. Zebul" in _one(_tool(further=[spares]), "Mr. Zebul too").text


def test_a_detector_that_fails_holds_the_text_back() -> None:
    def broken(text: str) -> list[tuple[int, int, str, float]]:
        raise RuntimeError(text)

    done = _one(_tool(further=[Further(broken, {}, keeps=True, score=0.5)]), "fine")
    assert isinstance(done, Quarantined)
    assert done.code == "detector-failed"
    assert "fine" not in str(done)


def test_combinations_that_single_out_are_counted_and_nobody_is_named() -> None:
    rows = [
        Record(f"p{n}", "x", "y", None, None, n,
               (("sex", "FM"[n % 2]), ("zip", f"0213{n // 6}"), ("note", f"n{n}")))
        for n in range(12)
    ]  # fmt: skip
    found = {one.columns: one for one in quasi.combinations(rows)}
    assert set(found) == {("sex", "zip")}
    assert (found["sex", "zip"].smallest, found["sex", "zip"].exposed) == (3, 12)
    assert ("note",) in {one.columns for one in quasi.combinations(rows, ["note"])}
    assert quasi.combinations([]) == ()
    twice = [*rows, *rows]
    assert quasi.combinations(twice) == quasi.combinations(rows)
