"""Every form of source gives the same records, and none says what it read when it fails."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.errors import ClientError
from client.prepare import sources, tables
from configs.prepare import ChatTable, Recipe

ROWS = [
    {"unit_id": "p1", "instruction": "Where is Zebulon's card?", "response": "lost", "age": 41},
    {"unit_id": "p2", "instruction": '第二个问题 with a comma, and "quotes"', "response": "other"},
    {"unit_id": 3, "instruction": "A third question\nof two lines", "response": "lost"},
]
KEY = b"k" * 32


def _read(path: Path | None, tmp_path: Path, recipe: Recipe | None = None, **more: Any) -> Any:
    return sources.read(
        path,
        recipe or Recipe(),
        key=KEY,
        person_column="unit_id",
        draft=tmp_path / ".draft",
        **more,
    )


def _triples(source: Any) -> list[tuple[str, str, str]]:
    return [(r.person, r.instruction, r.response) for r in source.reading.records]


WANTED = [(str(row["unit_id"]), str(row["instruction"]), str(row["response"])) for row in ROWS]


def _written(kind: str, folder: Path) -> Path:
    path = folder / f"records.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["unit_id", "instruction", "response", "age"])
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        rows = [{**row, "unit_id": str(row["unit_id"])} for row in ROWS]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        import openpyxl

        book = openpyxl.Workbook()
        sheet = book.active
        assert sheet is not None
        sheet.append(["unit_id", "instruction", "response", "age"])
        for row in ROWS:
            sheet.append([row.get(n) for n in ("unit_id", "instruction", "response", "age")])
        book.save(path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "xlsx"])
def test_the_same_rows_in_another_form_are_the_same_records(kind: str, tmp_path: Path) -> None:
    found = _read(_written(kind, tmp_path), tmp_path)
    assert _triples(found) == WANTED
    assert ("age", "41") in found.reading.records[0].columns
    assert found.digest.startswith("hmac-sha256:")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"records.{kind}"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "gb18030"])
def test_a_text_in_another_encoding_is_read_and_its_copy_is_gone(
    encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.jsonl"
    row = {"unit_id": "p", "instruction": "Müller fragt nach", "response": "ja"}
    path.write_bytes((json.dumps(row, ensure_ascii=False) + "\n").encode(encoding))
    # UTF-16 says by its mark what it is.
    name = "utf-8" if encoding == "utf-16" else encoding
    assert _triples(_read(path, tmp_path, encoding=name)) == [("p", "Müller fragt nach", "ja")]
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]
    with pytest.raises(ClientError, match="is not in ascii"):
        _read(path, tmp_path, encoding="ascii") if encoding != "utf-16" else _ascii(tmp_path)


def _ascii(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'{"instruction": "\xff"}')
    _read(path, tmp_path, encoding="ascii")


def test_turns_become_pairs_and_an_unknown_speaker_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    talk = [
        {"role": "system", "content": "be kind"},
        {"role": "Customer", "content": "hello"}, {"role": "customer", "content": "my card"},
        {"role": "agent", "content": "which one"},
        {"role": "customer", "content": "the blue one"}, {"role": "agent", "content": "blocked"},
        {"role": "customer", "content": "thanks"},
    ]  # fmt: skip
    odd = [{"role": "customer", "content": "hi"}, {"role": "parrot", "content": "hi"}]
    path.write_text(
        json.dumps({"unit_id": "c1", "turns": talk, "category": "cards"}) + "\n"
        + json.dumps({"unit_id": "c2", "turns": odd}) + "\n"
    )  # fmt: skip
    found = _read(path, tmp_path)
    assert found.form == "chat"
    assert _triples(found) == [
        ("c1", "hello\nmy card", "which one"), ("c1", "the blue one", "blocked"),
    ]  # fmt: skip
    assert found.reading.records[0].category == "cards"
    assert [(f.line, f.code) for f in found.reading.faults] == [(2, "unknown-speaker")]
    more = _read(path, tmp_path, Recipe(chat=ChatTable(history=1)))
    assert more.reading.records[1].instruction == "hello\nmy card\n\nwhich one\n\nthe blue one"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_turns_in_rows_of_a_table_are_put_together_by_their_conversation(
    tmp_path: Path, delimiter: str
) -> None:
    path = tmp_path / "chat.csv"
    rows = (
        '"conversation_id",unit_id,speaker,text\n1,p1,patient,it hurts\n2,p2,patient,a cough\n'
        "1,p1,doctor,where\n2,p2,doctor,since when\n"
    )
    path.write_text("\ufeff" + rows.replace(",", delimiter))
    assert _triples(_read(path, tmp_path)) == [
        ("p1", "it hurts", "where"), ("p2", "a cough", "since when"),
    ]  # fmt: skip


def test_what_the_rows_of_a_conversation_state_goes_along_with_its_records(tmp_path: Path) -> None:
    """Else the scrub does not look for the patient's name, nor for the second nurse's."""
    path = tmp_path / "chat.jsonl"
    rows = [
        {"chat_id": 7, "role": "patient", "content": "it hurts", "phone": 5550147},
        {"chat_id": 7, "role": "doctor", "content": "where", "nurse_name": ["Ada Quux"],
         "patient_name": "Jane Zebulon", "context": "ward", "rejected": "no", "text": "short"},
        {"chat_id": 7, "role": "patient", "content": "here", "nurse_name": ["Bo Quux", "Ada Quux"],
         "patient_name": "Jane Zebulon", "phone": None, "flags": {"a": 1}},
        {"chat_id": 8, "role": "patient", "content": "a cough", "patient_name": "Otto Other"},
        {"chat_id": 8, "role": "doctor", "content": "since when"},
    ]  # fmt: skip
    path.write_text("".join(json.dumps({"unit_id": f"p{r['chat_id']}", **r}) + "\n" for r in rows))
    records = _read(path, tmp_path).reading.records
    assert [(r.person, r.instruction, r.response) for r in records] == [
        ("p7", "it hurts", "where"), ("p8", "a cough", "since when"),
    ]  # fmt: skip
    first, second = (set(r.columns) for r in records)
    assert first == {
        ("unit_id", "p7"), ("chat_id", "7"), ("phone", "5550147"), ("patient_name", "Jane Zebulon"),
        ("nurse_name", "Ada Quux"), ("nurse_name", "Bo Quux"),
    }  # fmt: skip
    assert second == {("unit_id", "p8"), ("chat_id", "8"), ("patient_name", "Otto Other")}
    assert len(records[0].columns) == len(first)


def test_a_quotation_over_other_persons_turns_refuses_the_table(tmp_path: Path) -> None:
    """Read leniently, the first person's turn would hold the other persons' turns."""
    path = tmp_path / "chat.csv"
    path.write_text(
        'conversation_id,unit_id,speaker,text\n1,p1,patient,it hurts\n1,p1,doctor,"where\n'
        '2,p2,patient,a cough\n3,p3,patient,"a rash"\n3,p3,doctor,oh\n'
    )
    with pytest.raises(ClientError, match="line 5") as caught:
        _read(path, tmp_path)
    assert caught.value.code == "bad-quotes"
    assert "rash" not in str(caught.value)


def test_references_of_a_bundle_are_followed_in_each_way_that_they_are_written(
    tmp_path: Path,
) -> None:
    """Else each of a patient's reports would count as a person of its own."""
    path = tmp_path / "bundle.json"
    seen = {"resourceType": "Observation", "code": {"text": "Glucose"},
            "valueQuantity": {"value": 182}}  # fmt: skip
    report = {"resourceType": "DiagnosticReport", "code": {"coding": None}, "conclusion": "fine"}
    written = {
        "urn:uuid:11": "a7", "urn:uuid:99": "99", "http://x/fhir/Patient/a7": "a7",
        "Patient/a7/_history/2": "a7",
    }  # fmt: skip
    path.write_text(json.dumps({"resourceType": "Bundle", "entry": [
        {"fullUrl": "urn:uuid:11", "resource": {"resourceType": "Patient", "id": "a7",
         "name": [{"family": "Zebulon"}]}},
        {"fullUrl": "urn:uuid:22", "resource": seen},
        *({"resource": {**report, "subject": {"reference": name},
                        "result": [{"reference": "urn:uuid:22"}]}} for name in written),
        {"resource": {**report, "subject": {"reference": "urn:uuid:11"}, "result": None,
                      "code": {"text": "alone"}}},
    ]}))  # fmt: skip
    found = _read(path, tmp_path).reading.records
    assert [record.person for record in found] == [*written.values(), "a7"]
    assert all("Glucose: 182" in record.instruction for record in found[:-1])
    assert [("name", "Zebulon") in record.columns for record in found] == [
        person == "a7" for person in [*written.values(), "a7"]
    ]


