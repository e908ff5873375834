"""Scrub whole documents: typed cells as what they are, the rest as text that knows those cells.

What the typed cells of a document hold, its names, numbers and addresses, is looked for in its text
cells. A document in which one cell can't be scrubbed, or in whose text a typed value still stands,
is held back whole.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from client import columns, form_csv, form_fhir, form_hl7, form_json
from client.clean import Cleaned, clean
from client.forms import ATTACHMENT, REFERENCE, TEXT, Cell, Form, FormError
from privacy import naming
from privacy.errors import Quarantined
from privacy.normalise import normalise
from privacy.surrogates import Alias, Surrogates, count_han

_HARMLESS: Final = re.compile(r"[\W_]*|-?\d{1,5}(?:[.,]\d{1,4})?|[A-Za-z]")
_COMPACT: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(\d{2,6}(?:\.\d{1,6})?)?([+-]\d{4})?")
_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d)([T ]\d\d:.*)")
_MONTH: Final = re.compile(r"(\d{4})(?:-(\d\d))?")
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_TURNED: Final = re.compile(r"([^,]{1,80}),\s*([^,]{1,80})")
_EVERYBODY: Final = "\x00references"


class Reader(Protocol):
    """What scrubs texts: `privacy.scrub.Scrubber`, or a stand-in in tests."""

    def scrub_many(self, texts: Sequence[str], persons: Sequence[str]) -> Iterator[Any]:
        """Yield for each text a `Scrubbed` or a `Quarantined`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A span of an output's source: [start, end) of the input, and its type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Redacted:
    """One document without the identifiers that were found in it.

    Attributes:
        text: the document, in the form that it had.
        spans: where identifiers stood, in code points of the input, disjoint and in order.
        counts: how many of each type, whether by the schema or by the scrubber.
    """

    text: str = field(repr=False)
    spans: tuple[Place, ...]
    counts: Mapping[str, int]


def embedded(text: str) -> Form:
    """A text as a document: HL7 or JSON where that is what it holds, else one cell of text."""
    try:
        if form_hl7.looks_like(text):
            return form_hl7.read(text)
        if text.lstrip()[:1] in {"{", "["}:
            tree = form_json.parse(text)
            known = form_fhir.looks_like(tree)
            return form_fhir.read(text, tree=tree) if known else form_json.read(text, tree=tree)
        if (table := form_csv.embedded(text)) is not None:
            return table
    except FormError:
        pass
    return Form(text, (Cell(0, len(text), text, TEXT, "text"),))


def many(
    tool: Reader,
    texts: Sequence[str],
    persons: Sequence[str],
    known: Sequence[Mapping[str, str]] | None = None,
) -> Iterator[Any]:
    """Run `scrub_many` with what each record's own columns say, if the reader makes use of it."""
    scrub: Callable[..., Iterator[Any]] = tool.scrub_many
    if known is None or not any(known) or "known" not in inspect.signature(scrub).parameters:
        return scrub(texts, persons)
    return scrub(texts, persons, known=known)


def redact(
    documents: Iterable[Form], persons: Iterable[str], *, tool: Reader, surrogates: Surrogates,
    strict: bool, known: Sequence[Mapping[str, str]] | None = None,
) -> Iterator[Redacted | Quarantined]:  # fmt: skip
    """Yield each document without its identifiers, or why it is held back, in order.

    Args:
        documents: one batch.
        persons: whose each is.
        tool: reads the text cells, all of the batch at once.
        surrogates: the institution's, the same that `tool` uses.
        strict: whether a bare year and every age are replaced too.
        known: for each document what its record says elsewhere, value by name of the column.
    """
    work = [_Work(form, person) for form, person in zip(documents, persons, strict=True)]
    for item, more in zip(work, known or (), strict=known is not None):
        item.known |= more
    texts = [(item, cell) for item in work for cell in item.texts]
    outcomes = many(
        tool,
        [cell.text for _, cell in texts],
        [item.person for item, _ in texts],
        [item.known for item, _ in texts],
    )
    for (item, _), outcome in zip(texts, outcomes, strict=True):
        item.outcomes.append(outcome)
    for item in work:
        try:
            yield item.finish(surrogates, strict)
        except Quarantined as held:
            yield Quarantined(held.code)
        except Exception:
            yield Quarantined("detector-failed")


