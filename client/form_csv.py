"""Tables: each column by its name, each row a document (RFC 4180; also with ; tab and |)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from client import columns, forms
from client.errors import ClientError
from client.forms import TEXT, Cell, Form, FormError

_DELIMITERS: Final = (",", ";", "\t", "|")
_MARK: Final = "\x1f"  # stands between cells of a row's source; a cell that holds it is refused
_HARMLESS: Final = re.compile(r"[\W_]*|-?\d{1,5}([.,]\d{1,4})?")


@dataclass(frozen=True, slots=True)
class Table:
    """How a file divides its rows, and what its columns are.

    Attributes:
        delimiter: between cells.
        header: names of the columns; None if the first row is a row like the others.
        roles: of each column; all are text without a header.
        owner: position of the column that says whose row it is, if any.
    """

    delimiter: str
    header: tuple[str, ...] | None
    roles: tuple[str, ...]
    owner: int | None

    def write(self, cells: Sequence[str]) -> str:
        """One row with its line end, quoted where needed."""
        out = io.StringIO()
        csv.writer(out, delimiter=self.delimiter, lineterminator="\n").writerow(cells)
        return out.getvalue()


def table(first: str, *, said: Mapping[str, str] | None = None, owner: str | None = None) -> Table:
    """Judge a file by its first line.

    Args:
        first: the first line.
        said: roles by column, as the institution states them.
        owner: the column that says whose row it is, if the institution states one.
    """
    delimiter = max(_DELIMITERS, key=lambda d: (first.count(d), -_DELIMITERS.index(d)))
    try:
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    except csv.Error:  # longer than a cell may be
        names = [first]
    found = [columns.role(name, said) for name in names]
    unlike = any(len(name) > 60 or re.search(r"\d{5,}|@", name) for name in names)
    mine = owner if owner in names else columns.owner(names)
    if unlike or (mine is None and all(role == TEXT for role in found) and not _worded(names)):
        return Table(delimiter, None, (TEXT,) * len(names), None)
    return Table(delimiter, tuple(names), tuple(found), names.index(mine) if mine else None)


def _worded(names: Sequence[str]) -> bool:
    """Say whether cells look like names of columns: short words in one case with underscores."""
    return bool(names) and all(re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) for name in names)


def rows(lines: Iterator[str], kind: Table) -> Iterator[list[str] | FormError]:
    """Yield the rows after the header; a row that can't be read is an error in its place.

    Raises:
        ClientError: a quotation mark is never closed, so that nobody knows where rows end.
    """
    reader = csv.reader(lines, delimiter=kind.delimiter, strict=True)
    if kind.header is not None:
        next(reader, None)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            if reader.line_num > line:
                raise ClientError(
                    f"line {line} has a quotation mark without its end; close it or double it",
                    code="bad-quotes",
                ) from None
            yield FormError("bad-row")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(kind.roles):
            yield FormError("bad-row")
        elif any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
            yield FormError("not-utf-8")
        elif sum(map(len, cells)) > forms.MAX_CHARACTERS or any(_MARK in cell for cell in cells):
            yield FormError("bad-row")
        else:
            yield cells


def read(cells: Sequence[str], kind: Table) -> Form:
    """One row as a form; `split` divides what is built from it."""
    source, made, at = _MARK.join(cells), list[Cell](), 0
    groups: dict[str, int] = {}
    for number, (value, column) in enumerate(zip(cells, kind.roles, strict=True), start=1):
        role = columns.cell_role(column, value)
        named = kind.header is not None and re.fullmatch(r"\w{1,40}", kind.header[number - 1])
        where = kind.header[number - 1] if named and kind.header else f"column {number}"
        if (
            value.strip()
            and role != columns.KEEP
            and not (role == TEXT and _HARMLESS.fullmatch(value))
        ):
            part = columns.part(kind.header[number - 1]) if kind.header else None
            if part is not None and role == "PERSON":
                group = groups.setdefault(part[1], len(groups) + 1)
                made.append(
                    Cell(at, at + len(value), value, role, where, group=group, part=part[0])
                )
            else:
                made.append(Cell(at, at + len(value), value, role, where))
        at += len(value) + 1
    person = None if kind.owner is None else cells[kind.owner].strip() or None
    return forms.form(source, made, person)


def embedded(text: str) -> Form | None:
    """A text that is a table of at least two rows under a header that says what columns are.

    Only where no cell is quoted, so that each stands in the text as it is.
    """
    lines = text.splitlines(keepends=True)
    if not 2 <= len(lines) <= forms.MAX_CELLS or '"' in text:
        return None
    kind = table(lines[0].rstrip("\r\n"))
    typed = [role for role in kind.roles if role not in {TEXT, columns.KEEP}]
    if kind.header is None or len(kind.header) < 2 or not typed:
        return None
    made: list[Cell] = []
    at = len(lines[0])
    for line in lines[1:]:
        cells = line.rstrip("\r\n").split(kind.delimiter)
        if line.strip():
            if len(cells) != len(kind.header):
                return None
            made += [
                replace(cell, start=cell.start + at, end=cell.end + at, group=0, part="")
                for cell in read(cells, kind).cells
            ]
        at += len(line)
    return forms.form(text, made) if made else None


def split(built: str) -> list[str]:
    """The cells of a built row."""
    return built.split(_MARK)