def test_a_reference_to_nothing_is_not_one_to_the_last_resource(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    report = {"resourceType": "DiagnosticReport", "code": {"text": "x-ray"}, "conclusion": "fine",
              "subject": {"reference": ""}}  # fmt: skip
    patient = {"resourceType": "Patient", "id": "a7", "name": [{"family": "Zebulon"}]}
    path.write_text(json.dumps({"resourceType": "Bundle", "entry": [
        {"resource": report}, {"resource": patient},
    ]}))  # fmt: skip
    (found,) = _read(path, tmp_path).reading.records
    assert found.person != "a7"
    assert ("name", "Zebulon") not in found.columns


def test_a_resource_of_a_bulk_export_ends_at_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "reports.ndjson"
    report = {"resourceType": "DiagnosticReport", "code": {"text": "one\u2028two\x85three"},
              "subject": {"reference": "Patient/a7"}, "conclusion": "fine"}  # fmt: skip
    path.write_text((json.dumps(report, ensure_ascii=False) + "\r\n") * 2, newline="")
    found = _read(path, tmp_path).reading
    assert [record.person for record in found.records] == ["a7", "a7"]
    assert found.faults == ()


def test_a_conversation_or_a_message_of_two_persons_is_nobodys_record(tmp_path: Path) -> None:
    """Its gradient would be clipped as one person's, and a withdrawal would miss the other."""
    chat = tmp_path / "chat.csv"
    chat.write_text(
        "conversation_id,unit_id,speaker,text\n1,p1,patient,it hurts\n1,,doctor,where\n"
        "2,p2,patient,a cough\n2,p2,doctor,since when\n2,p3,patient,a rash\n2,p3,doctor,oh\n"
    )
    found = _read(chat, tmp_path)
    assert _triples(found) == [("p1", "it hurts", "where")]
    assert [fault.code for fault in found.reading.faults] == ["several-persons"]

    message = tmp_path / "in.hl7"
    other = HL7[HL7.index("PID") :].replace("77001", "77002")
    same = HL7[HL7.index("PID") :]
    message.write_text(HL7 + other + HL7 + same, newline="")
    found = _read(message, tmp_path)
    assert [record.person for record in found.reading.records] == ["77001"]
    assert [fault.code for fault in found.reading.faults] == ["several-persons"]

    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps([
        {"resourceType": "Observation", "id": "o1", "code": {"text": "Glucose"},
         "subject": {"reference": "Patient/b8"}, "valueQuantity": {"value": 182}},
        *({"resourceType": "DiagnosticReport", "id": f"d{who}", "code": {"text": "Panel"},
           "subject": {"reference": f"Patient/{who}"}, "conclusion": "fine",
           "result": [{"reference": "Observation/o1"}]} for who in ("a7", "b8")),
    ]))  # fmt: skip
    found = _read(bundle, tmp_path)
    assert [record.person for record in found.reading.records] == ["b8"]
    assert [fault.code for fault in found.reading.faults] == ["several-persons"]


