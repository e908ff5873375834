"""`privity client prepare`: source → records → cleaned → distinct → sides → a set on disk."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import records
from client.errors import ClientError
from client.folder import Folder
from client.people import Progress
from client.prepare import likeness, making, origins, quality, sets, sides, wording
from client.prepare.draws import Draws
from client.prepare.likeness import Print
from client.prepare.making import PUBLIC, Item, Translate
from client.prepare.sources import Source
from client.records import Record
from configs.prepare import Recipe
from configs.version import SOFTWARE
from privacy.errors import Quarantined

PREPARATION = 2
"""Changes whenever the same input and recipe give other records."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a preparation made.

    Attributes:
        made: the set.
        sides: records and persons of each side.
        dropped: records that are in no side, by reason.
        across: records that another person's resemble; removed in scope "all" only.
        kept: of how many earlier records how many were taken over; None where there was nothing.
        warnings: sentences about what a person should look at.
    """

    made: sets.Prepared
    sides: Mapping[str, tuple[int, int]]
    dropped: Mapping[str, int]
    across: int
    kept: tuple[int, int] | None
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {
            "name": self.made.name,
            "path": str(self.made.path),
            "digest": self.made.digest,
            "scope": self.made.manifest["scope"],
            "sides": {s: {"records": r, "persons": p} for s, (r, p) in self.sides.items()},
            "dropped": dict(self.dropped),
            "across_persons": self.across,
            "earlier": None if self.kept is None else {"kept": self.kept[0], "of": self.kept[1]},
            "warnings": list(self.warnings),
        }


@dataclass(slots=True)
class _Work:
    """What is left of the source, and what went and why."""

    left: list[Record] = field(repr=False)
    gone: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def keep(self, judged: Iterable[tuple[Record, str]]) -> None:
        """Keep the records without a reason against them."""
        left = []
        for record, code in judged:
            if code:
                self.gone[code].append(record.line)
            else:
                left.append(record)
        self.left = left


def prepare(
    folder: Folder,
    path: Path | None,
    recipe: Recipe,
    *,
    name: str | None = None,
    parent: str | None = None,
    form: str = "auto",
    encoding: str = "utf-8",
    url: str | None = None,
    query: str | None = None,
    feedback: bool = False,
    translate: Translate | None = None,
    translators: Sequence[str] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Prepare a set from a source.

    Args:
        folder: the institution's; the set and everything on the way stays in it.
        path: the source's file; None for a query, or for what is trained on now.
        recipe: what to do.
        name: of the set; else set-1, set-2 and so on.
        parent: an earlier set, of which the recipe's share is kept.
        form: one of `sources.FORMS`.
        encoding: of a text file.
        url: a database.
        query: its statement.
        feedback: whether accepted judgements are the source. What `path`, `url` or `parent` names
            is then what was trained on before, and the recipe's share of it is kept.
        translate: says texts in other words, for the recipe's back-translation.
        translators: digests of the models that do.
        progress: told of records done and of all.

    Guarantees: in scope "person", what of a person stands in the side that trains follows from
        that person's records, the recipe and the site's secret. In every scope no person, template
        or near-duplicate stands on two sides. Who withdrew is left out.

    Raises:
        ClientError: the source cannot be used, nothing is left, or the name is taken.
    """
    draws = Draws.of(folder.pseudonym_secret())
    name = sets.free_name(folder) if name is None else sets.checked(name)
    sets.root(folder).mkdir(mode=0o700, exist_ok=True)
    given = origins.gather(
        folder, recipe, draws, path=path, parent=parent, form=form, encoding=encoding, url=url,
        query=query, feedback=feedback,
    )  # fmt: skip
    source, earlier, began, everybody = given.source, given.parent, given.records, given.people
    work = _Work(list(began))
    work.keep(_clean(work.left, recipe, progress))
    lines = _shared_lines(work.left, recipe)
    if recipe.scope == "all" and lines:
        work.left = [_without(record, frozenset(lines)) for record in work.left]
    work.keep(_limit(work.left, recipe))
    prints = {
        id(r): likeness.fingerprint(r.instruction, r.response, recipe.duplicates.words)
        for r in work.left
    }
    work.keep(_distinct(work.left, prints, recipe))
    across = _across(work.left, prints, recipe)
    if recipe.scope == "all":
        work.keep((r, "duplicate-across" if n in across else "") for n, r in enumerate(work.left))
    if not work.left:
        raise ClientError(
            f"nothing is left of {len(began)} records; the reasons are "
            f"{', '.join(sorted(work.gone)) or 'that all persons withdrew'}: correct the recipe",
            code="nothing-left",
        )
    labels = frozenset(recipe.labels.allowed)
    stands = sides.assign(
        everybody, work.left, recipe.split, draws, across=recipe.scope == "all", labels=labels
    )
    parts: dict[str, list[Record]] = {side: [] for side in sides.SIDES}
    for record in work.left:
        parts[stands[record.person]].append(record)
    train_people = [person for person in everybody if stands[person] == "train"]
    items = making.train(parts["train"], recipe, draws, labels=labels, translate=translate)
    items += _public(folder, recipe, len(train_people), draws, began)
    written = {
        "train": making.ordered(items, recipe, draws),
        **_apart(items, parts, recipe, work),
    }
    people = {side: [p for p in everybody if stands[p] == side] for side in sides.SIDES}
    people["train"] += sorted({i.record.person for i in items if i.origin == "public"})
    warnings = _warnings(written, recipe, lines, source)
    facts = _facts(source, recipe, earlier, written, people, work, translators)
    page = quality.page(
        folder.settings.name, source, recipe, written, people, began,
        {code: len(gone) for code, gone in work.gone.items()}, len(across), lines, warnings,
    )  # fmt: skip
    made = sets.write(
        folder, name, sides=written, people=people, facts=facts,
        dropped=work.gone, report=page,
    )  # fmt: skip
    counts = {side: (len(written[side]), len(people[side])) for side in sides.SIDES}
    gone = {code: len(found) for code, found in sorted(work.gone.items())}
    return Outcome(made, counts, gone, len(across), given.kept, warnings)


