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
from client.prepare import tables
from configs.prepare import ChatTable, Recipe
from tests.client.source import read, triples

ROWS = [
    {"unit_id": "p1", "instruction": "Where is Zebulon's card?", "response": "lost", "age": 41},
    {"unit_id": "p2", "instruction": '第二个问题 with a comma, and "quotes"', "response": "other"},
    {"unit_id": 3, "instruction": "A third question\nof two lines", "response": "lost"},
]
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
    found = read(_written(kind, tmp_path), tmp_path)
    assert triples(found) == WANTED
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
    assert triples(read(path, tmp_path, encoding=name)) == [("p", "Müller fragt nach", "ja")]
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]
    with pytest.raises(ClientError, match="is not in ascii"):
        read(path, tmp_path, encoding="ascii") if encoding != "utf-16" else _ascii(tmp_path)


def _ascii(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'{"instruction": "\xff"}')
    read(path, tmp_path, encoding="ascii")


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
    found = read(path, tmp_path)
    assert found.form == "chat"
    assert triples(found) == [
        ("c1", "hello\nmy card", "which one"), ("c1", "the blue one", "blocked"),
    ]  # fmt: skip
    assert found.reading.records[0].category == "cards"
    assert [(f.line, f.code) for f in found.reading.faults] == [(2, "unknown-speaker")]
    more = read(path, tmp_path, Recipe(chat=ChatTable(history=1)))
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
    assert triples(read(path, tmp_path)) == [
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
    records = read(path, tmp_path).reading.records
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
        read(path, tmp_path)
    assert caught.value.code == "bad-quotes"
    assert "rash" not in str(caught.value)


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
    found = read(None, tmp_path, url=url, query=QUERY)
    assert sorted(triples(found)) == sorted(WANTED)
    with pytest.raises(ClientError, match=r"query failed|no rows") as fault:
        read(None, tmp_path, url=url, query="delete from notes")
    assert fault.value.exit_code == 2
    assert len(triples(read(None, tmp_path, url=url, query=QUERY))) == 3


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
        read(None, tmp_path, url=url, query=query)
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
    found = read(None, tmp_path, url=postgres, query=QUERY)
    assert sorted(triples(found)) == sorted(WANTED)
    writing = "with gone as (delete from notes returning *) select count(*) from gone"
    with pytest.raises(ClientError) as fault:
        read(None, tmp_path, url=postgres, query=writing)
    assert fault.value.code == "bad-query"
    assert len(triples(read(None, tmp_path, url=postgres, query=QUERY))) == 3
