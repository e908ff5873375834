from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import records
from client.errors import ClientError

SECRET = "Zephyrine Quillfeather"


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "ask", "response": "answer"},
        {"input": "ask", "output": "answer"},
        {"prompt": "ask", "completion": "answer"},
        {
            "messages": [
                {"role": "user", "content": "ask"},
                {"role": "assistant", "content": "answer"},
            ]
        },
    ],
)
def test_each_shape_is_read(tmp_path, row):
    row |= {"unit_id": "p1", "category": "c", "institution": "i"}
    reading = records.read(write(tmp_path / "r.jsonl", row))
    (record,) = reading.records
    assert (record.instruction, record.response) == ("ask", "answer")
    assert (record.person, record.category, record.institution, record.line) == ("p1", "c", "i", 1)
    assert reading.faults == ()
    assert reading.unkeyed == 0


def test_context_follows_the_instruction(tmp_path):
    row = {"instruction": "ask", "context": "about", "response": "answer"}
    (record,) = records.read(write(tmp_path / "r.jsonl", row)).records
    assert record.instruction == "ask\n\nabout"


GOOD = {"instruction": "ask", "response": "answer", "unit_id": "p"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{broken", "not-json"),
        (b"[1, 2]", "not-object"),
        (b"17", "not-object"),
        (b'{"instruction": "caf\xe9", "response": "a"}', "not-utf-8"),
        (b'{"instruction": "ask"}', "no-response"),
        (b'{"instruction": "ask", "response": "  "}', "no-response"),
        (b'{"response": "answer"}', "no-instruction"),
        (b'{"text": "hello"}', "unknown-columns"),
        (b'{"instruction": 5, "response": "a"}', "not-text"),
        (b'{"instruction": "\\ud800", "response": "a"}', "not-text"),
        (b'{"instruction": "q", "response": "a", "unit_id": 1.5}', "bad-person"),
        (b'{"instruction": "q", "response": "a", "unit_id": ["x"]}', "bad-person"),
        (b'{"messages": [{"role": "user", "content": "q"}]}', "no-response"),
        (b'{"messages": "hello"}', "not-text"),
        (b'{"instruction": "' + b"x" * 10_000 + b'", "response": "a"}', "too-long"),
        (b"[" * 5_000, "not-json"),
    ],
)
def test_a_bad_line_is_a_fault_and_the_rest_goes_on(tmp_path, line, code):
    path = tmp_path / "r.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, line, b"", good, b""]))
    reading = records.read(path)
    assert reading.faults == (records.Fault(2, code),)
    assert [record.line for record in reading.records] == [1, 4]


def test_a_truncated_last_line_is_reported_as_such(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD)[:20], encoding="utf-8")
    assert records.read(path).faults == (records.Fault(2, "truncated"),)


def test_the_limit_of_length_is_exact(tmp_path):
    def row(length: int) -> dict[str, str]:
        return {"instruction": "x" * (length - 1), "response": "y"}

    path = write(tmp_path / "r.jsonl", row(records.MAX_CHARACTERS), row(records.MAX_CHARACTERS + 1))
    reading = records.read(path)
    assert [record.line for record in reading.records] == [1]
    assert reading.faults == (records.Fault(2, "too-long"),)


def test_a_line_longer_than_any_buffer_is_passed_over_whole(tmp_path):
    path = tmp_path / "r.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"x" * (3 * records.MAX_LINE_BYTES) + b"\n" + good + b"\n")
    reading = records.read(path)
    assert reading.faults == (records.Fault(1, "too-long"),)
    assert [record.line for record in reading.records] == [2]


def test_records_without_a_person_are_people_of_their_own(tmp_path):
    bare = {"instruction": "a", "response": "b"}
    other = {"instruction": "c", "response": "d"}
    reading = records.read(write(tmp_path / "r.jsonl", bare, other, bare, GOOD))
    assert reading.unkeyed == 3
    people = [record.person for record in reading.records]
    assert people[0] == people[2] != people[1]
    assert people[3] == "p"


def test_the_site_names_its_person_column(tmp_path):
    path = write(tmp_path / "r.jsonl", {"instruction": "a", "response": "b", "mrn": 17})
    (record,) = records.read(path, person_column="mrn").records
    assert record.person == "17"
    with pytest.raises(ClientError, match="'chart'") as caught:
        records.read(path, person_column="chart")
    assert caught.value.exit_code == 2
    assert caught.value.code == "no-person-column"


