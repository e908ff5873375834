"""From records to training items: nothing passes unscanned, and a person stays one person."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from client import deid, people, review
from client.errors import ClientError
from client.people import Note, Report, Scrub
from client.records import Fault, Reading, Record
from privacy.errors import Quarantined
from privacy.scrub import Scrubbed, Span


class Tool:
    """Masks every digit; holds back whatever says BAD."""

    digest = "sha256:" + "2" * 64

    def scrub_many(
        self, texts: Sequence[str], persons: Sequence[str]
    ) -> Iterator[Scrubbed | Quarantined]:
        for text, person in zip(texts, persons, strict=True):
            assert person
            if "BAD" in text:
                yield Quarantined("residual")
                continue
            spans = tuple(Span(i, i + 1, "ID") for i, c in enumerate(text) if c.isdigit())
            yield Scrubbed("".join("#" if c.isdigit() else c for c in text), spans)


def _record(person: str, instruction: str, response: str = "desk", line: int = 1) -> Record:
    return Record(person, instruction, response, None, None, line)


def _reading(*records: Record, faults: tuple[Fault, ...] = ()) -> Reading:
    return Reading(records=records, faults=faults, unkeyed=0)


def test_both_halves_are_scrubbed_and_counted() -> None:
    done = people.scrub(
        _reading(_record("p", "call 12", "desk 3"), faults=(Fault(9, "not-json"),)), Tool()
    )
    assert done.notes == (Note("p", "call ##", "desk #"),)
    assert done.report.removed == {"ID": 3}
    assert done.report.faults == {"not-json": 1}
    assert done.scrubber_digest == Tool.digest
    assert "call" not in repr(done)


@pytest.mark.parametrize(
    "bad", [_record("q", "BAD"), _record("q", "fine", "BAD"), _record("q", "BAD", "BAD")]
)
def test_a_record_with_one_bad_half_is_held_back_whole(bad: Record) -> None:
    done = people.scrub(_reading(_record("p", "fine"), bad), Tool())
    assert [n.person for n in done.notes] == ["p"]
    assert done.report.quarantined == {"residual": 1}
    assert (done.report.records, done.report.kept, done.report.persons) == (2, 1, 1)


def test_a_file_that_is_held_back_whole_is_an_error() -> None:
    with pytest.raises(ClientError, match="held back every record") as refusal:
        people.scrub(_reading(_record("p", "BAD")), Tool())
    assert refusal.value.code == "all-quarantined"


def test_batches_change_nothing_and_progress_counts_up() -> None:
    records = [_record(f"p{n % 3}", f"text {n}") for n in range(7)]
    told: list[tuple[int, int]] = []
    whole = people.scrub(_reading(*records), Tool())
    parts = people.scrub(
        _reading(*records), Tool(), batch=3, progress=lambda done, total: told.append((done, total))
    )
    assert parts == whole
    assert told == [(3, 7), (5, 7), (7, 7)]


class Sharing(Tool):
    """Masks in all texts of a person what one of them, in the same call, says after "is"."""

    def scrub_many(
        self, texts: Sequence[str], persons: Sequence[str]
    ) -> Iterator[Scrubbed | Quarantined]:
        told = {
            p: text.split("is ")[1] for p, text in zip(persons, texts, strict=True) if "is " in text
        }
        for text, person in zip(texts, persons, strict=True):
            yield Scrubbed(text.replace(told.get(person, "\0"), "#"), ())


def test_nobodys_notes_depend_on_whose_records_stand_beside_them() -> None:
    """Where a name is looked for must not be decided by how many records others have."""
    mine = [_record("p", "the name is quill"), _record("p", "saw quill"), _record("p", "quill")]
    others = [_record(f"o{n}", f"text {n}") for n in range(9)]
    wanted = {"the name is #", "saw #", "#"}
    for gone in range(len(others)):
        beside = others[gone:]
        mixed = [beside[0], mine[0], *beside[1:5], mine[1], *beside[5:], mine[2]]
        done = people.scrub(_reading(*mixed), Sharing(), batch=4)
        assert {note.instruction for note in done.notes if note.person == "p"} == wanted


def test_a_person_is_one_item_however_many_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "model.prompts.encode", lambda base, asked, answer, max_tokens: (asked, answer)
    )
    notes = (Note("b", "1", "x"), Note("a", "2", "x"), Note("b", "3", "x"))
    report = Report(4, 2, 3, {}, {}, {})
    base: Any = None
    assert people.group(Scrub(notes, ("a", "b", "c"), report, "d"), base, max_tokens=9) == (
        (("2", "x"),),
        (("1", "x"), ("3", "x")),
        (),
    )


def test_a_rejected_answer_is_scrubbed_and_holds_its_record_back() -> None:
    def pair(person: str, worse: str) -> Record:
        return Record(person, "call 1", "desk 2", None, None, 1, (), worse)

    done = people.scrub(
        _reading(pair("p", "no 3"), _record("q", "fine"), pair("r", "BAD"), pair("s", "no")), Tool()
    )
    assert [(note.person, note.rejected) for note in done.notes] == [
        ("p", "no #"), ("q", None), ("s", "no"),
    ]  # fmt: skip
    assert done.report.removed == {"ID": 5}
    assert done.report.quarantined == {"residual": 1}
    assert "no" not in repr(done)


def test_a_person_is_one_item_however_many_preferences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "model.preferences.encode", lambda base, asked, better, worse, max_tokens: (better, worse)
    )
    monkeypatch.setattr("model.preferences.refer", lambda model, item: item)
    notes = (
        Note("b", "1", "x", "y"), Note("a", "2", "<think>m</think>x", "z"), Note("b", "3", "x"),
        Note("b", "4", "v", "w"),
    )  # fmt: skip
    scrub = Scrub(notes, ("a", "b", "c"), Report(5, 2, 4, {}, {}, {}), "d")
    base: Any = None
    assert people.preferences(scrub, base, None, max_tokens=9) == (
        (("x", "z"),),
        (("x", "y"), ("v", "w")),
        (),
    )
    plain = Scrub((Note("a", "1", "x"),), ("a",), Report(1, 1, 1, {}, {}, {}), "d")
    with pytest.raises(ClientError, match="no record has a chosen and a rejected answer"):
        people.preferences(plain, base, None, max_tokens=9)


def test_the_log_gets_a_commitment_that_says_nothing_without_its_salt(
    federation: Callable[..., Any],
) -> None:
    site = federation(["clinic-a"]).sites["clinic-a"]
    report = people.scrub(_reading(_record("p", "call 12")), Tool()).report
    first = people.keep_report(site, report)
    path = people.report_path(site)
    assert path.stat().st_mode & 0o077 == 0
    kept = json.loads(path.read_text())
    assert kept["report"] == report.document()
    assert people.keep_report(site, report) != first


def test_the_review_file_is_private_and_shows_both_sides(
    federation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = federation(["clinic-a"]).sites["clinic-a"]
    site.data.write_text(
        "".join(
            json.dumps({"instruction": f"call {n}", "response": "desk", "unit_id": f"p{n}"}) + "\n"
            for n in range(5)
        )
        + "not json\n"
    )
    monkeypatch.setattr(people, "scrubber", lambda folder: Tool())
    out = tmp_path / "review.jsonl"
    report = review.dry_run(site, sample=3, out=out).report
    assert out.stat().st_mode & 0o077 == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3
    assert all(row["after"] == "call #" and "before" in row for row in rows)
    assert report.faults
    assert site.ledger().rows("all") == ()
    with pytest.raises(ClientError, match="folder"):
        review.dry_run(site, sample=1, out=tmp_path)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.scrub.Scrubber.load", lambda **_: Tool())


def _stream(source: str) -> list[dict[str, Any]]:
    lines = deid.stream(source, profile="clinical", language="auto")
    return [json.loads(line) for line in lines]


def test_texts_stream_through_in_order(
    tool: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ['{"text": "call 12"}', '{"text": "BAD", "person": "p"}', '{"text": ""}']
    (tmp_path / "in").write_text("\n".join(texts) + "\n")
    expected = [
        {"text": "call ##", "quarantined": False,
         "spans": [{"start": 5, "end": 6, "type": "ID"}, {"start": 6, "end": 7, "type": "ID"}]},
        {"text": None, "spans": [], "quarantined": "residual"},
        {"text": "", "spans": [], "quarantined": False},
    ]  # fmt: skip
    assert _stream(str(tmp_path / "in")) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    assert _stream("-") == expected


def test_more_lines_than_a_batch_all_come_out(tool: None, tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("".join(json.dumps({"text": f"n {n}"}) + "\n" for n in range(600)))
    assert len(_stream(str(path))) == 600


@pytest.mark.parametrize("bad", ["zqsecret", "[]", '{"texts": "zqsecret"}', '{"text": 5}', "null",
                                 '{"text": "a", "person": ["zqsecret"]}'])  # fmt: skip
def test_a_bad_line_is_held_back_and_the_others_go_on(tool: None, tmp_path: Path, bad: str) -> None:
    (tmp_path / "in").write_text('{"text": "fine"}\n' + bad + '\n{"text": "fine"}\n')
    first, held, last = _stream(str(tmp_path / "in"))
    assert (first["quarantined"], last["quarantined"]) == (False, False)
    assert (held["text"], held["spans"]) == (None, [])
    assert held["quarantined"] in ("not-json", "no-text", "bad-person")
    assert "zqsecret" not in json.dumps(held)
    with pytest.raises(ClientError, match="cannot be opened"):
        _stream(str(tmp_path / "none"))
