from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from demo import generate
from privacy.checksums import chinese_id, iban, luhn

KINDS: tuple[Literal["hospital", "bank"], ...] = ("hospital", "bank")
LANGUAGES: tuple[Literal["en", "zh"], ...] = ("en", "zh")


def notes(kind, *, count=150, **options):
    return [note for p in generate.persons(kind, count=count, **options) for note in p.notes]


@dataclass(frozen=True)
class At:
    start: int
    end: int


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_identifier_stands_where_it_is_said_to_stand(kind, language):
    found = notes(kind, language=language, seed=3)
    for note in found:
        assert 1 <= len(note.identifiers) <= 4
        for item in note.identifiers:
            assert note.instruction[item.start : item.end] == item.value
            assert item.value.strip() == item.value != ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_texts_and_names_never_occur_in_training(kind, language):
    train = notes(kind, language=language, seed=3, part="train")
    held = notes(kind, language=language, seed=3, part="heldout")
    assert not {n.instruction for n in train} & {n.instruction for n in held}

    def people(found):
        return {
            i.value for n in found for i in n.identifiers if " " in i.value and i.type == "PERSON"
        }

    assert not people(train) & people(held)


@pytest.mark.parametrize("kind", KINDS)
def test_every_desk_occurs_and_none_dominates(kind):
    found = notes(kind, seed=3)
    share = {d: sum(n.response == d for n in found) / len(found) for d in generate.LABELS[kind]}
    assert set(share) == {n.response for n in found}
    assert max(share.values()) < 0.25


def test_desk_words_are_single_lower_case_words_and_differ_between_kinds():
    words = [word for labels in generate.LABELS.values() for word in labels]
    assert all(word.isalpha() and word.islower() for word in words)
    assert len(set(words)) == len(words) == 12


def test_the_same_seed_gives_the_same_people_and_another_seed_others():
    def dump(seed):
        return list(generate.persons("bank", count=20, seed=seed))

    assert dump(1) == dump(1)
    assert dump(1) != dump(2)
    assert dump(1) == list(generate.persons("bank", count=40, seed=1))[:20]


def test_texts_are_short_and_mostly_different():
    found = [n.instruction for n in notes("hospital", seed=3)]
    assert max(map(len, found)) < 260
    assert len(set(found)) > 0.98 * len(found)


@pytest.mark.parametrize(
    ("kind", "language", "type_", "check"),
    [
        ("bank", "en", "CREDIT_CARD", luhn),
        ("bank", "en", "IBAN_CODE", iban),
        ("bank", "zh", "NATIONAL_ID", chinese_id),
    ],
)
def test_numbers_carry_a_checksum_that_holds(kind, language, type_, check):
    values = {
        i.value
        for n in notes(kind, language=language, seed=3)
        for i in n.identifiers
        if i.type == type_
    }
    assert len(values) > 5
    for value in values:
        assert check(value)
        last = value[-1]
        assert not check(value[:-1] + ("1" if last != "1" else "2")), "the check can fail"


def test_a_person_keeps_one_name_over_all_notes():
    for person in generate.persons("hospital", count=40, seed=5):
        cards = {i.value for n in person.notes for i in n.identifiers if i.type == "RECORD_NUMBER"}
        assert len(cards) <= 1
        assert 1 <= len(person.notes) <= 6


def test_keys_are_unique():
    keys = [
        p.key
        for kind in KINDS
        for language in LANGUAGES
        for part in ("train", "heldout")
        for p in generate.persons(kind, count=30, language=language, seed=1, part=part)
    ]
    assert len(set(keys)) == len(keys)


def test_the_written_file_has_one_record_a_note(tmp_path: Path):
    people = list(generate.persons("hospital", count=10, seed=1))
    path = tmp_path / "records.jsonl"
    assert generate.write_jsonl(path, people, "st-elsewhere") == sum(len(p.notes) for p in people)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [row["unit_id"] for row in rows] == [p.key for p in people for _ in p.notes]
    assert rows[0]["institution"] == "st-elsewhere"
    assert rows[0]["category"] == rows[0]["response"]
    start, end, type_ = rows[0]["identifiers"][0]
    first = people[0].notes[0].identifiers[0]
    assert (rows[0]["instruction"][start:end], type_) == (first.value, first.type)


def test_the_caught_share_counts_only_whole_identifiers():
    note = next(n for n in notes("hospital", seed=3) if len(n.identifiers) >= 2)
    spans = [At(i.start, i.end) for i in note.identifiers]
    assert generate.caught_share([note], [spans]) == 1.0
    assert generate.caught_share([note], [[]]) == 0.0
    short = [At(spans[0].start, spans[0].end - 1), *spans[1:]]
    assert generate.caught_share([note], [short]) < 1.0


def test_no_share_is_given_where_nothing_is_known():
    with pytest.raises(ValueError, match="no identifier"):
        generate.caught_share([], [])
    with pytest.raises(ValueError, match="zip"):
        generate.caught_share([], [[]])