class _Work:
    """One document on its way."""

    def __init__(self, form: Form, person: str) -> None:
        self.form, self.person = form, person
        self.fault: str | None = None
        self.typed = [cell for cell in form.cells if cell.role != TEXT]
        self.known = _known(self.typed)
        self.at: list[tuple[Cell, Cleaned]] = []
        self.outcomes: list[Any] = []
        for cell in form.cells:
            if cell.role == TEXT and not _HARMLESS.fullmatch(cell.text):
                try:
                    self.at.append((cell, clean(cell.text)))
                except Quarantined as held:
                    self.fault = held.code

    @property
    def texts(self) -> list[Cleaned]:
        """The texts to scrub; none if the document is held back anyway."""
        return [] if self.fault else [cleaned for _, cleaned in self.at]

    def finish(self, surrogates: Surrogates, strict: bool) -> Redacted:
        if self.fault is not None:
            raise Quarantined(self.fault)
        values: dict[int, str] = {}
        places: list[Place] = []
        for (cell, cleaned), outcome in zip(self.at, self.outcomes, strict=True):
            if isinstance(outcome, Quarantined):
                raise outcome
            _check_gone(self.typed, cleaned.text, outcome.spans)
            if outcome.text != cell.text:
                values[cell.start] = outcome.text
            for span in outcome.spans:
                start, end = cell.source(*cleaned.source(span.start, span.end))
                # What was decoded as a whole, an attachment, is one place.
                where = (start, end) if start < end else (cell.start, cell.end)
                places.append(Place(*where, span.type))
        alias, common = surrogates.of(self.person), surrogates.of(_EVERYBODY)
        names = _names(self.typed, alias)
        for cell in self.typed:
            new = names.get(cell.start)
            if new is None:
                new = replaced(common if cell.role == REFERENCE else alias, cell.role, cell.text,
                               strict=strict)  # fmt: skip
            if new != cell.text:
                values[cell.start] = new
                places.append(Place(*cell.source(0, len(cell.text)), cell.role))
        places.sort(key=lambda place: place.start)
        text = self.form.build([values.get(cell.start) for cell in self.form.cells])
        return Redacted(text, tuple(places), dict(Counter(place.type for place in places)))


def replaced(alias: Alias, role: str, value: str, *, strict: bool) -> str:
    """A typed value's fictitious one, in the form that the value had."""
    if role == ATTACHMENT:
        return "removed"
    if role == REFERENCE:
        return _reference(alias, value)
    if role == "COORDINATE":
        return "0"
    plain = normalise(value).text
    if role == "AGE":
        digits = re.search(r"\d+", plain)
        old = digits is not None and int(digits[0][:4]) >= 90
        return plain.replace(digits[0], "90") if digits and (old or strict) else value
    if role == "DATE_TIME":
        return _date(alias, plain, strict)
    if role == "PERSON" and (turned := _TURNED.fullmatch(plain)):
        # "Roe, Ann" is the same person as "Ann Roe" in a text.
        family, given = turned[1].split(), turned[2].split()
        words = alias.replace("PERSON", " ".join(given + family)).split(" ")
        if len(words) == len(given) + len(family):
            return f"{' '.join(words[len(given) :])}, {' '.join(words[: len(given)])}"
    return alias.replace(role, plain) if any(c.isalnum() for c in plain) else value


