"""De-identify a file in its own form, without an institution's folder.

Lines of {"text"[, "person"]} become lines of {"text", "spans", "quarantined"}; every other form
comes out as it went in. What is held back is left out there and named by its number.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

from client import form_csv, form_fhir, form_hl7, form_json, forms, redact
from client.errors import ClientError
from client.forms import TEXT, Cell, Form, FormError
from client.redact import Redacted
from privacy.errors import Quarantined
from privacy.surrogates import Surrogates

Format = Literal["auto", "jsonl", "json", "csv", "hl7", "fhir", "text"]
FORMATS: Final = ("auto", "jsonl", "json", "csv", "hl7", "fhir", "text")
_SUFFIXES: Final[Mapping[str, Format]] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".hl7": "hl7",
    ".txt": "text", ".md": "text", ".html": "text", ".htm": "text", ".xml": "text", ".cda": "text",
}  # fmt: skip
_BATCH: Final = 256
_CHUNK: Final = 15_000
_MAX_LINE: Final = 1 << 20
_BREAK: Final = re.compile(r"\n\s*\n|\n|(?<=[.!?。!?;;])\s*|\s")

Scrub = Callable[..., Iterator[Redacted | Quarantined]]


@dataclass(frozen=True, slots=True)
class Held:
    """A piece that is not in the output: its number in the file, and a fixed code."""

    number: int
    code: str


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a file: a document, or the code of why there is none."""

    number: int
    form: Form | str = field(repr=False)
    person: str | None = field(default=None, repr=False)
    known: Mapping[str, str] = field(default_factory=dict, repr=False)


def stream(
    source: str,
    *,
    profile: Literal["clinical", "strict"],
    language: Literal["en", "zh", "auto"],
    form: Format = "auto",
    held: Callable[[Held], None] | None = None,
) -> Iterator[str]:
    """Yield the output, piece by piece, in order; a piece ends without a line end.

    Args:
        source: a file, or "-" for standard input.
        profile: which identifiers count.
        language: of the texts.
        form: of the file; "auto" goes by its ending, then by its beginning.
        held: told of each piece that is left out.

    Yields:
        For lines of {"text"}: {"text", "spans": [{"start", "end", "type"}], "quarantined"} with
        spans in code points of the input; a quarantined line has null text and its reason, a line
        that is no such object is quarantined as "not-json", "not-utf-8", "no-text" or
        "bad-person". For anything else: the scrubbed documents in the form of the input.

    Surrogates are consistent within one call and unlinkable between calls: the key is fresh.

    Raises:
        ClientError: the source cannot be opened, or is not of its form.
    """
    from privacy.scrub import Scrubber

    key = secrets.token_bytes(32)
    tool, surrogates = (
        Scrubber.load(profile=profile, language=language, secret=key),
        Surrogates(key),
    )

    def scrub(pieces: list[Piece]) -> Iterator[Redacted | Quarantined]:
        return redact.redact(
            [cast(Form, piece.form) for piece in pieces],
            [piece.person or f"line-{piece.number}" for piece in pieces],
            tool=tool, surrogates=surrogates, strict=profile == "strict",
            known=[piece.known for piece in pieces],
        )  # fmt: skip

    with _open(source) as file:
        chosen = _choose(source, file) if form == "auto" else form
        if chosen == "jsonl":
            texts = _has_texts(file)
            lines = enumerate(iter(lambda: file.readline(_MAX_LINE + 1), b""), start=1)
            pieces = (
                _line(number, line, texts, file) for number, line in lines if texts or line.strip()
            )
            for piece, outcome in _run(pieces, scrub):
                if texts:
                    yield json.dumps(_answer(outcome), ensure_ascii=False)
                elif isinstance(outcome, Redacted):
                    yield outcome.text
                elif held:
                    held(Held(piece.number, outcome.code))
        else:
            yield from _whole(source, file, chosen, scrub, held or (lambda _: None))