def _clean(
    found: Sequence[Record], recipe: Recipe, progress: Progress | None
) -> Iterator[tuple[Record, str]]:
    for number, record in enumerate(found, start=1):
        if progress and number % 100 == 0:
            progress(number, len(found))
        try:
            asked = wording.cleaned(record.instruction, recipe.clean)
            answered = wording.cleaned(record.response, recipe.clean)
            worse = record.rejected and wording.cleaned(record.rejected, recipe.clean)
        except Quarantined as fault:
            yield record, fault.code
            continue
        better = dataclasses.replace(record, instruction=asked, response=answered, rejected=worse)
        full = all(text is None or text.strip() for text in (asked, answered, worse))
        yield better, "" if full else "empty"


def _shared_lines(found: Sequence[Record], recipe: Recipe) -> dict[str, int]:
    """Lines of several words that many persons share, with how many do."""
    persons: dict[str, set[str]] = defaultdict(set)
    for record in found:
        for text in (record.instruction, record.response):
            lines = text.split("\n")
            for line in lines if len(lines) > 1 else ():
                if len(same := wording.same(line)) >= 15:
                    persons[same].add(record.person)
    least = recipe.clean.boilerplate_persons
    return {line: len(who) for line, who in persons.items() if len(who) >= least}


def _without(record: Record, lines: frozenset[str]) -> Record:
    return dataclasses.replace(
        record,
        instruction=wording.without(record.instruction, lines),
        response=wording.without(record.response, lines),
        rejected=record.rejected and wording.without(record.rejected, lines),
    )


def _limit(found: Sequence[Record], recipe: Recipe) -> Iterator[tuple[Record, str]]:
    limits = recipe.limits
    labels = {label.casefold(): label for label in recipe.labels.allowed}
    for record in found:
        code = ""
        if labels:
            label = labels.get(record.response.strip().casefold())
            code = "unknown-label" if label is None else ""
            record = dataclasses.replace(record, response=label or record.response)
        length = len(record.instruction) + len(record.response) + len(record.rejected or "")
        if not record.instruction or not record.response or record.rejected == "":
            code = "empty"
        elif not length >= limits.least_characters:
            code = "too-short"
        elif not length <= limits.most_characters:
            code = "too-long"
        elif not code and limits.languages:
            spoken = wording.language((record.instruction, record.response))
            code = "other-language" if spoken and spoken not in limits.languages else ""
        yield record, code


def _distinct(
    found: Sequence[Record], prints: Mapping[int, Print], recipe: Recipe
) -> Iterator[tuple[Record, str]]:
    by_person: dict[str, list[Record]] = defaultdict(list)
    for record in found:
        by_person[record.person].append(record)
    codes: dict[int, str] = {}
    for mine in by_person.values():
        for number, code in likeness.within([prints[id(r)] for r in mine], recipe.duplicates):
            codes[id(mine[number])] = code
    for record in found:
        yield record, codes.get(id(record), "")


