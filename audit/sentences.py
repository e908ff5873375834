"""What a report may say: sentences of a closed list, each with where it comes from.

A sentence is a template of `audit.wording` filled with values of a record or of a recomputation,
and it names that record or recomputation. One without a reference cannot be made, and neither can
one in words of its own.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from audit.errors import AuditError
from audit.wording import CHECKS, TEMPLATES

# What a report never says, whatever the records say: a verdict that it cannot give.
_NEVER = re.compile(
    r"\b(prov(e|es|ed|en|ing)|guarantee\w*|anonym\w*|secure(ly)?|compliant|complie[sd]|comply"
    r"|certif\w*|ensure[sd]?|impossible|zero[- ]risk|safe(ly)?)\b",
    re.IGNORECASE,
)
_STRONG = re.compile(r"differential(ly)? priva", re.IGNORECASE)
# ε is never said without these beside it.
_WITH_EPSILON = frozenset({"delta", "unit", "adjacency", "scope"})


class Unfounded(AuditError):
    """A sentence without a reference, or in words that are on no list."""

    code = "unfounded"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a sentence comes from.

    `entry`: place `NAME:INDEX`, digest its leaf hash. `check`: a recomputation of
    `wording.CHECKS`, digest that of the bundle. `file`: path in the bundle and its digest. `law`:
    a source, and the date on which it was read in place of a digest.
    """

    kind: Literal["entry", "check", "file", "law"]
    place: str
    digest: str

    def __post_init__(self) -> None:
        if not (self.place and self.digest):
            raise Unfounded("a reference without place or digest refers to nothing")
        if self.kind == "check" and self.place not in CHECKS:
            raise Unfounded(f"there is no recomputation of the name {self.place[:64]!r}")

    @property
    def anchor(self) -> str:
        """An id for links; distinct references have distinct ones."""
        return f"{self.kind}-{re.sub('[^A-Za-z0-9]', lambda m: f'_{ord(m[0]):x}_', self.place)}"


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence and its references.

    Raises:
        Unfounded: it has no reference, its template is not on the list, or a value is missing.
    """

    template: str
    references: tuple[Reference, ...]
    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_references(self.references)
        if self.template not in TEMPLATES:
            raise Unfounded(f"there is no sentence of the name {self.template[:64]!r}")
        wanted = placeholders(TEMPLATES[self.template])
        if set(self.values) != wanted or not all(isinstance(v, str) for v in self.values.values()):
            raise Unfounded(f"the sentence {self.template!r} wants exactly {sorted(wanted)}")
        check_language(TEMPLATES[self.template])

    @property
    def text(self) -> str:
        """The sentence to be read."""
        return TEMPLATES[self.template].format_map(self.values)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: its cells, and where they come from."""

    cells: tuple[str, ...]
    references: tuple[Reference, ...]

    def __post_init__(self) -> None:
        _check_references(self.references)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under column headings; the caption is a sentence."""

    caption: Sentence
    head: tuple[str, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if any(len(row.cells) != len(self.head) for row in self.rows):
            raise Unfounded("a row of a table has not as many cells as the table has columns")


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture, and the sentence that says the same."""

    svg: str
    caption: Sentence


Part = Sentence | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A heading (a few words, no statement) and what stands under it."""

    heading: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.heading.endswith(".") or len(self.heading.split()) > 8:
            raise Unfounded("a heading is a few words and states nothing")


def say(template: str, references: Sequence[Reference], **values: object) -> Sentence:
    """Fill a template; numbers are written as they print."""
    return Sentence(
        template, tuple(references), {name: str(value) for name, value in values.items()}
    )


def placeholders(template: str) -> set[str]:
    """The names that a template wants values for."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def check_language(template: str) -> None:
    """Check a template's words; silence means that they may be printed.

    Raises:
        Unfounded: it is no sentence, claims what nobody can know, or says ε or the strong word
            without δ, unit, adjacency and scope.
    """
    wanted = placeholders(template)
    if not template.endswith("."):
        raise Unfounded("a sentence ends with a full stop")
    if found := _NEVER.search(template):
        raise Unfounded(f"a report does not say {found[0]!r}")
    if ("ε" in template and "epsilon" in wanted) or _STRONG.search(template):
        missing = (_WITH_EPSILON | {"epsilon"}) - wanted
        if missing:
            raise Unfounded(f"ε is said without {', '.join(sorted(missing))} beside it")


def _check_references(references: object) -> None:
    if not isinstance(references, tuple) or not references:
        raise Unfounded("a sentence without a reference cannot be printed")
    if not all(isinstance(item, Reference) for item in references):
        raise Unfounded("a reference names an entry, a recomputation, a file or a law")