def _run(pieces: Iterator[Piece], scrub: Scrub) -> Iterator[tuple[Piece, Redacted | Quarantined]]:
    while batch := list(islice(pieces, _BATCH)):
        done = scrub([piece for piece in batch if isinstance(piece.form, Form)])
        for piece in batch:
            held = isinstance(piece.form, str)
            yield piece, Quarantined(str(piece.form)) if held else next(done)


def _open(source: str) -> BinaryIO:
    if source == "-":
        return sys.stdin.buffer
    try:
        return open(source, "rb", buffering=1 << 20)
    except OSError:
        raise ClientError(f"{source} cannot be opened; check the path", code="no-file") from None


def _head(file: BinaryIO) -> bytes:
    """The beginning of a file, without taking it away."""
    if isinstance(file, io.BufferedReader):
        return file.peek(1 << 16)
    at = file.tell()
    head = file.read(1 << 16)
    file.seek(at)
    return head


def _choose(source: str, file: BinaryIO) -> Format:
    """The form of a file, by its ending, else by how it begins."""
    suffix = Path(source).suffix.lower()
    if source != "-" and suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    head = _head(file).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if form_hl7.looks_like(head):
        return "hl7"
    first = head.partition("\n")[0].strip()
    if head[:1] in {"{", "["}:
        whole = suffix == ".json" or (suffix != ".jsonl" and not _is_object(first))
        return "json" if whole and not (_is_object(first) and "\n{" in head) else "jsonl"
    table = form_csv.table(first)
    if table.header is not None and len(table.header) > 1:
        return "csv"
    return "jsonl" if re.search(r"(?m)^\s*\{", head) else "text"


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _has_texts(file: BinaryIO) -> bool:
    """Say whether lines are {"text": ...}; an empty or broken beginning counts as such."""
    seen = False
    for line in _head(file).splitlines()[:200]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            seen = True
            if isinstance(value.get("text"), str):
                return True
    return not seen


def _line(number: int, line: bytes, texts: bool, file: BinaryIO) -> Piece:
    """One line of JSON as a document, or why it is held back."""
    if len(line) > _MAX_LINE:
        while line and not line.endswith(b"\n"):
            line = file.readline(_MAX_LINE + 1)
        return Piece(number, "too-long")
    try:
        source = line.decode("utf-8-sig").strip()
        values = form_json.parse(source)
    except UnicodeDecodeError:
        return Piece(number, "not-utf-8")
    except FormError as fault:
        return Piece(number, fault.code)
    if not texts:
        return _document(number, source, values)
    if not isinstance(values, dict) or not isinstance(values.get("text"), str):
        return Piece(number, "no-text")
    person = values.get("person")
    if isinstance(person, bool) or not isinstance(person, str | int | None):
        return Piece(number, "bad-person")
    rest = {name: str(value) for name, value in values.items()
            if name not in {"text", "person"} and isinstance(value, str | int)
            and not isinstance(value, bool)}  # fmt: skip
    who = None if person in (None, "") else str(person)
    return Piece(number, redact.embedded(values["text"]), who, rest)


def _document(number: int, source: str, tree: Any) -> Piece:
    try:
        fhir = form_fhir.looks_like(tree)
        made = form_fhir.read(source, tree=tree) if fhir else form_json.read(source, tree=tree)
    except FormError as fault:
        return Piece(number, fault.code)
    return Piece(number, made, made.person)


def _whole(
    source: str, file: BinaryIO, form: Format, scrub: Scrub, held: Callable[[Held], None]
) -> Iterator[str]:
    """A file that is read as a whole: CSV, HL7, JSON, FHIR, or text."""
    raw = file.read(4 * forms.MAX_CHARACTERS + 1)
    if len(raw) > 4 * forms.MAX_CHARACTERS:
        raise ClientError(f"{source} is too large; divide it", code="too-large")
    try:
        text = raw.decode("utf-8-sig", "surrogateescape" if form == "csv" else "strict")
    except UnicodeDecodeError:
        raise ClientError(
            f"{source} is not UTF-8; convert it and try again", code="not-utf-8"
        ) from None
    if not text.strip():
        raise ClientError(f"{source} is empty; give a file with something in it", code="empty")
    try:
        if form == "csv":
            yield from _csv(text, scrub, held)
        elif form == "hl7":
            yield from _hl7(text, scrub, held)
        elif form == "text":
            yield from _text(text, scrub, held)
        else:
            yield from _json(text, form, scrub, held)
    except FormError as fault:
        raise ClientError(
            f"{source} is not what it was taken for ({fault.code}); name its form with --format",
            code=fault.code,
        ) from None


