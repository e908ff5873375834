"""Which persons' records a run trained on, kept at the site as keyed digests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from client.errors import ClientError
from client.folder import Folder
from client.prepare.draws import Draws
from client.records import Reading
from configs import files

_FILE: Final = "lineage.json"


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a run trains on: "NAME DIGEST" of a prepared set, and the persons' keyed digests."""

    sets: tuple[str, ...]
    persons: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """Runs that descend from a person, and those of which nobody can tell."""

    certain: tuple[str, ...]
    doubtful: tuple[str, ...]


def of(folder: Folder, reading: Reading) -> Lineage:
    """Whose records a reading holds, where they are read.

    Raises:
        ClientError: the prepared set was changed.
    """
    from client.prepare import sets

    draws = Draws.of(folder.pseudonym_secret())
    held = sets.holding(folder, folder.data)
    persons = {draws.digest("person", record.person) for record in reading.records}
    return Lineage(() if held is None else (f"{held.name} {held.digest}",), tuple(sorted(persons)))


def remember(folder: Folder, run: str, used: Lineage) -> None:
    """Note, before training, whose records a run is about to use; earlier notes stay.

    Raises:
        ClientError: an earlier note is damaged.
    """
    place = folder.run(run)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = place / _FILE
    earlier = _read(folder, run) if path.exists() else {"persons": [], "sets": []}
    values: dict[str, Any] = {
        "format": 1,
        "sets": sorted({*earlier["sets"], *used.sets}),
        "persons": sorted({*earlier["persons"], *used.persons}),
    }
    files.replace(path, json.dumps(values).encode(), mode=files.PRIVATE)


def descends(folder: Folder, digest: str) -> Found:
    """The runs that used records of the person with this digest.

    A run that began a round, and left no note or a damaged one, is doubtful.
    """
    certain: list[str] = []
    doubtful: list[str] = []
    noted: set[str] = set()
    place = folder.path / "runs"
    for path in sorted(place.glob(f"*/{_FILE}")):
        run = path.parent.name
        noted.add(run)
        try:
            persons: Iterable[str] = _read(folder, run)["persons"]
        except ClientError:
            doubtful.append(run)
            continue
        if digest in persons:
            certain.append(run)
    # Of every cohort: the site may have named another one since.
    doubtful += [
        row.run for row in folder.ledger().rows() if row.rounds_begun and row.run not in noted
    ]
    return Found(tuple(certain), tuple(sorted(doubtful)))


def _read(folder: Folder, run: str) -> dict[str, list[str]]:
    path = folder.run(run) / _FILE
    try:
        values = json.loads(path.read_bytes())
        return {name: [str(one) for one in values[name]] for name in ("sets", "persons")}
    except (OSError, ValueError, KeyError, TypeError):
        raise ClientError(
            f"{path} is damaged; restore it from your backup", code="lineage-damaged"
        ) from None
