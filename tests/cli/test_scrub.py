"""The commands of de-identification, as a data protection officer types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.said import SECRET, edited, one_sentence


@pytest.fixture
def records(site: Path) -> Path:
    rows = [
        {"unit_id": f"p{n}", "instruction": f"Mr. John {SECRET} called 212 555 01{n:02}.",
         "response": "triage"}
        for n in range(6)
    ]  # fmt: skip
    rows.append({"unit_id": "p9", "instruction": "Пациент Иван Петров поступил вчера с болью",
                 "response": "triage"})  # fmt: skip
    (site / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return site


def test_a_dry_run_says_what_it_did_and_never_what_it_read(say: Any, records: Path) -> None:
    code, out, err = say("client", "scrub", records, "--sample", 4, "--explain")
    assert code == 0, err
    assert "removed: PERSON" in out
    assert "unsupported-script" in out
    assert "lines 7" in out
    assert SECRET not in out + err
    code, out, err = say("client", "scrub", records, "--json")
    assert code == 0
    assert json.loads(out)["scrub"]["kept"] == 6
    assert SECRET not in out + err
    assert SECRET in (records / "review" / "index.html").read_text()
    code, out, _ = say("client", "scrub", records, "--delete")
    assert code == 0
    assert out.startswith("2 files")
    assert not (records / "review" / "index.html").exists()
    code, out, err = say("client", "review", records)
    assert code == 2
    assert one_sentence(err)


def test_a_sample_can_go_into_a_file_of_lines(say: Any, records: Path, tmp_path: Path) -> None:
    target = tmp_path / "sample.jsonl"
    code, out, err = say("client", "scrub", records, "--sample", 3, "--out", target)
    assert code == 0, err
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(rows) == 3
    assert target.stat().st_mode & 0o777 == 0o600
    assert not (records / "review").exists()
    assert SECRET not in out + err


def test_a_file_that_is_held_back_whole_says_why_and_ends_with_3(say: Any, records: Path) -> None:
    lines = (records / "records.jsonl").read_text().splitlines()
    (records / "records.jsonl").write_text(lines[-1] + "\n")
    code, out, err = say("client", "scrub", records)
    assert code == 3
    assert "unsupported-script" in out
    assert "Петров" not in out + err


def test_an_export_of_decisions_is_switched_on_by_its_name(
    say: Any, records: Path, tmp_path: Path
) -> None:
    from client import folder, review

    assert say("client", "scrub", records, "--sample", 2)[0] == 0
    opened = review.open_review(folder.open_folder(records))
    opened.decide(0, "missed", deny=[("PERSON", SECRET)], allow=[])
    target = records / "scrub-lists.yaml"
    code, out, err = say("client", "review", records, "--export", target)
    assert code == 0, err
    assert "1 words to take and 0 to leave" in out
    assert SECRET not in out + err
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('language = "auto"', 'language = "auto"\n[scrub]\nlists = "none.yaml"', "none.yaml"),
        (
            'language = "auto"',
            'language = "auto"\n[[scrub.models]]\npath = "none"\nuse = "medical"\n'
            f'digest = "sha256:{"0" * 64}"',
            "none is no folder",
        ),
        ('language = "auto"', 'language = "auto"\n[scrub.columns]\nwho = ["x"]', "who"),
    ],
)
def test_a_wrong_setting_of_the_scrub_is_one_sentence(
    say: Any, records: Path, old: str, new: str, said: str
) -> None:
    text = (records / "site.toml").read_text()
    assert text.count(old) == 1
    # The profile stands after the language: it moves before the new table.
    edited(records / "site.toml", 'profile = "clinical"', '# profile = "clinical"')
    edited(records / "site.toml", old, new)
    code, out, err = say("client", "scrub", records)
    assert code == 2
    assert one_sentence(err)
    assert said in err
    assert out == ""


def test_deid_keeps_the_form_of_a_file_and_ends_with_3_if_something_is_held(
    say: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"mrn,patient_name,note\n7712345,Maria {SECRET},fine\nbroken\n")
    code, out, err = say("client", "deid", path)
    assert code == 3
    assert out.splitlines()[0] == "mrn,patient_name,note"
    assert len(out.splitlines()) == 2
    assert SECRET not in out + err
    assert "held back: number 2: bad-row" in err
    path.write_text(f"mrn,patient_name,note\n7712345,Maria {SECRET},fine\n")
    code, out, err = say("client", "deid", path, "--format", "csv", "--profile", "strict")
    assert code == 0, err
    assert "7712345" not in out
    code, _, err = say("client", "deid", path, "--format", "docx")
    assert code == 2
    assert one_sentence(err)
