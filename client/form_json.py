"""JSON with a place in the source for every value, so that only values are rewritten (RFC 8259)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from client import columns, forms
from client.forms import TEXT, Cell, Form, FormError

Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL
)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
# A short number under a name that says nothing is a measurement; a long one may be somebody's.
_LONG: Final = re.compile(r"\d{6,}")
_FIELD: Final = re.compile(r"[A-Za-z_$@][A-Za-z_.:$/-]{0,63}\d{0,3}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One string or number of a document, or one key that is no plain field name.

    Attributes:
        path: keys and positions from the top; of a key, that of its object.
        parent: the object or array that holds it.
    """

    path: Path = field(repr=False)
    parent: Any = field(repr=False)
    start: int
    end: int
    text: str = field(repr=False)
    offsets: Sequence[int] | None = field(repr=False)
    number: bool = False
    key: bool = False

    @property
    def name(self) -> str:
        """The nearest key above, "" at the top."""
        return next((step for step in reversed(self.path) if isinstance(step, str)), "")

    @property
    def names(self) -> tuple[str, ...]:
        """All keys above, without positions."""
        return tuple(step for step in self.path if isinstance(step, str))

    def cell(self, role: str, **more: Any) -> Cell:
        """This leaf in a role."""
        where = ".".join(name if _FIELD.fullmatch(name) else "*" for name in self.names)
        write = _write_number if self.number else _write
        more.setdefault("encode", write)
        return Cell(self.start, self.end, self.text, role, where, offsets=self.offsets, **more)


def parse(source: str) -> Any:
    """Parse a document.

    Raises:
        FormError: not-json, or too-large.
    """
    if not len(source) <= forms.MAX_CHARACTERS:
        raise FormError("too-large")
    try:
        return json.loads(source, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise FormError("not-json") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    # Readers differ on which of two equal keys counts; a value could hide behind the other.
    if len(made) != len(pairs):
        raise ValueError
    return made


def leaves(source: str, tree: Any) -> Iterator[Leaf]:
    """Yield every string, number and odd key of a document that `parse` accepted.

    Raises:
        FormError: it is nested deeper than `forms.MAX_DEPTH`.
    """
    # Each frame: [value, key or position, whether a key comes next].
    stack: list[list[Any]] = []
    for match in _TOKEN.finditer(source):
        mark, start, end = match.group(), match.start(), match.end()
        if mark == ":":
            continue
        if mark == ",":
            frame = stack[-1]
            frame[1], frame[2] = (None, True) if isinstance(frame[0], dict) else (frame[1] + 1, 0)
            continue
        if mark in "]}":
            stack.pop()
            continue
        frame = stack[-1] if stack else [None, None, False]
        if mark in "{[":
            value = tree if not stack else _child(frame)
            if not len(stack) < forms.MAX_DEPTH:
                raise FormError("too-deep")
            stack.append([value, None, True] if mark == "{" else [value, 0, False])
            continue
        path: Path = tuple(step[1] for step in stack if step[1] is not None)
        if frame[2]:
            frame[1], frame[2] = json.loads(mark), False
            if not _FIELD.fullmatch(frame[1]):
                yield Leaf(path, frame[0], start, end, *_decoded(mark, start), key=True)
            continue
        if mark[0] == '"':
            yield Leaf(path, frame[0], start, end, *_decoded(mark, start))
        elif _NUMBER.fullmatch(mark):
            yield Leaf(path, frame[0], start, end, mark, None, number=True)


def _child(frame: list[Any]) -> Any:
    return frame[0][frame[1]]


def read(source: str, *, said: Mapping[str, str] | None = None, tree: Any = None) -> Form:
    """Read any JSON: each value by the name of its key, else as text.

    Args:
        source: the document.
        said: roles by key, as the institution states them.
        tree: what `parse` made of it, if that is at hand.

    Raises:
        FormError: not-json, too-large, or too-deep.
    """
    tree = parse(source) if tree is None else tree
    groups: dict[tuple[Path, str], int] = {}
    found = (_cell(leaf, said, groups) for leaf in leaves(source, tree))
    cells = (cell for cell in found if cell is not None)
    return forms.form(source, cells, person(tree))


def person(tree: Any) -> str | None:
    """Whose document it is, if a usual key at its top says so."""
    if not isinstance(tree, dict) or (key := columns.owner(map(str, tree))) is None:
        return None
    value = tree[key]
    known = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    return str(value) if known else None


def _cell(
    leaf: Leaf, said: Mapping[str, str] | None, groups: dict[tuple[Path, str], int]
) -> Cell | None:
    if leaf.key:
        known = columns.role(leaf.text) != TEXT
        return None if known else leaf.cell(TEXT)
    above = leaf.names[-2] if len(leaf.names) > 1 else ""
    part = columns.part(leaf.name, above) if leaf.text.strip() else None
    if part is not None and leaf.name not in (said or {}):
        # First and last name of one object are one person's, wherever else they stand together.
        group = groups.setdefault((leaf.path[:-1], part[1]), len(groups) + 1)
        return leaf.cell("PERSON", group=group, part=part[0])
    role = columns.cell_role(columns.role(leaf.name, said), leaf.text)
    if leaf.number and role == TEXT:
        return leaf.cell(TEXT) if _LONG.search(leaf.text) else None
    return None if role == columns.KEEP or not leaf.text.strip() else leaf.cell(role)


def _decoded(mark: str, start: int) -> tuple[str, Sequence[int]]:
    """The value of a string token, and where each of its characters stands in the source."""
    body = mark[1:-1]
    if "\\" not in body:
        return body, range(start + 1, start + len(mark))
    offsets = [start + 1 + match.start() for match in _ESCAPE.finditer(body)]
    return json.loads(mark), (*offsets, start + len(mark) - 1)


def _write(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_number(value: str) -> str:
    return value if _NUMBER.fullmatch(value) else _write(value)