def test_a_json_array_is_read_item_by_item(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps([GOOD, 5, GOOD]), encoding="utf-8")
    reading = records.read(path)
    assert [record.line for record in reading.records] == [1, 3]
    assert reading.faults == (records.Fault(2, "not-object"),)


def test_json_lines_under_the_other_name_are_read(tmp_path):
    assert len(records.read(write(tmp_path / "r.json", GOOD, GOOD)).records) == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_is_read_with_the_delimiter_it_has(tmp_path, delimiter, mark):
    path = tmp_path / "r.csv"
    rows = [
        ["unit_id", "instruction", "response", "category"],
        ["p1", '"two\nlines"', "answer", ""],
        ["p2", "caf\u00e9", "answer", "c"],
    ]
    path.write_bytes(mark + "\r\n".join(delimiter.join(row) for row in rows).encode())
    first, second = records.read(path).records
    assert first.instruction == "two\nlines"
    assert (first.category, second.category) == (None, "c")
    assert (first.line, second.line) == (2, 4)
    assert second.person == "p2"


def test_csv_faults_are_told_apart(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(
        b"unit_id,instruction,response\np,q,a\np,q\np,caf\xe9,a\n\np,,a\np,q,\np,q,a\n"
    )
    reading = records.read(path)
    assert [record.line for record in reading.records] == [2, 8]
    assert [(f.line, f.code) for f in reading.faults] == [
        (3, "bad-row"),
        (4, "not-utf-8"),
        (6, "no-instruction"),
        (7, "no-response"),
    ]


@pytest.mark.parametrize("rest", [b"p2,q,a\n", b'p2,q,a\np3,"q",a\n', b'p2,"q\n'])
def test_a_quotation_over_other_persons_rows_refuses_the_file(tmp_path, rest):
    path = tmp_path / "r.csv"
    path.write_bytes(
        b'unit_id,instruction,response\np0,q,a\np1,"' + SECRET.encode() + b",a\n" + rest
    )
    with pytest.raises(ClientError, match="quotation mark in line 3") as caught:
        records.read(path)
    assert caught.value.code == "bad-quotes"
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("r.jsonl", b"", "empty"),
        ("r.jsonl", b"\xef\xbb\xbf \n\n", "empty"),
        ("r.json", b"[]", "empty"),
        ("r.json", b"[{", "not-json"),
        ("r.json", b'["\xff"]', "not-utf-8"),
        ("r.jsonl", b"\xff\xfe\n\xff\n", "not-utf-8"),
        ("r.jsonl", b"{broken\n", "no-records"),
        ("r.jsonl", b'{"text": "Zephyrine Quillfeather"}\n', "unknown-columns"),
        ("r.csv", b"text,label\nZephyrine Quillfeather,x\n", "unknown-columns"),
        ("r.csv", b"instruction,response\n", "no-records"),
        ("r.xlsx", b"PK", "unknown-kind"),
    ],
)
def test_a_useless_file_is_an_error_in_one_sentence_without_its_content(
    tmp_path, name, content, code
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ClientError) as caught:
        records.read(path)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)
    assert name in str(caught.value)
    assert SECRET not in str(caught.value)


def test_wrong_columns_are_named_together_with_the_right_ones(tmp_path):
    path = write(tmp_path / "r.jsonl", {"text": "x", "label": "y", SECRET: "z"})
    with pytest.raises(ClientError, match=r"label, text.*instruction\+response") as caught:
        records.read(path)
    assert SECRET not in str(caught.value), "a key that is no column name is a value in disguise"


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    for path, code in ((tmp_path / "none.jsonl", "no-file"), (tmp_path, "unreadable")):
        with pytest.raises(ClientError) as caught:
            records.read(path)
        assert (caught.value.code, caught.value.exit_code) == (code, 2)


def test_no_repr_holds_record_text(tmp_path):
    row = {"instruction": SECRET, "response": SECRET, "unit_id": SECRET, "category": SECRET}
    reading = records.read(write(tmp_path / "r.jsonl", row))
    assert SECRET not in repr(reading) + repr(reading.records)


@settings(deadline=None, max_examples=60)
@given(lines=st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b" ")), max_size=8))
def test_every_line_is_accounted_for(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("records") / "r.jsonl"
    path.write_bytes(b"\n".join([json.dumps(GOOD).encode(), *lines]))
    reading = records.read(path)
    filled = sum(1 for line in lines if line.strip()) + 1
    assert len(reading.records) + len(reading.faults) == filled
