"""Read an institution's records from JSON Lines, JSON, or CSV, and account for every one.

Known are `instruction`/`response` (with optional `context`), `input`/`output`, `messages` (a list
of `role`/`content`, the last one the assistant's), `prompt`/`completion`, and `chosen` beside
`prompt` or `instruction`. Optional in each: `rejected` (needed beside `chosen`), which makes a
preference; `category`, `institution`, and the person key, in a column that the site names.

A bad record is a fault with its line number and a fixed code; nothing is dropped in silence, and
no fault or error ever quotes a record.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from client.errors import ClientError

MAX_CHARACTERS: Final = 8_000
"""Longest instruction and response together, in code points; a longer record is a fault."""
MAX_LINE_BYTES: Final = 1 << 20
"""Longest physical line that is read at all; the rest of a longer one is passed over."""
DEFAULT_PERSON_COLUMN: Final = "unit_id"

SHAPES: Final = (
    ("instruction", "response"),
    ("input", "output"),
    ("prompt", "completion"),
    ("messages",),
    *((ask, "chosen", "rejected") for ask in ("instruction", "prompt")),
)
_WANTED: Final = "instruction+response, input+output, prompt+completion (or +chosen), or messages"
_DELIMITERS: Final = (",", ";", "\t")
TEXTS: Final = frozenset({name for shape in SHAPES for name in shape} | {"context", "institution"})
_UNKEYED: Final = re.compile(r"line:[0-9a-f]{64}")
_MAX_VALUE: Final = 200
_MAX_VALUES: Final = 32


@dataclass(frozen=True, slots=True)
class Record:
    """One record, as the institution holds it.

    Attributes:
        person: whose record it is, the unit of privacy.
        instruction: what the model is asked, with the context after a blank line if there is one.
        response: what it should answer.
        rejected: an answer that was found worse than `response`, in a record of a preference.
        category: the institution's own class, if any.
        institution: the name that the record itself carries, if any.
        line: where it stands, from 1: line of JSONL or CSV, position in a JSON array.
        columns: its other columns that hold a word or a number, such as the person's name; they
            are never trained on, and tell the scrub what to look for.
    """

    person: str = field(repr=False)
    instruction: str = field(repr=False)
    response: str = field(repr=False)
    category: str | None = field(repr=False)
    institution: str | None
    line: int
    columns: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    rejected: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """One record that could not be read.

    Attributes:
        line: where it stands, counted as in `Record`.
        code: one of not-utf-8, not-json, not-object, truncated, bad-row, unknown-columns,
            no-instruction, no-response, not-text, bad-person, too-long.
    """

    line: int
    code: str


@dataclass(frozen=True, slots=True)
class Reading:
    """All that one file held.

    Attributes:
        records: the usable records, in file order.
        faults: the others, in file order.
        unkeyed: how many of the records have no person key. Each of them counts as a person of
            its own, known by the digest of its content, so that equal records are one person.
        also: further persons, who count though nothing of them may be used.
    """

    records: tuple[Record, ...] = field(repr=False)
    faults: tuple[Fault, ...]
    unkeyed: int
    also: tuple[str, ...] = field(default=(), repr=False)


class _RecordError(Exception):
    """A record that becomes a fault; carries the code and nothing else."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Row:
    """One parsed object and where it stands, or the code of why there is none."""

    line: int
    value: Any = field(repr=False)
    code: str | None = None


def read(path: Path, *, person_column: str = DEFAULT_PERSON_COLUMN) -> Reading:
    """Read every record of a file.

    Args:
        path: a .jsonl, .ndjson, .json, or .csv file in UTF-8, with or without a byte order mark.
        person_column: the column that holds the person key.

    Guarantees: each non-blank line (JSONL), item (JSON), or row (CSV) is either a record or a
        fault; memory grows with the usable records, not with the longest line.

    Raises:
        ClientError: the file is missing, empty, or unreadable; is of an unknown kind; has no
            usable record; has columns of no known shape; or lacks a person column that the
            site named itself. Exit code 2.
    """
    return gather(parse(path), path, person_column=person_column)


