"""Made-up people and their notes, with every identifier's place known.

The task is one that a small model can learn from few records: say which desk should handle a
hospital's triage note or a bank customer's message. No record is about anyone: telephone numbers
come from the 555 exchange, mail hosts from RFC 2606, SSN areas and Chinese region codes from ranges
that are not allotted. The seed repeats a data set; it reaches no privacy noise.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from string import Formatter
from typing import Final, Literal, Protocol

from demo import lexicon, lexicon_zh

Kind = Literal["hospital", "bank"]
Language = Literal["en", "zh"]
Part = Literal["train", "heldout"]

LABELS: Final = lexicon.LABELS
"""Desk words of each kind; the joint task is their union."""

_TYPES: Final = {
    "name": "PERSON",
    "surname": "PERSON",
    "doctor": "PERSON",
    "relative": "PERSON",
    "phone": "PHONE_NUMBER",
    "email": "EMAIL_ADDRESS",
    "address": "ADDRESS",
    "record": "RECORD_NUMBER",
    "iban": "IBAN_CODE",
    "card": "CREDIT_CARD",
    "national": "NATIONAL_ID",
    "date": "DATE_TIME",
    "birth": "DATE_TIME",
}
_FIRST_DAY: Final = date(2023, 1, 2)


@dataclass(frozen=True, slots=True)
class Identifier:
    """One identifier: code points [start, end) of the instruction, its type, and its text."""

    start: int
    end: int
    type: str
    value: str


@dataclass(frozen=True, slots=True)
class Note:
    """One record: the question with its text, the right desk, and the identifiers in the text."""

    instruction: str
    response: str
    identifiers: tuple[Identifier, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """One made-up person, the unit of privacy, with one to six notes."""

    key: str
    notes: tuple[Note, ...]


class Covered(Protocol):
    """Anything with a start and an end, such as a span that the scrub reports."""

    @property
    def start(self) -> int:
        """First code point."""

    @property
    def end(self) -> int:
        """One past the last code point."""


@dataclass(frozen=True, slots=True)
class _Words:
    question: str
    findings: dict[str, tuple[str, ...]]
    openings: tuple[str, ...]
    details: tuple[str, ...]
    join: str


@dataclass(slots=True)
class _Identity:
    """What stays the same over a person's notes; dates and doctors are drawn per note."""

    values: dict[str, str] = field(default_factory=dict)


def persons(
    kind: Kind,
    *,
    count: int,
    language: Language = "en",
    seed: int,
    part: Part = "train",
) -> Iterator[Person]:
    """Yield `count` people with one to six notes each.

    Args:
        kind: whose records: a hospital's triage notes or a bank's customer messages.
        count: number of people, at least 0.
        language: language of the notes; the desk words are the same in both.
        seed: same arguments, same people.
        part: "heldout" uses combinations of finding, opening, detail and of given name and
            surname that "train" never uses.

    Guarantees: `note.instruction[i.start:i.end] == i.value` for each identifier; no text of one
        part occurs in the other; keys are unique within (kind, language, seed, part).
    """
    words = _words(kind, language)
    for index in range(count):
        # One stream per person: asking for more people leaves the first ones as they were.
        draw = random.Random(f"{kind}/{language}/{part}/{seed}/{index}")  # noqa: S311
        identity = _identity(draw, language, part)
        # Most people have few notes, some have many, as in real registers.
        size = draw.choices(range(1, 7), weights=(5, 5, 4, 3, 2, 1))[0]
        notes = tuple(_note(draw, words, identity, kind, language, part) for _ in range(size))
        yield Person(f"{kind[0]}{part[0]}-{language}-{seed}-{index:05d}", notes)


def write_jsonl(path: Path, people: Iterable[Person], institution: str) -> int:
    """Write one JSON object a note, in the shape that an institution's reader takes.

    Args:
        path: file to write; replaced if it exists.
        people: whose notes to write, in this order.
        institution: name that goes into each record.

    Returns:
        The number of records written.
    """
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for person in people:
            for note in person.notes:
                row = {
                    "instruction": note.instruction,
                    "response": note.response,
                    "category": note.response,
                    "unit_id": person.key,
                    "institution": institution,
                    "identifiers": [[i.start, i.end, i.type] for i in note.identifiers],
                }
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                written += 1
    return written


def caught_share(notes: Sequence[Note], spans: Sequence[Sequence[Covered]]) -> float:
    """Say which share of the known identifiers was fully covered.

    An identifier counts as caught if every letter and digit of it lies in the union of the spans.

    Args:
        notes: notes with known identifiers.
        spans: for each note the spans that were replaced in its instruction.

    Raises:
        ValueError: the lengths differ, or there is no identifier to catch.
    """
    known = caught = 0
    for note, found in zip(notes, spans, strict=True):
        covered = {at for span in found for at in range(span.start, span.end)}
        for item in note.identifiers:
            known += 1
            caught += all(
                at in covered or not note.instruction[at].isalnum()
                for at in range(item.start, item.end)
            )
    if not known > 0:
        raise ValueError("no identifier is known in these notes, so no share can be given")
    return caught / known


def _words(kind: Kind, language: Language) -> _Words:
    if language == "zh":
        table, join = lexicon_zh, ""
        return _Words(
            table.QUESTION, table.FINDINGS[kind], table.OPENINGS[kind], table.DETAILS[kind], join
        )
    return _Words(
        lexicon.QUESTION,
        lexicon.FINDINGS[kind],
        lexicon.OPENINGS[kind],
        lexicon.DETAILS[kind],
        " ",
    )


