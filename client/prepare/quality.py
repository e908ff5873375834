"""The quality report of a prepared set: one page with pictures, which stays at the site."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from client.prepare import wording
from client.prepare.making import Item
from client.prepare.sides import SIDES, class_of
from client.prepare.sources import Source
from client.records import Record
from client.review_html import page as whole
from configs.prepare import Recipe

_REASONS: Final = {
    "empty": "nothing is left after cleaning",
    "mojibake": "letters were lost to a wrong code page",
    "unknown-label": "the answer is none of the recipe's labels",
    "too-short": "shorter than the recipe allows",
    "too-long": "longer than the recipe allows",
    "other-language": "in a language that the recipe does not name",
    "duplicate": "the same as another record of that person",
    "near-duplicate": "nearly the same as another record of that person",
    "duplicate-across": "nearly the same as another person's record",
    "like-another-side-validation": "left out of validation: resembles the side that trains",
    "like-another-side-test": "left out of the test: resembles a side before it",
}
_LIMITS: Final = (
    "This page depends on private records. It has mode 0600 and stays in the institution's folder.",
    "Nothing on it was paid for with ε. A plan, a label set or a recipe that is chosen because of "
    "what stands here tells something about the records, and nobody accounts for it.",
    "Languages are guessed by little words, and near-duplicates by word runs: both err.",
)
_SHOWN: Final = 12


def page(
    site: str,
    source: Source,
    recipe: Recipe,
    written: Mapping[str, Sequence[Item]],
    people: Mapping[str, Sequence[str]],
    began: Sequence[Record],
    dropped: Mapping[str, int],
    across: int,
    lines: Mapping[str, int],
    warnings: Sequence[str],
) -> str:
    """Write the page.

    Args:
        site: the institution's name.
        source: what was read.
        recipe: what was done.
        written: the items of each side.
        people: everybody on each side.
        began: the records before anything was done.
        dropped: how many went, by reason.
        across: records that resemble another person's.
        lines: lines that many persons share, with how many do.
        warnings: sentences to look at.

    Guarantees: every text is escaped; apart from the names of classes and the shared lines, no
        record's text is shown; each picture says in a label what it shows, and its numbers stand
        beside it.
    """
    labels = frozenset(recipe.labels.allowed)
    kept = sum(len(items) for items in written.values())
    tiles = [
        (f"{len(began):,}", "records read"),
        (f"{kept:,}", "records in the set"),
        (f"{sum(len(p) for p in people.values()):,}", "persons counted"),
        (f"{sum(dropped.values()):,}", "records left out"),
    ]
    asked = "".join(f"<li><b>{value}</b><span>{name}</span></li>" for value, name in tiles)
    parts = [
        f'<header><h1>Data quality at {escape(site)}</h1><p class="soft">Source read as '
        f"{escape(source.form)}; scope {escape(recipe.scope)}; persons split "
        f"{escape(recipe.split.ratio)}.</p></header>",
        f'<main id="main"><ul class="tiles">{asked}</ul>',
        *(f'<p class="note bad">{escape(sentence)}.</p>' for sentence in warnings),
        "<h2>Sides</h2>",
        _sides(written, people),
        "<h2>What was left out, and why</h2>",
        _gone(dropped, source),
        "<h2>Duplicates</h2>",
        _duplicates(dropped, across, recipe),
        "<h2>Length of a record, characters</h2>",
        _lengths(began, [item.record for items in written.values() for item in items]),
        "<h2>Records of a person in training</h2>",
        _per_person(written["train"], people["train"]),
        "<h2>Classes</h2>",
        _classes(written, labels),
        "<h2>Languages</h2>",
        _languages(began),
        "<h2>Lines that many persons share</h2>",
        _lines(lines, recipe),
        "</main>",
    ]
    foot = "".join(f"<p>{escape(sentence)}</p>" for sentence in _LIMITS)
    return whole(f"Data quality at {site}", "\n".join(parts), foot=foot)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text, the others are numbers unless they hold markup."""
    top = "".join(
        f'<th scope="col"{"" if at == 0 else " class=" + chr(34) + "n" + chr(34)}>{escape(h)}</th>'
        for at, h in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{cell}</td>" if at == 0 else f'<td class="n">{cell}</td>'
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="wrap"><table><tr>{top}</tr>{body}</table></div>'


def _sides(written: Mapping[str, Sequence[Item]], people: Mapping[str, Sequence[str]]) -> str:
    rows = []
    for side in SIDES:
        origins = Counter(item.origin for item in written[side])
        rows.append(
            (side, f"{len(people[side]):,}", f"{len(written[side]):,}",
             *(f"{origins[o]:,}" for o in ("own", "repeated", "reworded", "public")))
        )  # fmt: skip
    return _table(("side", "persons", "records", "own", "repeated", "reworded", "public"), rows) + (
        "<p>No person, template or near-duplicate stands on two sides. A person counts even if "
        "nothing of theirs was usable: how many there are must not tell what records say.</p>"
    )


def _gone(dropped: Mapping[str, int], source: Source) -> str:
    rows = [(escape(_REASONS.get(code, code)), f"{n:,}") for code, n in sorted(dropped.items())]
    faults = Counter(fault.code for fault in source.reading.faults)
    rows += [(f"could not be read: {escape(code)}", f"{n:,}") for code, n in sorted(faults.items())]
    if not rows:
        return "<p>Nothing was left out.</p>"
    return _table(("reason", "records"), rows) + (
        "<p>dropped.json beside this page has the line of each.</p>"
    )


def _duplicates(dropped: Mapping[str, int], across: int, recipe: Recipe) -> str:
    inside = dropped.get("duplicate", 0) + dropped.get("near-duplicate", 0)
    what = (
        "They were removed, and no private training accepts this set."
        if recipe.scope == "all"
        else "They stay in training: whether one person's record is used must not depend on "
        "another person. On the other sides, whatever resembles training is left out."
    )
    return (
        f"<p>{inside:,} records repeat another of the same person (similarity "
        f"{recipe.duplicates.similarity:g} or more) and were removed. {across:,} records resemble "
        f"another person's. {what}</p>"
    )


def _lengths(before: Sequence[Record], after: Sequence[Record]) -> str:
    edges = [0, 50, 100, 200, 400, 800, 1600, 3200, 8001]
    counts = []
    for records in (before, after):
        lengths = [len(r.instruction) + len(r.response) for r in records]
        counts.append([sum(a <= n < b for n in lengths) for a, b in itertools.pairwise(edges)])
    names = [f"{a}\u2013{b - 1}" for a, b in itertools.pairwise(edges)]
    while len(names) > 1 and not counts[0][-1] + counts[1][-1]:
        names.pop()
        for column in counts:
            column.pop()
    return _bars(names, (("read", counts[0]), ("in the set", counts[1])), "Records by length")


def _per_person(items: Sequence[Item], people: Sequence[str]) -> str:
    held = Counter(item.record.person for item in items)
    edges = [0, 1, 2, 3, 5, 9, 17, 33, 65, 10**9]
    names, counts = [], []
    for low, high in itertools.pairwise(edges):
        found = sum(low <= held[person] < high for person in people)
        names.append(str(low) if high == low + 1 else f"{low}\u2013{high - 1}" if high < 10**9
                     else f"{low} or more")  # fmt: skip
        counts.append(found)
    while len(counts) > 1 and not counts[-1]:
        names.pop()
        counts.pop()
    return _bars(names, (("persons", counts),), "Persons by number of records") + (
        "<p>One step of training takes a person's records as one and clips them together, so that "
        "many records of one person do not weigh more than few.</p>"
    )


def _classes(written: Mapping[str, Sequence[Item]], labels: frozenset[str]) -> str:
    by_side = {s: Counter(class_of(i.record, labels) for i in written[s]) for s in SIDES}
    total: Counter[str] = sum(by_side.values(), Counter())
    total.pop("", None)
    if not total:
        return "<p>The records name no classes.</p>"
    shown = [name for name, _ in total.most_common(_SHOWN)]
    sums = {side: max(1, sum(by_side[side].values())) for side in SIDES}
    rows = [
        (escape(name[:60]), *(f"{by_side[s][name]:,} ({by_side[s][name] / sums[s]:.1%})"
                              for s in SIDES))
        for name in shown
    ]  # fmt: skip
    spread = [n for n in total.values() if n]
    entropy = -sum(n / sum(spread) * math.log(n / sum(spread)) for n in spread)
    even = entropy / math.log(len(spread)) if len(spread) > 1 else 1.0
    more = (
        f", of which {len(total) - _SHOWN} rarer ones are not shown" if len(total) > _SHOWN else ""
    )
    return (
        _bars([name if len(name) < 25 else f"{name[:23]}\u2026" for name in shown],
              tuple((side, [by_side[side][name] for name in shown]) for side in SIDES),
              "Records by class and side")
        + _table(("class", *SIDES), rows)
        + f"<p>{len(total)} classes{more}; evenness {even:.2f}, where 1 is as many of each.</p>"
    )  # fmt: skip


def _languages(records: Sequence[Record]) -> str:
    found = Counter(
        wording.language((r.instruction, r.response)) or "too short to tell" for r in records
    )
    names = [name for name, _ in found.most_common()]
    return _bars(names, (("records", [found[name] for name in names]),), "Records by language")


def _lines(lines: Mapping[str, int], recipe: Recipe) -> str:
    if not lines:
        return (
            f"<p>No line stands in the records of {recipe.clean.boilerplate_persons} persons.</p>"
        )
    rows = [
        (escape(line[:200]), f"{count:,}")
        for line, count in sorted(lines.items(), key=lambda one: -one[1])[:_SHOWN]
    ]
    return _table(("line, in lower case, digits as 0", "persons"), rows)


def _bars(names: Sequence[str], series: Sequence[tuple[str, Sequence[int]]], title: str) -> str:
    """Horizontal bars, one group a name; series differ by their filling and not by colour alone."""
    thick = 14
    group = thick * len(series) + 12
    top = 28 if len(series) > 1 else 6
    most = max([1, *(n for _, counts in series for n in counts)])
    height = top + group * len(names)
    fills = ("1", "0.55", "0")
    parts = []
    if len(series) > 1:
        for at, (name, _) in enumerate(series):
            x = 190 + 110 * at
            parts.append(
                f'<rect x="{x}" y="6" width="12" height="12" fill="currentColor" '
                f'fill-opacity="{fills[at]}" stroke="currentColor"/>'
                f'<text x="{x + 18}" y="17" font-size="13" fill="currentColor">'
                f"{escape(name)}</text>"
            )
    for row, name in enumerate(names):
        y = top + row * group
        parts.append(
            f'<text x="180" y="{y + group / 2 - 2:.0f}" font-size="13" text-anchor="end" '
            f'fill="currentColor">{escape(name)}</text>'
        )
        for at, (_, counts) in enumerate(series):
            wide = 250 * counts[row] / most
            parts.append(
                f'<rect x="190" y="{y + at * thick}" width="{wide:.1f}" height="{thick - 3}" '
                f'fill="currentColor" fill-opacity="{fills[at]}" stroke="currentColor"/>'
                f'<text x="{196 + wide:.1f}" y="{y + at * thick + 10}" font-size="12" '
                f'fill="currentColor">{counts[row]:,}</text>'
            )
    return (
        f'<svg viewBox="0 0 500 {height}" width="560" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