def gather(
    rows: Iterable[Row], path: Path, *, person_column: str = DEFAULT_PERSON_COLUMN
) -> Reading:
    """Judge rows, wherever they come from; `path` is what errors name. As `read` otherwise."""
    columns = set[str]()
    records: list[Record] = []
    faults: list[Fault] = []
    unkeyed = 0
    for row in rows:
        try:
            if row.code is not None:
                raise _RecordError(row.code)
            if not isinstance(row.value, dict):
                raise _RecordError("not-object")
            columns.update(row.value)
            record = _record(row.value, row.line, person_column)
        except _RecordError as bad:
            faults.append(Fault(row.line, bad.code))
            continue
        unkeyed += _UNKEYED.fullmatch(record.person) is not None
        records.append(record)
    _check_columns(path, columns, person_column, records, faults)
    return Reading(tuple(records), tuple(faults), unkeyed)


def parse(path: Path) -> Iterator[Row]:
    """Yield the parsed rows of a file whatever its kind; raises as `read` does."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise _error(path, "no-file", "does not exist; check the path of the records") from None
    except OSError as fault:
        why = type(fault).__name__
        raise _error(path, "unreadable", f"cannot be read ({why}); check its rights") from None
    if size == 0 or not head.removeprefix(b"\xef\xbb\xbf").strip():
        raise _error(path, "empty", "is empty; give a file with at least one record")
    kind = path.suffix.lower()
    if kind in {".jsonl", ".ndjson"}:
        return _json_lines(path)
    if kind == ".json":
        # Some tools write JSON Lines under this name; an array begins with a bracket.
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        return _json_array(path) if start == b"[" else _json_lines(path)
    if kind == ".csv":
        return _csv_rows(path)
    raise _error(path, "unknown-kind", "has an unknown ending; use .jsonl, .ndjson, .json, or .csv")


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(MAX_LINE_BYTES + 1)
                yield Row(number, None, "too-long")
                continue
            ended = raw.endswith(b"\n")
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                yield Row(number, json.loads(raw.decode("utf-8")))
            except UnicodeDecodeError:
                yield Row(number, None, "not-utf-8")
            except (ValueError, RecursionError):
                yield Row(number, None, "not-json" if ended else "truncated")


def _json_array(path: Path) -> Iterator[Row]:
    try:
        items = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _error(path, "not-utf-8", "is not UTF-8; convert it and try again") from None
    except json.JSONDecodeError as fault:
        where = f"line {fault.lineno}, column {fault.colno}"
        sentence = f"is not valid JSON at {where}; mend it there, or use one object a line (.jsonl)"
        raise _error(path, "not-json", sentence) from None
    except (ValueError, RecursionError):
        raise _error(path, "not-json", "is not JSON that can be read; use .jsonl") from None
    if not items:
        raise _error(path, "empty", "holds an empty list; give at least one record")
    for number, item in enumerate(items, start=1):
        yield Row(number, item)


def _csv_rows(path: Path) -> Iterator[Row]:
    """Yield one dict a row; undecodable bytes stay marked until the row is judged."""
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline(MAX_LINE_BYTES)
    delimiter = next((d for d in _DELIMITERS if _shape(_cells(first, d)) is not None), ",")
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                if reader.line_num > line:  # over other persons' rows: whose is what, nobody knows
                    sentence = f"has a quotation mark in line {line} without its end; close it"
                    raise _error(path, "bad-quotes", sentence) from None
                yield Row(line, None, "bad-row")
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if _shape(header) is None:
                    # Without a header the first row is a record: its cells are not repeated.
                    sentence = f"has no header of known columns; wanted are {_WANTED}"
                    raise _error(path, "unknown-columns", sentence)
                continue
            if not any(cell.strip() for cell in cells):
                continue
            if any(_surrogates(cell) for cell in cells):
                yield Row(line, None, "not-utf-8")
            elif len(cells) != len(header):
                yield Row(line, None, "bad-row")
            else:
                # An empty cell is how CSV says that there is no value.
                filled = zip(header, cells, strict=True)
                yield Row(line, {name: cell for name, cell in filled if cell.strip()})


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _shape(names: Iterable[str]) -> tuple[str, ...] | None:
    found = set(names)
    return next((shape for shape in SHAPES if found.issuperset(shape)), None)


def _record(row: Mapping[str, Any], line: int, person_column: str) -> Record:
    """Turn one object into a record, or raise the code of what is wrong with it."""
    instruction, response = _messages(row) if "messages" in row else _pair(row)
    pair = "chosen" in row or row.get("rejected") not in (None, "")
    rejected = _text(row.get("rejected"), "no-response") if pair else None
    if len(instruction) + len(response) + len(rejected or "") > MAX_CHARACTERS:
        raise _RecordError("too-long")
    return Record(
        person=_person(row.get(person_column), instruction, response),
        instruction=instruction,
        response=response,
        category=_label(row.get("category")),
        institution=_label(row.get("institution")),
        line=line,
        columns=tuple(_columns(row)),
        rejected=rejected,
    )


def _columns(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The columns that are no text of the record; of a list, such as relatives, each value."""
    for name, value in row.items():
        if name in TEXTS:
            continue
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            plain = isinstance(item, str | int | float) and not isinstance(item, bool)
            if not plain or number >= _MAX_VALUES or not 0 < len(str(item)) <= _MAX_VALUE:
                continue
            if not _surrogates(str(item)):
                yield name, str(item)


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    # One name is enough to know the shape; then the missing other one is what to report.
    for ask, answer in (shape for shape in SHAPES if len(shape) == 2):
        if ask in row or answer in row:
            break
    else:
        raise _RecordError("unknown-columns")
    answer = "chosen" if "chosen" in row else answer
    instruction = _text(row.get(ask), "no-instruction")
    response = _text(row.get(answer), "no-response")
    if ask == "instruction" and row.get("context") not in (None, ""):
        instruction = f"{instruction}\n\n{_text(row['context'], 'not-text')}"
    return instruction, response