def test_a_patients_number_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "in.hl7"
    marks = HL7.replace("|^~\\&|", "|$~\\&|", 1).replace("^", "$")
    for text, key in ((HL7, "77-001/B"), (marks, "77-001/C"), (marks, "77.2^4")):
        path.write_text(text.replace("77001", key), newline="")
        (record,) = _read(path, tmp_path).reading.records
        assert record.person == key


HL7 = (
    "MSH|^~\\&|LAB|GEN|EHR|GEN|20240101||ORU^R01|1|P|2.5\r"
    "PID|1||77001^^^GEN^MR||Zebulon^Ada||19600102|F|||||212-555-0101\r"
    "OBX|1|NM|2345-7^Glucose^LN||182|mg/dL\r"
    "OBX|2|FT|1^Findings^L||Lungs are clear\\.br\\no effusion\r"
    "DG1|1||E11^Diabetes^I10|Type 2 diabetes\r"
)


def test_an_hl7_message_asks_about_its_report_and_knows_its_people(tmp_path: Path) -> None:
    path = tmp_path / "in.hl7"
    path.write_text(HL7 + HL7.replace("77001", "77002").replace("DG1|1", "ZZZ|1"), newline="")
    found = _read(path, tmp_path)
    (record,) = found.reading.records
    assert record.person == "77001"
    assert record.response == "Type 2 diabetes"
    assert record.instruction.endswith("Glucose: 182 mg/dL\nFindings: Lungs are clear\nno effusion")
    assert ("name", "Ada Zebulon") in record.columns
    assert ("phone", "212-555-0101") in record.columns
    assert [(f.line, f.code) for f in found.reading.faults] == [(2, "no-response")]