def _date(alias: Alias, value: str, strict: bool) -> str:
    """Shift a date in the ways that files write it; what is no date becomes a mark."""
    text = value.strip()
    if match := _COMPACT.fullmatch(text):
        made = alias.replace("DATE_TIME", f"{match[1]}-{match[2]}-{match[3]}")
        return made.replace("-", "") + (match[4] or "") + (match[5] or "")
    if match := _STAMP.fullmatch(text):
        return alias.replace("DATE_TIME", match[1]) + match[2]
    if match := _MONTH.fullmatch(text):
        if match[2] is None and not strict:
            return value
        made = alias.replace("DATE_TIME", f"{match[1]}-{match[2] or '07'}-15")
        return made[:7] if match[2] else made[:4]
    if match := re.fullmatch(r"(\d{4})(\d\d)", text):
        return alias.replace("DATE_TIME", f"{match[1]}-{match[2]}-15").replace("-", "")[:6]
    return alias.replace("DATE_TIME", text)


def _reference(alias: Alias, value: str) -> str:
    link = form_fhir.link(value)
    if link is None:
        return alias.replace("RECORD_NUMBER", value)
    before, bare, after = link
    # As many decimal digits as the id is long are an id too, and a UUID's shape holds.
    digits = iter(alias.replace("RECORD_NUMBER", "0" * 64 + bare))
    return before + "".join(next(digits) if c.isalnum() else c for c in bare) + after


def _names(typed: Iterable[Cell], alias: Alias) -> dict[int, str]:
    """Replace the parts of one name together, so that they agree with the name in a text."""
    groups: dict[int, list[Cell]] = {}
    for cell in typed:
        if cell.group:
            groups.setdefault(cell.group, []).append(cell)
    made: dict[int, str] = {}
    for cells in groups.values():
        given = [cell for cell in cells if cell.part == "given"]
        family = [cell for cell in cells if cell.part == "family"]
        if any(count_han(cell.text) for cell in cells):
            whole = alias.replace("PERSON", "".join(normalise(c.text).text for c in family + given))
            cut = len(whole) if not given else 2 if len(whole) > 3 else 1
            parts = [whole[:cut]] * len(family) + [whole[cut:] or whole] * len(given)
            made.update(zip((cell.start for cell in family + given), parts, strict=True))
            continue
        words = [normalise(cell.text).text.strip() for cell in given + family]
        fresh = alias.replace("PERSON", " ".join(words)).split(" ")
        if len(fresh) != len(" ".join(words).split(" ")):
            continue
        left = iter(fresh)
        for cell, word in zip(given + family, words, strict=True):
            made[cell.start] = " ".join(next(left) for _ in word.split(" "))
    return made


def _known(typed: Sequence[Cell]) -> dict[str, str]:
    """The document's own values, under names that tell the scrubber what they are."""
    found: dict[str, str] = {}
    groups: dict[int, dict[str, list[str]]] = {}
    for number, cell in enumerate(typed):
        if cell.group:
            parts = groups.setdefault(cell.group, {"given": [], "family": []})
            parts[cell.part].append(cell.text.strip())
        elif cell.role in columns.SAID and not _YEAR.fullmatch(cell.text.strip()):
            found[f"{columns.SAID[cell.role]} {number}"] = cell.text.strip()
    for group, parts in groups.items():
        han = any(count_han(text) for texts in parts.values() for text in texts)
        order = parts["family"] + parts["given"] if han else parts["given"] + parts["family"]
        found[f"name of {group}"] = ("" if han else " ").join(order)
    return found


def _check_gone(typed: Sequence[Cell], text: str, spans: Sequence[Any]) -> None:
    """Raise unless every mention of a typed name or number in a text lies in what was replaced."""
    copy = normalise(text)
    folded = naming.fold(copy.text)
    for cell in typed:
        if cell.role not in {"PERSON", "RECORD_NUMBER", "NATIONAL_ID", "PHONE_NUMBER", "IBAN_CODE",
                             "EMAIL_ADDRESS", "CREDIT_CARD"}:  # fmt: skip
            continue
        surface = normalise(cell.text).text.strip()
        if sum(c.isalnum() for c in surface) < 4 and count_han(surface) < 2:
            continue
        for at in naming.mentions(copy.text, folded, surface):
            start, end = copy.source(at, at + len(surface))
            if not any(span.start < end and start < span.end for span in spans):
                raise Quarantined("verify")