def _note(
    draw: random.Random,
    words: _Words,
    identity: _Identity,
    kind: Kind,
    language: Language,
    part: Part,
) -> Note:
    desk = draw.choice(LABELS[kind])
    findings = words.findings[desk]
    while True:
        finding = draw.randrange(len(findings))
        opening = draw.randrange(len(words.openings))
        detail = draw.randrange(len(words.details))
        # A quarter of all combinations is set aside; every word of them occurs in training too.
        if ((finding + opening + detail) % 4 == 3) is (part == "heldout"):
            break
    template = words.join.join(
        (words.question, words.openings[opening], words.details[detail]),
    )
    # No surrogate of one slot may depend on the order of another: draw all, use some.
    values = {
        **identity.values,
        "finding": findings[finding],
        "date": _date(draw, _FIRST_DAY + timedelta(days=draw.randrange(900)), language),
        "doctor": _name(draw, language, part)[1 if language == "en" else 0],
    }
    text, identifiers = _fill(template, values)
    return Note(text, desk, identifiers)


def _fill(template: str, values: dict[str, str]) -> tuple[str, tuple[Identifier, ...]]:
    text, identifiers = "", []
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot is None:
            continue
        value = values[slot]
        if slot in _TYPES:
            identifiers.append(
                Identifier(len(text), len(text) + len(value), _TYPES[slot], value),
            )
        text += value
    return text, tuple(identifiers)


def _name(draw: random.Random, language: Language, part: Part) -> tuple[str, str]:
    """Return a full name and its surname; the two parts share no full name."""
    table = lexicon_zh if language == "zh" else lexicon
    while True:
        given, surname = draw.randrange(len(table.GIVEN)), draw.randrange(len(table.SURNAMES))
        if ((given + surname) % 4 == 3) is (part == "heldout"):
            break
    if language == "zh":
        return table.SURNAMES[surname] + table.GIVEN[given], table.SURNAMES[surname]
    return f"{table.GIVEN[given]} {table.SURNAMES[surname]}", table.SURNAMES[surname]


def _identity(draw: random.Random, language: Language, part: Part) -> _Identity:
    name, surname = _name(draw, language, part)
    birth = date(1935, 1, 1) + timedelta(days=draw.randrange(30_000))
    values = {
        "name": name,
        "surname": surname,
        "relative": _name(draw, language, part)[0],
        "birth": _date(draw, birth, language),
        "record": _digits(draw, draw.choice((6, 7, 8))),
        "card": _card(draw),
        "iban": _iban(draw),
    }
    if language == "zh":
        values["phone"] = f"{draw.choice(lexicon_zh.MOBILES)}0000{_digits(draw, 4)}"
        values["email"] = f"user{_digits(draw, 5)}@{draw.choice(lexicon_zh.MAIL_HOSTS)}"
        place, number = draw.choice(lexicon_zh.PLACES), draw.randrange(1, 400)
        values["address"] = f"{place}{number}号"
        values["national"] = _chinese_id(draw, birth)
    else:
        first, last = name.lower().split(" ")
        area, line = draw.choice(lexicon.AREAS), _digits(draw, 4)
        style = draw.choice(("{a}-555-{n}", "({a}) 555-{n}", "+1 {a} 555 {n}", "{a}.555.{n}"))
        values["phone"] = style.format(a=area, n=line)
        mark = draw.choice((f"{first}.{last}", f"{first[0]}{last}{_digits(draw, 2)}"))
        values["email"] = f"{mark}@{draw.choice(lexicon.MAIL_HOSTS)}"
        street, town = draw.choice(lexicon.STREETS), draw.choice(lexicon.TOWNS)
        values["address"] = f"{draw.randrange(1, 999)} {street}, {town}"
        values["national"] = f"666-{_digits(draw, 2)}-{_digits(draw, 4)}"
    return _Identity(values)


def _digits(draw: random.Random, count: int) -> str:
    return str(draw.randrange(1, 10)) + "".join(str(draw.randrange(10)) for _ in range(count - 1))


def _date(draw: random.Random, day: date, language: Language) -> str:
    if language == "zh":
        return draw.choice(
            (f"{day.year}年{day.month}月{day.day}日", day.isoformat()),
        )
    return draw.choice(
        (
            day.isoformat(),
            f"{day:%B} {day.day}, {day.year}",
            f"{day:%m/%d/%Y}",
            f"{day.day} {day:%b} {day.year}",
        )
    )


def _card(draw: random.Random) -> str:
    body = "4000" + _digits(draw, 11)
    number = body + _luhn(body)
    return draw.choice((number, " ".join(number[i : i + 4] for i in range(0, 16, 4))))


def _luhn(body: str) -> str:
    """Return the check digit of ISO/IEC 7812-1 annex B."""
    doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(body))]
    return str(-sum(n // 10 + n % 10 for n in doubled) % 10)


def _iban(draw: random.Random) -> str:
    """Return a German-form IBAN with the check digits of ISO 13616 (ISO 7064 mod 97-10)."""
    account = _digits(draw, 18)
    check = 98 - int(account + "131400") % 97  # "DE00" as numbers: D = 13, E = 14
    iban = f"DE{check:02d}{account}"
    return draw.choice((iban, " ".join(iban[i : i + 4] for i in range(0, 22, 4))))


def _chinese_id(draw: random.Random, birth: date) -> str:
    """Return an 18-character number with the check character of GB 11643 (ISO 7064 mod 11-2)."""
    body = draw.choice(lexicon_zh.REGIONS) + f"{birth:%Y%m%d}" + f"{draw.randrange(1, 999):03d}"
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(body))
    return body + "10X98765432"[total % 11]
