"""The gold-labelled public sets, read into items."""

from __future__ import annotations

import json
from pathlib import Path

from bench.deid_measure import Item


def asq(path: Path) -> list[Item]:
    """ASQ-PHI: queries with their tagged values, and queries that hold none."""
    items = []
    for block in path.read_text(encoding="utf-8").split("===QUERY===")[1:]:
        query, _, tags = block.partition("===PHI_TAGS===")
        text = query.strip()
        gold, free = [], [True] * len(text)
        for line in tags.strip().splitlines():
            tag = json.loads(line)
            value = tag["value"]
            at = _place(text, value, free)
            if at >= 0:
                free[at : at + len(value)] = [False] * len(value)
                gold.append((at, at + len(value), tag["identifier_type"]))
        items.append(Item(text, tuple(sorted(gold))))
    return items


def _place(text: str, value: str, free: list[bool]) -> int:
    at = text.find(value)
    while at >= 0 and not all(free[at : at + len(value)]):
        at = text.find(value, at + 1)
    return at if at >= 0 else text.find(value)


def synth(path: Path) -> list[Item]:
    """The templates of presidio-research; titles such as "Mr." are no identifiers here."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        Item(
            row["full_text"],
            tuple(
                sorted(
                    (span["start_position"], span["end_position"], span["entity_type"])
                    for span in row["spans"]
                    if span["entity_type"] != "TITLE"
                )
            ),
        )
        for row in rows
    ]
