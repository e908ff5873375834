"""Columns that single people out together: how many persons share each combination of values.

Nobody is named by age, postal code or diagnosis alone; a few of them together often suffice
(Sweeney 2002). For each combination of up to three such columns this counts the persons who share
theirs with fewer than four others. Only counts leave here, never a value.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from client import columns
from client.records import Record

K: Final = 5
"""A person is counted as easy to single out below this many people with the same values."""
_MOST_COLUMNS: Final = 8
_MOST_COMBINED: Final = 3
_QUASI: Final = re.compile(
    r"(\w+_)?(age|sex|gender|race|ethnicity|religion|nationality|marital_status|occupation|job|"
    r"job_title|profession|employer|education|zip|zip_?code|post_?code|postal_code|city|town|"
    r"county|state|province|district|dob|birth_?(date|day|year)|year_of_birth|date_of_birth|"
    r"diagnosis|diagnoses|icd(_?\d+)?(_code)?|condition|disease|ward|admission_date|income|salary)"
    r"|性别|年龄|民族|职业|婚姻状况|邮编|城市|地区|籍贯|诊断|疾病|出生日期|学历|收入|科室"
)


@dataclass(frozen=True, slots=True)
class Combination:
    """Some columns together.

    Attributes:
        columns: their names.
        smallest: the fewest persons who share one combination of values.
        exposed: persons who share theirs with fewer than `K` - 1 others.
    """

    columns: tuple[str, ...]
    smallest: int
    exposed: int

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {"columns": list(self.columns), "smallest": self.smallest, "exposed": self.exposed}


def combinations(records: Iterable[Record], more: Sequence[str] = ()) -> tuple[Combination, ...]:
    """The combinations that expose somebody, most telling first.

    Args:
        records: all of a site's.
        more: further columns that the site names.

    Returns:
        Those with exposed persons, fewest columns first; a wider one is left out where it exposes
        nobody that a narrower one of it does not.
    """
    people: dict[str, dict[str, str]] = {}
    for record in records:
        mine = people.setdefault(record.person, {})
        for name, value in record.columns:
            if name in more or _QUASI.fullmatch(columns.plain(name)):
                mine.setdefault(name, value.strip().casefold())
    names = Counter(name for mine in people.values() for name in mine)
    chosen = [name for name, _ in names.most_common(_MOST_COLUMNS)]
    found: dict[frozenset[str], Combination] = {}
    for size in range(1, _MOST_COMBINED + 1):
        for group in itertools.combinations(chosen, size):
            counts = Counter(
                tuple(mine[name] for name in group)
                for mine in people.values()
                if all(name in mine for name in group)
            )
            exposed = sum(count for count in counts.values() if count < K)
            narrower = max(
                (made.exposed for key, made in found.items() if key < set(group)), default=0
            )
            if exposed > narrower:
                shown = tuple(name if re.fullmatch(r"[\w .-]{1,40}", name) else "(unnamed)"
                              for name in group)  # fmt: skip
                found[frozenset(group)] = Combination(shown, min(counts.values()), exposed)
    return tuple(found.values())
