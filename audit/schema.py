"""JSON Schemas of the predicates, made from the table of events.

`python -m audit.schema` writes them to `audit/schemas/`, for tools that are not ours.
"""

from __future__ import annotations

import json
from pathlib import Path

from audit import events, fields, kinds
from audit.canonical import JSON

FOLDER = Path(__file__).parent / "schemas"


def predicate(kind: str) -> dict[str, JSON]:
    """Return the JSON Schema (draft 2020-12) of one kind's predicate."""
    needed = {name for name, kinds in events.NEEDED.items() if kind in kinds}
    header = {**events.HEADER.required, **{name: events.HEADER.optional[name] for name in needed}}
    optional = {n: t for n, t in events.HEADER.optional.items() if n not in needed}
    whole = fields.Table({**header, "fields": kinds.KINDS[kind]}, optional)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{events.PREDICATE_BASE}{kind}/{events.PREDICATE_VERSION}",
        "title": kind,
        **whole.schema(),
    }


def text(kind: str) -> str:
    """Return the schema file of one kind."""
    return json.dumps(predicate(kind), indent=2, sort_keys=True) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Write one file for each kind."""
    folder.mkdir(exist_ok=True)
    for kind in kinds.KINDS:
        (folder / f"{kind}.json").write_text(text(kind), encoding="utf-8")


if __name__ == "__main__":
    write()