def _csv(text: str, scrub: Scrub, held: Callable[[Held], None]) -> Iterator[str]:
    kind = form_csv.table(re.split(r"[\r\n]", text, maxsplit=1)[0])
    if kind.header is not None:
        yield kind.write(kind.header).rstrip("\n")
    rows = form_csv.rows(iter(io.StringIO(text, newline="")), kind)

    def pieces() -> Iterator[Piece]:
        for number, row in enumerate(rows, start=1):
            if isinstance(row, FormError):
                yield Piece(number, row.code)
                continue
            made = form_csv.read(row, kind)
            yield Piece(number, made, made.person)

    for piece, outcome in _run(pieces(), scrub):
        if isinstance(outcome, Quarantined):
            held(Held(piece.number, outcome.code))
        else:
            yield kind.write(form_csv.split(outcome.text)).rstrip("\n")


def _hl7(text: str, scrub: Scrub, held: Callable[[Held], None]) -> Iterator[str]:
    def pieces() -> Iterator[Piece]:
        for number, message in enumerate(form_hl7.messages(text), start=1):
            made = form_hl7.read(message)
            yield Piece(number, made, made.person)

    out = []
    for piece, outcome in _run(pieces(), scrub):
        if isinstance(outcome, Quarantined):
            held(Held(piece.number, outcome.code))
        else:
            out.append(outcome.text)
    yield "".join(out).removesuffix("\n")


def _json(text: str, form: Format, scrub: Scrub, held: Callable[[Held], None]) -> Iterator[str]:
    tree = form_json.parse(text)
    if form == "fhir" and not form_fhir.looks_like(tree):
        raise FormError("not-fhir")
    if not isinstance(tree, list):
        for _, outcome in _run(iter([_document(1, text.strip(), tree)]), scrub):
            if isinstance(outcome, Redacted):
                yield outcome.text
            else:
                held(Held(1, outcome.code))
        return
    items = (_document(number, json.dumps(item, ensure_ascii=False), item)
             for number, item in enumerate(tree, start=1))  # fmt: skip
    lead = "["
    for piece, outcome in _run(items, scrub):
        if isinstance(outcome, Redacted):
            yield f"{lead}\n{outcome.text}" if lead == "[" else f",\n{outcome.text}"
            lead = ","
        else:
            held(Held(piece.number, outcome.code))
    yield "]" if lead == "," else "[]"


def _text(text: str, scrub: Scrub, held: Callable[[Held], None]) -> Iterator[str]:
    made = Form(text, tuple(_chunks(text)))
    for _, outcome in _run(iter([Piece(1, made)]), scrub):
        if isinstance(outcome, Redacted):
            yield outcome.text.removesuffix("\n")
        else:
            held(Held(1, outcome.code))


def _chunks(text: str) -> Iterator[Cell]:
    """Divide a long text where it pauses, so that no name is cut."""
    at = 0
    while at < len(text):
        end = len(text)
        if end - at > _CHUNK:
            breaks = [match.end() for match in _BREAK.finditer(text, at + _CHUNK // 2, at + _CHUNK)]
            paragraphs = [spot for spot in breaks if text[spot - 1] == "\n"]
            end = (paragraphs or breaks or [at + _CHUNK])[-1]
        yield Cell(at, end, text[at:end], TEXT, "text")
        at = max(end, at + 1)


def _answer(outcome: Redacted | Quarantined) -> dict[str, Any]:
    if isinstance(outcome, Quarantined):
        return {"text": None, "spans": [], "quarantined": outcome.code}
    return {
        "text": outcome.text,
        "spans": [{"start": p.start, "end": p.end, "type": p.type} for p in outcome.spans],
        "quarantined": False,
    }