def test_a_bundle_asks_about_its_report_with_what_it_refers_to(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [
        {"resource": {"resourceType": "Patient", "id": "a7", "birthDate": "1960-01-02",
                      "name": [{"family": "Zebulon", "given": ["Ada"]}]}},
        {"resource": {"resourceType": "Observation", "id": "o1", "status": "final",
                      "code": {"text": "Glucose"}, "subject": {"reference": "Patient/a7"},
                      "valueQuantity": {"value": 182, "unit": "mg/dL"}}},
        {"resource": {"resourceType": "DiagnosticReport", "id": "d1", "status": "final",
                      "code": {"text": "Metabolic panel"}, "subject": {"reference": "Patient/a7"},
                      "result": [{"reference": "Observation/o1"}],
                      "conclusion": "Poorly controlled diabetes"}},
    ]}))  # fmt: skip
    (record,) = _read(path, tmp_path).reading.records
    assert (record.person, record.response) == ("a7", "Poorly controlled diabetes")
    assert record.instruction.endswith("Metabolic panel\nGlucose: 182 mg/dL")
    assert ("name", "Ada Zebulon") in record.columns
    assert ("birth_date", "1960-01-02") in record.columns


def _database(path: Path) -> str:
    with sqlite3.connect(path) as db:
        db.execute("create table notes (person text, ask text, answer text)")
        db.executemany("insert into notes values (?, ?, ?)", WANTED)
    db.close()
    return f"sqlite:///{path}"


QUERY = (
    "select person as unit_id, ask as instruction, answer as response from notes order by person"
)


def test_a_query_of_sqlite_gives_records_and_changes_nothing(tmp_path: Path) -> None:
    url = _database(tmp_path / "x.db")
    found = _read(None, tmp_path, url=url, query=QUERY)
    assert sorted(_triples(found)) == sorted(WANTED)
    with pytest.raises(ClientError, match=r"query failed|no rows") as fault:
        _read(None, tmp_path, url=url, query="delete from notes")
    assert fault.value.exit_code == 2
    assert len(_triples(_read(None, tmp_path, url=url, query=QUERY))) == 3


