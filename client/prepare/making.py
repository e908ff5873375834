"""The side that trains: bounded by person, repeated, reworded, mixed with public records, ordered.

Each step of a person's records looks at that person's records, the recipe and the site's secret.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from client.prepare.draws import Draws
from client.prepare.sides import class_of
from client.records import Record
from configs.prepare import AugmentTable, Recipe

PUBLIC: Final = "public:"
"""How the key of a public person begins; no private one may."""

Translate = Callable[[Sequence[str]], Sequence[str]]
"""Says texts in other words, such as by a translation there and back."""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a prepared side.

    Attributes:
        record: as it is written; its person never changes.
        origin: own, repeated, reworded, or public.
    """

    record: Record = field(repr=False)
    origin: str


def times(records: Iterable[Record], recipe: Recipe, labels: frozenset[str]) -> dict[str, int]:
    """How often each class is used: as the recipe says, or so that measured classes come out even.

    Measuring counts over all persons; the recipe allows it in scope "all" only.
    """
    table = recipe.balance
    said = {one.name: one.times for one in table.classes}
    if not table.measured:
        return said
    counts = Counter(class_of(record, labels) for record in records)
    most = max(counts.values(), default=0)
    return {name: min(table.most, most // count) for name, count in counts.items()} | said


def train(
    records: Sequence[Record],
    recipe: Recipe,
    draws: Draws,
    *,
    labels: frozenset[str] = frozenset(),
    translate: Translate | None = None,
) -> list[Item]:
    """The private part of the side that trains, person by person.

    Guarantees: nobody has more than `limits.most_records` items; repetitions and new wordings give
        way to a person's own records; every item belongs to the person of the record it came from.
    """
    by_person: dict[str, list[Record]] = {}
    for record in records:
        by_person.setdefault(record.person, []).append(record)
    factor = times(records, recipe, labels)
    translated = _translations(records, recipe.augment, translate)
    most = recipe.limits.most_records
    items: list[Item] = []
    for person, mine in sorted(by_person.items()):
        names = [_name(record, number) for number, record in enumerate(mine)]
        chosen = sorted(range(len(mine)), key=lambda n: draws.share("cap", person, names[n]))
        own = [mine[n] for n in sorted(chosen[:most])]
        items += (Item(record, "own") for record in own)
        extra: list[tuple[float, Item]] = []
        for number, record in enumerate(own):
            spot = (person, _name(record, number))
            for again in range(1, factor.get(class_of(record, labels), 1)):
                extra.append((draws.share("again", *spot, again), Item(record, "repeated")))
            for copy in range(recipe.augment.copies):
                for other in _reworded(record, recipe.augment, translated, draws, copy):
                    extra.append((draws.share("other", *spot, copy), Item(other, "reworded")))
        extra.sort(key=lambda one: one[0])
        items += (item for _, item in extra[: most - len(own)])
    return items


def mixed(
    public: Iterable[Record], private_persons: int, recipe: Recipe, draws: Draws
) -> list[Item]:
    """Public records, by public persons of their own.

    How many of them follows from how many persons train, which counts as public, and from the
    share; from nothing that a record says.
    """
    by_person: dict[str, list[Record]] = {}
    for record in public:
        by_person.setdefault(record.person, []).append(record)
    share = recipe.public.share
    count = round(share / (1 - share) * private_persons)
    chosen = sorted(by_person, key=lambda person: draws.share("public", person))[:count]
    most = recipe.limits.most_records
    return [Item(record, "public") for person in chosen for record in by_person[person][:most]]


def ordered(items: Sequence[Item], recipe: Recipe, draws: Draws) -> list[Item]:
    """All items in the recipe's order, which does not depend on what records say."""
    drawn = {
        number: draws.share("order", item.record.person, item.origin, _name(item.record))
        for number, item in enumerate(items)
    }
    first = recipe.order.by == "public-first"
    return [
        items[number]
        for number in sorted(drawn, key=lambda n: (first and items[n].origin != "public", drawn[n]))
    ]


def _name(record: Record, number: int = 0) -> str:
    """What tells a record from the person's others; its place in the file would tell of others."""
    return f"{number}\0{record.instruction}\0{record.response}"


def _translations(
    records: Sequence[Record], table: AugmentTable, translate: Translate | None
) -> dict[str, str]:
    if translate is None or not table.copies:
        return {}
    texts = sorted({record.instruction for record in records})
    return dict(zip(texts, translate(texts), strict=True))


def _reworded(
    record: Record, table: AugmentTable, translated: dict[str, str], draws: Draws, copy: int
) -> list[Record]:
    """One further wording of the question, or none where it would be the same again."""
    ways: list[str] = []
    for template in table.templates:
        ways.append(template.replace("{instruction}", record.instruction))
    if table.synonyms:
        pick = draws.share("synonym", record.person, _name(record), copy)
        ways.append(_with_synonyms(record.instruction, table.synonyms, pick))
    ways.append(translated.get(record.instruction, ""))
    ways = [way for way in dict.fromkeys(ways) if way.strip() and way != record.instruction]
    if not ways:
        return []
    if copy >= len(ways):
        return []
    start = int(draws.share("way", record.person, _name(record)) * len(ways))
    text = ways[(start + copy) % len(ways)]
    return [
        Record(record.person, text, record.response, record.category, record.institution,
               record.line, record.columns, record.rejected)
    ]  # fmt: skip


def _with_synonyms(text: str, groups: Sequence[Sequence[str]], pick: float) -> str:
    """Replace each word of a group by another of it; a capital at the beginning stays one."""
    for group in groups:
        known = {word.casefold(): at for at, word in enumerate(group)}
        words = "|".join(re.escape(word) for word in sorted(group, key=len, reverse=True))

        def other(
            match: re.Match[str], group: Sequence[str] = group, known: dict[str, int] = known
        ) -> str:
            at = known[match.group().casefold()]
            new = group[(at + 1 + int(pick * (len(group) - 1))) % len(group)]
            return new[:1].upper() + new[1:] if match.group()[:1].isupper() else new

        text = re.sub(rf"(?<!\w)(?:{words})(?!\w)", other, text, flags=re.IGNORECASE)
    return text