def _messages(row: Mapping[str, Any]) -> tuple[str, str]:
    turns = row["messages"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise _RecordError("not-text")
    if not turns or turns[-1].get("role") != "assistant":
        raise _RecordError("no-response")
    if not any(turn.get("role") == "user" for turn in turns[:-1]):
        raise _RecordError("no-instruction")
    asked = [_text(turn.get("content"), "no-instruction") for turn in turns[:-1]]
    return "\n\n".join(asked), _text(turns[-1].get("content"), "no-response")


def _text(value: Any, missing: str) -> str:
    if value is None:
        raise _RecordError(missing)
    if not isinstance(value, str):
        raise _RecordError("not-text")
    if not value.strip():
        raise _RecordError(missing)
    # JSON can spell half a surrogate pair, which no later stage could encode.
    if _surrogates(value):
        raise _RecordError("not-text")
    return value


def _label(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "not-text")


def _person(value: Any, instruction: str, response: str) -> str:
    if value is None or value == "":
        content = json.dumps([instruction, response]).encode()
        return "line:" + hashlib.sha256(content).hexdigest()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip() or _surrogates(value):
        raise _RecordError("bad-person")
    return value.strip()


def _surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _check_columns(
    path: Path, columns: set[str], person_column: str, records: list[Record], faults: list[Fault]
) -> None:
    if not records:
        if columns and all(fault.code == "unknown-columns" for fault in faults):
            sentence = f"has columns {_listed(columns)}; wanted are {_WANTED}"
            raise _error(path, "unknown-columns", sentence)
        first = faults[0] if faults else Fault(1, "empty")
        sentence = f"has no usable record; the first fault is {first.code} at line {first.line}"
        raise _error(path, "not-utf-8" if first.code == "not-utf-8" else "no-records", sentence)
    # A site that named its column meant it: without it every row would pass for a person.
    if person_column != DEFAULT_PERSON_COLUMN and person_column not in columns:
        sentence = f"has no person column {person_column!r}; it has {_listed(columns)}"
        raise _error(path, "no-person-column", sentence)


def _listed(columns: Iterable[str]) -> str:
    """Name at most twelve columns, each shortened: a file without a header shows no records."""
    names = sorted(name for name in columns if name)
    shown = [name if name.isidentifier() and len(name) <= 40 else "(unnamed)" for name in names]
    return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "")


def _error(path: Path, code: str, sentence: str) -> ClientError:
    return ClientError(f"{path} {sentence}", code=code, exit_code=2)
