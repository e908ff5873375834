"""No message repeats a record, whatever is wrong with its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.said import SECRET, edited, one_sentence

RECORDS = {
    "missing": None,
    "empty": b"",
    "not UTF-8": b'{"instruction": "\xff\xfe ' + SECRET.encode() + b'", "response": "x"}\n',
    "truncated": b'{"instruction": "' + SECRET.encode(),
    "no response": b'{"instruction": "' + SECRET.encode() + b'"}\n',
    "wrong columns": b'{"question": "' + SECRET.encode() + b'", "reply": "x"}\n',
    "no object": b'"' + SECRET.encode() + b'"\n[1]\nnull\n',
    "ten thousand characters": b'{"instruction": "' + (SECRET + " ").encode() * 800 + b"\n",
}


@pytest.mark.parametrize("case", RECORDS)
def test_no_message_repeats_a_record_of_a_bad_file(say: Any, site: Path, case: str) -> None:
    content = RECORDS[case]
    if content is not None:
        (site / "records.jsonl").write_bytes(content)
    code, out, err = say("client", "scrub", site)
    assert code == 2
    assert out == ""
    assert one_sentence(err)
    assert "records.jsonl" in err
    assert SECRET not in out + err
    assert not (site / "review").exists()


def test_a_table_without_a_header_does_not_show_its_first_record(say: Any, site: Path) -> None:
    edited(site / "site.toml", '"records.jsonl"', '"records.csv"')
    (site / "records.csv").write_text(f"{SECRET},chestpain\nOther,cough\n")
    code, out, err = say("client", "scrub", site)
    assert code == 2
    assert one_sentence(err)
    assert SECRET not in out + err
    assert "chestpain" not in out + err


def test_the_good_lines_go_on_beside_the_bad_ones(say: Any, site: Path) -> None:
    lines = [
        {"instruction": f"Mr. John {SECRET} called.", "response": "triage", "unit_id": "p1"},
        {"instruction": f"{SECRET} " * 800, "response": "triage", "unit_id": "p2"},
        {"instruction": SECRET},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (site / "records.jsonl").write_text(text + f'\n{{"instruction": "{SECRET}')
    code, out, err = say("client", "scrub", site)
    assert code == 0
    assert "no-response" in out
    assert "truncated" in out
    assert SECRET not in out + err
    assert (site / "review").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (site / "review").iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (SECRET.encode() + b"\n", "not-json"),
        (b'{"txt": "' + SECRET.encode() + b'"}\n', "no-text"),
        (b'{"text": "\xff' + SECRET.encode() + b'"}\n', "not-utf-8"),
        (b'{"text": "' + SECRET.encode() + b"\n", "not-json"),
        (b"[" + b'"x",' * 2500 + b'"' + SECRET.encode() + b'"]\n', "no-text"),
    ],
)
def test_deid_holds_a_bad_line_back_and_goes_on(
    say: Any, tmp_path: Path, content: bytes, reason: str
) -> None:
    fine = b'{"text": "call 212 555 7143", "person": 7}\n'
    (tmp_path / "notes.jsonl").write_bytes(content + fine)
    code, out, err = say("client", "deid", tmp_path / "notes.jsonl")
    assert code == 0, err
    bad, good = map(json.loads, out.splitlines())
    assert bad == {"text": None, "spans": [], "quarantined": reason}
    assert not good["quarantined"]
    assert good["spans"]
    assert "7143" not in good["text"]
    assert SECRET not in out + err
