"""Whose records the demo trains on: made-up ones, or a file split by institution and person."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import files
from demo import generate
from demo.errors import DemoError
from demo.generate import Kind

_PERSONS = 1500
_HELDOUT_PERSONS = 100
_SEED = 20_260_101
_HELDOUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the institutions hold and what the coordinator evaluates on.

    Attributes:
        sites: records file by institution name.
        heldout: the coordinator's evaluation records.
        labels: the public label set.
        description: what the evaluation records are.
        generated: whether identifiers and their places are known.
    """

    sites: dict[str, Path]
    heldout: Path
    labels: tuple[str, ...]
    description: str
    generated: bool


def made_up(out: Path, *, institutions: int) -> Prepared:
    """Generate hospitals and banks in turn, and held-out records with other texts.

    Raises:
        DemoError: fewer than one institution.
    """
    kinds: tuple[Kind, Kind] = ("hospital", "bank")
    chosen = [kinds[number % 2] for number in range(institutions)]
    sites = {}
    for number, kind in enumerate(chosen):
        name = f"{kind}-{number // 2 + 1}"
        path = _place(out, name)
        people = generate.persons(kind, count=_PERSONS, seed=_SEED + number)
        generate.write_jsonl(path, people, name)
        sites[name] = path
    heldout = out / "heldout.jsonl"
    rows = [
        {"instruction": person.notes[0].instruction, "response": person.notes[0].response}
        for number, kind in enumerate(sorted(set(chosen)))
        for person in generate.persons(
            kind, count=_HELDOUT_PERSONS, seed=_SEED - 1 - number, part="heldout"
        )
    ]
    _write(heldout, rows)
    labels = tuple(label for kind in sorted(set(chosen)) for label in generate.LABELS[kind])
    return Prepared(sites, heldout, labels, "made-up records with held-out texts and names", True)


def split(out: Path, source: Path, *, institutions: int) -> Prepared:
    """Split a records file by its `institution` field, and the largest parts by person.

    A tenth of the persons is held out for the coordinator; all of a person's records stay in one
    place, which depends on the person's key alone.

    Raises:
        DemoError: the file cannot be read, has no usable record, or too few persons.
    """
    parts: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    heldout: list[dict[str, Any]] = []
    for number, row in enumerate(_rows(source), start=1):
        person = str(row.get("unit_id") or f"line-{number}")
        if _share(person, "heldout") < _HELDOUT_SHARE:
            heldout.append(row)
        else:
            parts[str(row.get("institution") or "institution")][person].append(row)
    groups = [(_slug(name), people) for name, people in sorted(parts.items())]
    while len(groups) < institutions:
        groups.sort(key=lambda group: (-len(group[1]), group[0]))
        name, people = groups.pop(0)
        halves: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for person, rows in people.items():
            halves[_share(person, f"split {name}") < 0.5][person] = rows
        if not halves[0] or not halves[1]:
            raise DemoError(f"{source} has too few persons for {institutions} institutions")
        groups += [(f"{name}-a", halves[0]), (f"{name}-b", halves[1])]
    if len(groups) > institutions:
        groups = sorted(groups, key=lambda group: (-len(group[1]), group[0]))[:institutions]
    if not groups or not heldout:
        raise DemoError(f"{source} holds too few records to train and to hold out some")
    sites = {}
    for name, people in sorted(groups):
        path = _place(out, name)
        _write(path, [row for person in sorted(people) for row in people[person]])
        sites[name] = path
    target = out / "heldout.jsonl"
    _write(target, heldout)
    labels = tuple(sorted({row["response"] for row in heldout}
                          | {row["response"] for _, people in groups
                             for rows in people.values() for row in rows}))  # fmt: skip
    return Prepared(
        sites, target, labels if len(labels) <= 100 else (),
        f"persons of {source.name} held out from training", False,
    )  # fmt: skip


def _rows(source: Path) -> list[dict[str, Any]]:
    """Usable lines; the institutions' own reader reports the others at each institution."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DemoError(f"{source} does not exist; check the path of --data") from None
    except (OSError, UnicodeDecodeError):
        raise DemoError(f"{source} is not a readable UTF-8 file; convert it to UTF-8") from None
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if (
            isinstance(row, dict)
            and isinstance(row.get("instruction"), str)
            and isinstance(row.get("response"), str)
            and row["response"]
        ):
            rows.append(row)
    if not rows:
        raise DemoError(
            f"{source} holds no record with instruction and response, one JSON object a line; "
            "correct it, or leave out --data"
        )
    return rows


def _share(person: str, salt: str) -> float:
    """A fixed number in [0, 1) for each person."""
    digest = hashlib.sha256(f"{salt}\n{person}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _slug(name: str) -> str:
    tail = name.rpartition(":")[2].lower()
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in tail).strip("-")
    return (kept or "institution")[:40]


def _place(out: Path, name: str) -> Path:
    folder = out / "records"
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder / f"{name}.jsonl"


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.replace(path, text.encode(), mode=files.PRIVATE)
