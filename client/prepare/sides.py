"""Who trains, who validates, who tests: by person, and nothing alike on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from client.prepare.draws import Draws
from client.records import Record
from configs.prepare import SplitTable

SIDES: Final = ("train", "validation", "test")


def class_of(record: Record, labels: frozenset[str]) -> str:
    """The record's class: its answer where that is a label, else its category, else none."""
    return record.response if record.response in labels else record.category or ""


def assign(
    persons: Iterable[str],
    records: Iterable[Record],
    table: SplitTable,
    draws: Draws,
    *,
    across: bool,
    labels: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """The side of each person.

    Args:
        persons: everybody, those included of whom nothing can be used.
        records: theirs.
        table: shares, and whether classes are spread evenly.
        draws: the site's.
        across: whether a person's side may depend on other persons; makes the shares exact.
        labels: answers that are classes.

    Guarantees: without `across`, whether somebody trains follows from their key, the ratio and the
        site's secret alone, and is the same in every set with that ratio; classes then decide only
        who of the others validates and who tests.
    """
    everybody = sorted(set(persons))
    train, validation, test = table.shares
    drawn = {person: draws.share("side", person) for person in everybody}
    most = _strata(records, labels) if table.stratify else {}
    line = sorted(everybody, key=lambda person: (most.get(person, ""), drawn[person]))
    if across:
        trains = set(_every(line, train))
    else:
        trains = {person for person in everybody if drawn[person] < train}
    rest = [person for person in line if person not in trains]
    held = validation + test
    validates = set(_every(rest, validation / held if held else 0.0))
    return {
        person: "train" if person in trains else "validation" if person in validates else "test"
        for person in everybody
    }


def _strata(records: Iterable[Record], labels: frozenset[str]) -> Mapping[str, str]:
    """The most frequent class of each person."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(record.person, Counter())[class_of(record, labels)] += 1
    return {
        person: min(classes, key=lambda name: (-classes[name], name))
        for person, classes in counts.items()
    }


def _every(line: list[str], share: float) -> Iterable[str]:
    """Take a share of a line evenly along its length; round(share * length) of it."""
    count = round(share * len(line))
    taken = 0
    for number, person in enumerate(line, start=1):
        if (number * count + len(line) // 2) // max(1, len(line)) > taken:
            taken += 1
            yield person
