"""`privity client deid`: a file comes out in the form that it had, or says what is held back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from client import deid, form_csv
from client.deid import Format, Held
from client.errors import ClientError
from tests.client.reader import Reader

PID = "PID|1||1234567^^^MRN||Lopez^Maria||19700503|F\rNTE|1||Maria Lopez fine\r"
HL7 = "MSH|^~\\&|A|B|C|D|20240305||ADT^A01|M1|P|2.5\r" + PID


@pytest.fixture(autouse=True)
def tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.scrub.Scrubber.load", lambda **given: Reader(given["secret"]))


def run(path: Path, form: Format = "auto") -> tuple[str, list[Held]]:
    held: list[Held] = []
    lines = deid.stream(str(path), profile="clinical", language="auto", form=form, held=held.append)
    return "\n".join(lines), held


def file(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_table_stays_a_table_and_a_bad_row_is_named(tmp_path: Path) -> None:
    rows = 'mrn,name,note\nA-1,"Lopez, Maria",Lopez well\nbroken\nA-2,Roe,"BAD, note"\nA-3,Poe,ok\n'
    out, held = run(file(tmp_path, "a.csv", rows))
    cells = list(csv.reader(io.StringIO(out)))
    assert cells[0] == ["mrn", "name", "note"]
    assert len(cells) == 3
    assert cells[1][2].split()[0] == cells[1][1].split(",")[0]
    assert [(one.number, one.code) for one in held] == [(2, "bad-row"), (3, "residual")]
    assert "Lopez" not in out


def test_a_table_whose_quotation_never_ends_is_refused(tmp_path: Path) -> None:
    """Else three persons' rows are lost and one bad row is named."""
    rows = 'mrn,name,note\nA-1,Roe,ok\nA-2,"Poe said,ok\nA-3,Roe,ok\nA-4,"Moe",ok\n'
    with pytest.raises(ClientError, match="line 3 has a quotation mark") as caught:
        run(file(tmp_path, "a.csv", rows))
    assert caught.value.code == "bad-quotes"


def test_line_ends_of_old_spreadsheets_divide_rows(tmp_path: Path) -> None:
    out, held = run(file(tmp_path, "a.csv", "mrn,name,note\rA-1,Lopez,Lopez well\rA-2,Roe,ok\r"))
    assert len(list(csv.reader(io.StringIO(out)))) == 3
    assert "Lopez" not in out
    assert held == []


def test_a_text_of_one_long_line_is_no_table(tmp_path: Path) -> None:
    long = "well, " * 30_000
    assert form_csv.table(long).header is None
    out, held = run(file(tmp_path, "a.jsonl", json.dumps({"text": f"{long}\nok"}) + "\n"))
    assert json.loads(out)["text"] == f"{long}\nok"
    assert held == []


@pytest.mark.parametrize("name", ["a.hl7", "a.dat"])
def test_each_message_of_a_file_is_its_own(tmp_path: Path, name: str) -> None:
    bad = HL7.replace("Maria Lopez fine", "BAD")
    out, held = run(file(tmp_path, name, HL7 + bad + HL7))
    assert out.count("MSH|^~\\&|") == 2
    assert "Lopez" not in out
    assert [(one.number, one.code) for one in held] == [(2, "residual")]


def test_a_list_of_objects_is_taken_one_by_one(tmp_path: Path) -> None:
    rows = [{"name": "Ann Lopez", "note": "Lopez"}, {"note": "BAD"}, {"name": "Bo Roe"}]
    out, held = run(file(tmp_path, "a.json", json.dumps(rows)))
    made = json.loads(out)
    assert len(made) == 2
    assert made[0]["note"] == made[0]["name"].split()[-1]
    assert [one.number for one in held] == [2]
    assert json.loads(run(file(tmp_path, "b.json", '[{"note": "BAD"}]'))[0]) == []


def test_lines_of_objects_without_a_text_go_by_their_keys(tmp_path: Path) -> None:
    lines = '{"name": "Ann Lopez", "note": "Lopez"}\n{"note": \n\n{"name": "Bo Roe"}\n'
    out, held = run(file(tmp_path, "a.jsonl", lines))
    made = [json.loads(line) for line in out.splitlines()]
    assert len(made) == 2
    assert "Lopez" not in out
    assert [(one.number, one.code) for one in held] == [(2, "not-json")]


def test_a_resource_of_fhir_is_known_by_its_type(tmp_path: Path) -> None:
    source = '{"resourceType": "Patient", "name": [{"family": "Lopez"}], "birthDate": "1970-05-03"}'
    for name, form in (("a.json", "auto"), ("a", "auto"), ("a", "fhir")):
        made = json.loads(run(file(tmp_path, name, source), form)[0])  # type: ignore[arg-type]
        assert made["name"][0]["family"] != "Lopez"
        assert made["birthDate"] != "1970-05-03"
    with pytest.raises(ClientError, match="not-fhir"):
        run(file(tmp_path, "b", '{"a": 1}'), "fhir")


def test_a_text_is_read_whole_and_markup_goes(tmp_path: Path) -> None:
    text = "<p>Seen: Mr. Lopez</p>\n" + "A fine day. " * 3000 + "Call 5551234567.\n"
    out, held = run(file(tmp_path, "a.html", text))
    assert not held
    assert "Lopez" not in out
    assert "5551234567" not in out
    assert "<p>" not in out
    assert out.count("A fine day.") == 3000


def test_hl7_inside_a_line_is_taken_by_field_and_its_spans_are_those_of_the_line(
    tmp_path: Path,
) -> None:
    line = json.dumps({"text": PID, "person": 7, "name": "Zebulon Roe"})
    out, _ = run(file(tmp_path, "a.jsonl", line + "\n"))
    made = json.loads(out)
    taken = {PID[span["start"] : span["end"]] for span in made["spans"]}
    assert {"1234567", "Lopez", "Maria", "19700503"} <= taken
    assert made["text"].count("|") == PID.count("|")


def test_other_keys_of_a_line_are_known_values_of_its_text(tmp_path: Path) -> None:
    line = json.dumps({"text": "seen Zebulon today", "name": "Zebulon Roe"})
    made = json.loads(run(file(tmp_path, "a.jsonl", line + "\n"))[0])
    assert "Zebulon" not in made["text"]
    assert made["spans"] == [{"start": 5, "end": 12, "type": "PERSON"}]


def test_markup_inside_a_line_goes_and_spans_lead_back(tmp_path: Path) -> None:
    text = "<p>Dear Mr. <b>Lopez</b> &amp; co</p>"
    made = json.loads(run(file(tmp_path, "a.jsonl", json.dumps({"text": text}) + "\n"))[0])
    (span,) = made["spans"]
    assert text[span["start"] : span["end"]].startswith("Mr. <b>Lopez")
    assert "<" not in made["text"]
    assert "& co" in made["text"]


@pytest.mark.parametrize(
    ("name", "content", "form", "said"),
    [
        ("a.hl7", "no message", "auto", "not-hl7"),
        ("a.json", "{", "auto", "not-json"),
        ("a.txt", b"\xff\xfe", "auto", "UTF-8"),
        ("a.csv", "  \n", "auto", "empty"),
        ("a.txt", "x", "hl7", "not-hl7"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_one_sentence(
    tmp_path: Path, name: str, content: Any, form: Format, said: str
) -> None:
    with pytest.raises(ClientError, match=said):
        run(file(tmp_path, name, content), form)