@pytest.mark.parametrize(
    ("url", "query", "code"),
    [
        ("sqlite:////nowhere/zebulon.db", QUERY, "no-database"),
        ("postgresql+psycopg://u:zebulon@127.0.0.1:1/x", QUERY, "no-database"),
        ("zebulon", QUERY, "no-database-url"),
        ("nosuch://zebulon/x", QUERY, "no-database-url"),
        (None, "select zebulon from notes", "bad-query"),
        (None, "zebulon", "bad-query"),
    ],
)
def test_a_database_that_fails_never_repeats_address_or_statement(
    url: str | None, query: str, code: str, tmp_path: Path
) -> None:
    url = url or _database(tmp_path / "x.db")
    with pytest.raises(ClientError) as fault:
        _read(None, tmp_path, url=url, query=query)
    assert fault.value.code == code
    assert "zebulon" not in str(fault.value)
    assert (fault.value.exit_code == 5) == (code == "no-database")


def test_an_address_with_a_password_comes_from_a_private_place_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "postgresql+psycopg://u:zebulon@db/x"
    monkeypatch.delenv(tables.URL_VARIABLE, raising=False)
    with pytest.raises(ClientError, match="command line"):
        tables.database_url(secret, None)
    with pytest.raises(ClientError, match="no usable address"):
        tables.database_url(None, None)
    file = tmp_path / "url"
    file.write_text(secret + "\n")
    file.chmod(0o644)
    with pytest.raises(ClientError, match="chmod 600"):
        tables.database_url(None, file)
    file.chmod(0o600)
    assert tables.database_url(None, file) == secret
    monkeypatch.setenv(tables.URL_VARIABLE, secret)
    assert tables.database_url(None, None) == secret


@pytest.fixture
def postgres() -> Iterator[str]:
    """A PostgreSQL of this test alone, on a socket in a folder of its own."""
    found = [shutil.which(name) for name in ("initdb", "postgres", "pg_ctl")]
    if not all(found):
        pytest.skip("PostgreSQL is not installed on this machine")
    initdb, _, pg_ctl = map(str, found)
    import os
    import pwd

    as_user: dict[str, Any] = {}
    if os.getuid() == 0:  # it refuses to run as root
        try:
            as_user = {"user": pwd.getpwnam("postgres").pw_uid}
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        data, quiet = f"{place}/data", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # The programs start each other by a path beside their own.
        initdb, pg_ctl = (str(Path(name).resolve()) for name in (initdb, pg_ctl))
        subprocess.run([initdb, "-D", data, "-U", "tester", "-A", "trust", "-N", "--no-locale",
                        "-E", "UTF8"], check=True, cwd=place, **quiet, **as_user)  # fmt: skip
        options = f"-F -k {place} -h '' -p {port} -c shared_buffers=8MB"
        subprocess.run([pg_ctl, "-D", data, "-w", "-t", "120", "-o", options, "start"], check=True,
                       cwd=place, **quiet, **as_user)  # fmt: skip
        try:
            yield f"postgresql+psycopg://tester@/postgres?host={place}&port={port}"
        finally:
            subprocess.run([pg_ctl, "-D", data, "-m", "immediate", "-w", "stop"], check=False,
                           cwd=place, **quiet, **as_user)  # fmt: skip


def test_a_query_of_postgresql_gives_records_and_may_change_nothing(
    postgres: str, tmp_path: Path
) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres)
    with engine.begin() as made:
        made.execute(sqlalchemy.text("create table notes (person text, ask text, answer text)"))
        for person, ask, answer in WANTED:
            made.execute(sqlalchemy.text("insert into notes values (:p, :a, :b)"),
                         {"p": person, "a": ask, "b": answer})  # fmt: skip
    engine.dispose()
    found = _read(None, tmp_path, url=postgres, query=QUERY)
    assert sorted(_triples(found)) == sorted(WANTED)
    writing = "with gone as (delete from notes returning *) select count(*) from gone"
    with pytest.raises(ClientError) as fault:
        _read(None, tmp_path, url=postgres, query=writing)
    assert fault.value.code == "bad-query"
    assert len(_triples(_read(None, tmp_path, url=postgres, query=QUERY))) == 3
