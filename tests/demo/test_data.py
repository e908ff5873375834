"""Whose records the demo trains on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo import data
from demo.errors import DemoError


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, records: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def record(person: int, institution: str, number: int = 0) -> dict[str, str]:
    return {
        "instruction": f"message {person} {number}",
        "response": "cards" if person % 2 else "loans",
        "unit_id": f"p{person}",
        "institution": institution,
    }


def test_a_person_is_in_one_place_only_and_nobody_is_lost(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl",
        [record(p, "set:bank" if p < 60 else "set:insurer", n) for p in range(90) for n in (0, 1)],
    )
    done = data.split(tmp_path, source, institutions=3)
    assert sorted(done.sites) == ["bank-a", "bank-b", "insurer"]
    places = [
        {row["unit_id"] for row in rows(path)} for path in [*done.sites.values(), done.heldout]
    ]
    assert sum(map(len, places)) == len(set.union(*places)) == 90
    assert all(places)
    assert done.labels == ("cards", "loans")


def test_split_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    records = [record(p, "x:bank") for p in range(80)]
    places = []
    for number, order in enumerate((records, records[::-1])):
        out = tmp_path / str(number)
        out.mkdir()
        done = data.split(out, write(out / "in.jsonl", order), institutions=2)
        places.append({name: {r["unit_id"] for r in rows(p)} for name, p in done.sites.items()})
    assert places[0] == places[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        (b"", "no record"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b'{"instruction": "a secret note"}\n', "no record"),
        (b'{"instruction": "a secret note", "resp', "no record"),
    ],
)
def test_an_unusable_file_is_named_in_a_sentence_without_its_content(
    tmp_path: Path, text: bytes | None, words: str
) -> None:
    source = tmp_path / "in.jsonl"
    if text is not None:
        source.write_bytes(text)
    with pytest.raises(DemoError, match=words) as refusal:
        data.split(tmp_path, source, institutions=2)
    assert "secret" not in str(refusal.value)
    assert refusal.value.exit_code == 2


def test_too_few_persons_for_the_institutions_is_an_error(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(p, "x:bank") for p in (1, 2)])
    with pytest.raises(DemoError, match="too few"):
        data.split(tmp_path, source, institutions=9)


@given(st.text(max_size=60))
@settings(deadline=None)
def test_an_institution_name_from_a_file_is_always_a_valid_name(name: str) -> None:
    from configs.site import Site

    Site(name=data._slug(name), coordinator="127.0.0.1:1")


def test_made_up_institutions_hold_what_the_reader_reads(tmp_path: Path) -> None:
    from client import records

    done = data.made_up(tmp_path, institutions=2)
    assert sorted(done.sites) == ["bank-1", "hospital-1"]
    for path in done.sites.values():
        reading = records.read(path)
        assert not reading.faults
        assert not reading.unkeyed
    assert (tmp_path / "records").stat().st_mode & 0o077 == 0
    heard = {row["instruction"] for row in rows(done.heldout)}
    for path in done.sites.values():
        assert not heard & {row["instruction"] for row in rows(path)}
