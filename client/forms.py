"""A document as cells: what its schema says each value is, and how to write it back.

A reader (`form_json`, `form_fhir`, `form_hl7`, `form_csv`) turns a document into a `Form`. A cell
whose schema says what it is, is replaced as that; any other text is read by the scrubber; a cell
that the reader does not name stays as it is. What lies between the cells is never touched, so the
output has the form of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

TEXT: Final = "text"
"""Role of a cell that the scrubber reads; any other role is a type of `privacy.spans`."""
REFERENCE: Final = "REFERENCE"
"""Role of an id that other documents of the same file point to: replaced alike for everybody."""
ATTACHMENT: Final = "ATTACHMENT"
"""Role of bytes that nobody here can read, such as a scan: they are taken out."""

MAX_CHARACTERS: Final = 16 << 20
"""Longest document that is read at all."""
MAX_CELLS: Final = 200_000
MAX_DEPTH: Final = 64


class FormError(Exception):
    """A document that is not what it was taken for, or is too large; `code` says which."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def same(text: str) -> str:
    """Write a value as it is."""
    return text


@dataclass(frozen=True, slots=True)
class Cell:
    """One value.

    Attributes:
        start: where its written form begins in the source, in code points.
        end: where that ends.
        text: the value, escapes undone.
        role: `TEXT`, `REFERENCE`, `ATTACHMENT`, or a type of identifier.
        where: its place by the schema, such as PID-5.1; never holds a value.
        encode: writes a value in the form's own way.
        offsets: source position of each character of `text` and of its end; None if the value
            stands there as it is.
        group: cells of one person's name share a number; 0 is none.
        part: "family" or "given" in such a group.
    """

    start: int
    end: int
    text: str = field(repr=False)
    role: str
    where: str
    encode: Callable[[str], str] = field(default=same, repr=False)
    offsets: Sequence[int] | None = field(default=None, repr=False)
    group: int = 0
    part: str = ""

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Where [start, end) of `text` stands in the source."""
        if self.offsets is None:
            return self.start + start, self.start + end
        return self.offsets[start], self.offsets[end]


@dataclass(frozen=True, slots=True)
class Form:
    """One document.

    Attributes:
        source: as it was written.
        cells: disjoint, in order.
        person: whose document it is, if it says so.
    """

    source: str = field(repr=False)
    cells: tuple[Cell, ...] = field(repr=False)
    person: str | None = field(default=None, repr=False)

    def build(self, values: Sequence[str | None]) -> str:
        """Write the document with new values; None leaves a cell exactly as it was written."""
        out: list[str] = []
        at = 0
        for cell, value in zip(self.cells, values, strict=True):
            if value is None:
                continue
            out += (self.source[at : cell.start], cell.encode(value))
            at = cell.end
        out.append(self.source[at:])
        return "".join(out)


def form(source: str, cells: Iterable[Cell], person: str | None = None) -> Form:
    """Make a form of cells in any order, within the limits.

    Raises:
        FormError: too many cells.
    """
    kept: list[Cell] = []
    for cell in cells:
        kept.append(cell)
        if not len(kept) <= MAX_CELLS:
            raise FormError("too-large")
    return Form(source, tuple(sorted(kept, key=lambda cell: cell.start)), person)