def _across(found: Sequence[Record], prints: Mapping[int, Print], recipe: Recipe) -> frozenset[int]:
    """Positions of records that resemble an earlier record of another person."""
    if not (recipe.duplicates.exact or recipe.duplicates.near):
        return frozenset()
    index = likeness.Index(recipe.duplicates)
    again: set[int] = set()
    for number, record in enumerate(found):
        one = prints[id(record)]
        if any(person != record.person for person in index.like(one)):
            again.add(number)
        else:
            index.add(one, record.person)
    return frozenset(again)


def _public(
    folder: Folder, recipe: Recipe, train_people: int, draws: Draws, own: Sequence[Record]
) -> list[Item]:
    if not recipe.public.path:
        return []
    path, column = folder.path / recipe.public.path, folder.settings.data.person_column
    reading = records.read(path, person_column=column)
    mine = {(record.person, record.instruction, record.response) for record in own}
    if any((r.person, r.instruction, r.response) in mine for r in reading.records):
        raise ClientError(
            f"{path} holds records that are prepared as private ones: their persons would count "
            "twice, and stay when they withdraw; name public records only in public.path",
            code="public-is-private",
            exit_code=3,
        )
    named = [dataclasses.replace(r, person=f"{PUBLIC}{r.person}") for r in reading.records]
    work = _Work(named)
    work.keep(_clean(work.left, recipe, None))
    work.keep(_limit(work.left, recipe.model_copy(update={"labels": type(recipe.labels)()})))
    return making.mixed(work.left, train_people, recipe, draws)


def _apart(
    items: Sequence[Item], parts: Mapping[str, Sequence[Record]], recipe: Recipe, work: _Work
) -> dict[str, list[Item]]:
    """The other sides, without what resembles anything on a side before them."""
    words = recipe.duplicates.words
    index = likeness.Index(recipe.duplicates)
    for item in items:
        record = item.record
        index.add(likeness.fingerprint(record.instruction, record.response, words), "")
    written: dict[str, list[Item]] = {}
    for side in sides.SIDES[1:]:
        kept, mine = [], []
        for record in parts[side]:
            one = likeness.fingerprint(record.instruction, record.response, words)
            if next(index.like(one), None) is not None:
                work.gone[f"like-another-side-{side}"].append(record.line)
            else:
                kept.append(Item(record, "own"))
                mine.append(one)
        for one in mine:
            index.add(one, "")
        written[side] = kept
    return written


def _facts(
    source: Source, recipe: Recipe, earlier: sets.Prepared | None,
    written: Mapping[str, Sequence[Item]], people: Mapping[str, Sequence[str]], work: _Work,
    translators: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    document = recipe.model_dump(mode="json")
    return {
        "software": SOFTWARE,
        "preparation": PREPARATION,
        "scope": recipe.scope,
        "source": {"form": source.form, "digest": source.digest},
        "recipe": document,
        "parent": None if earlier is None else {"name": earlier.name, "digest": earlier.digest},
        "sides": {
            side: {
                "records": len(written[side]),
                "persons": len(people[side]),
                "origins": dict(sorted(Counter(item.origin for item in written[side]).items())),
            }
            for side in sides.SIDES
        },
        "dropped": {code: len(lines) for code, lines in sorted(work.gone.items())},
        "faults": dict(sorted(Counter(f.code for f in source.reading.faults).items())),
        "translators": list(translators),
    }


def _warnings(
    written: Mapping[str, Sequence[Item]], recipe: Recipe, lines: Mapping[str, int], source: Source
) -> tuple[str, ...]:
    found = []
    for side, share in zip(sides.SIDES, recipe.split.shares, strict=True):
        if share and not written[side]:
            found.append(
                f"the side {side} is empty: too few persons, or all of it resembles another side"
            )
    if recipe.scope == "all":
        found.append(
            'scope "all" looked across persons: no private training accepts this set, because ε '
            "would not hold for one person"
        )
    elif lines:
        stand = "lines stand" if len(lines) > 1 else "line stands"
        found.append(
            f"{len(lines)} {stand} in the records of {recipe.clean.boilerplate_persons} or "
            "more persons; the report shows them, and clean.boilerplate takes them out"
        )
    if source.reading.unkeyed:
        found.append(
            f"{source.reading.unkeyed} records have no person key; each counts as a person, and ε "
            "speaks of that record only"
        )
    if source.reading.faults:
        found.append(f"{len(source.reading.faults)} of the source's records could not be read")
    return tuple(found)
