"""Where a set's records come from: a source, judgements of answers, and what is kept of before."""

from __future__ import annotations

import dataclasses
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from client import records, withdrawals
from client.errors import ClientError
from client.folder import Folder
from client.prepare import judged, sets, sides, sources
from client.prepare.draws import Draws
from client.prepare.making import PUBLIC
from client.prepare.sources import Source
from client.records import Reading, Record
from configs.prepare import Recipe


@dataclass(frozen=True, slots=True)
class Origins:
    """All that a preparation begins with.

    Attributes:
        source: what was read, without an earlier set.
        parent: the earlier set, if there is one.
        records: those of both that stay, without whoever withdrew.
        people: everybody, those included of whom nothing stays.
        kept: of how many earlier records of persons who did not withdraw how many stay; None where
            nothing is earlier.
    """

    source: Source
    parent: sets.Prepared | None
    records: tuple[Record, ...] = field(repr=False)
    people: tuple[str, ...] = field(repr=False)
    kept: tuple[int, int] | None


def gather(
    folder: Folder,
    recipe: Recipe,
    draws: Draws,
    *,
    path: Path | None,
    parent: str | None,
    form: str,
    encoding: str,
    url: str | None,
    query: str | None,
    feedback: bool,
) -> Origins:
    """Read everything that `pipeline.prepare` was given.

    Guarantees: whether an earlier record stays follows from it, the recipe and the site's secret.
        Of one person's repetitions the first stays, so that judgements stand before what they
        judge, and an earlier set before a source.

    Raises:
        ClientError: something cannot be read, or a private person has a public one's key.
    """
    new = judged.read(folder, draws) if feedback else None
    if new is not None and path is None and query is None and parent is None:
        path, parent = judged.before(folder)
    earlier = None if parent is None else sets.open_set(folder, parent)
    source, before = new, None
    if source is None or path is not None or query is not None:
        source = sources.read(
            path, recipe, key=draws.key, person_column=folder.settings.data.person_column,
            form=form, encoding=encoding, url=url, query=query,
            draft=sets.root(folder) / f".source-{secrets.token_hex(4)}",
        )  # fmt: skip
        if new is not None:
            source, before = _beside(new, source, recipe, draws)
    found = list(source.reading.records)
    everybody = {record.person for record in found} | set(source.reading.also)
    if any(person.startswith(PUBLIC) for person in everybody):
        raise ClientError(
            f"a person's key begins with {PUBLIC!r}, which is kept for public records; rename it",
            code="reserved-person",
        )
    if earlier is not None:
        own = list(_own(folder, earlier))
        stay = [record for record in own if _stays(record, recipe, draws)]
        before = [*(before or ()), *own]
        found = [*found, *stay] if feedback else [*stay, *found]
        held = (person for persons in earlier.people().values() for person in persons)
        everybody |= {person for person in held if not person.startswith(PUBLIC)}
    gone = {person for person in everybody if withdrawals.is_withdrawn(folder, person)}
    left = tuple(record for record in found if record.person not in gone)
    kept = None
    if before is not None:
        usable = [record for record in before if record.person not in gone]
        kept = (sum(_stays(record, recipe, draws) for record in usable), len(usable))
    return Origins(source, earlier, left, tuple(sorted(everybody - gone)), kept)


def _beside(new: Source, old: Source, recipe: Recipe, draws: Draws) -> tuple[Source, list[Record]]:
    """New records with the recipe's share of the old ones, and all that were trained on before."""
    was = old.reading
    stay = tuple(record for record in was.records if _stays(record, recipe, draws))
    reading = Reading(
        records=(*new.reading.records, *stay),
        faults=(*new.reading.faults, *was.faults),
        unkeyed=new.reading.unkeyed + was.unkeyed,
        also=tuple(sorted({record.person for record in was.records})),
    )
    both = hmac.digest(draws.key, f"{new.digest} {old.digest}".encode(), "sha256").hex()
    source = Source(reading, f"{new.form}, {old.form}", f"hmac-sha256:{both}")
    return source, list(was.records)


def _stays(record: Record, recipe: Recipe, draws: Draws) -> bool:
    drawn = draws.share("keep", record.person, record.instruction, record.response)
    return drawn < recipe.parent.keep


def _own(folder: Folder, earlier: sets.Prepared) -> Iterator[Record]:
    """An earlier set's records as they were before repetitions, new wordings and public ones."""
    for side in sides.SIDES:
        path = earlier.path / f"{side}.jsonl"
        sets.holding(folder, path)
        if not path.stat().st_size:
            continue
        reading = records.read(path, person_column=folder.settings.data.person_column)
        for record in reading.records:
            if ("prepared", "own") in record.columns:
                columns = tuple(c for c in record.columns if c != ("prepared", "own"))
                yield dataclasses.replace(record, columns=columns)
