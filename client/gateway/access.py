"""Who was served in a period, for the log: by caller, release, route and outcome; never what.

A caller is the name of an API key. The log gets a salted digest of it and the number of requests in
the power of ten; name and number lie in the log's erasable table.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

_MOST: Final = 256  # rows of a period; what comes beyond is summed up under OTHERS
OTHERS: Final = "others"
DOOR: Final = "door"
"""The route of what was turned away before it became a question."""


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One sort of access: whose key, which release, which route, how it ended."""

    caller: str
    model: str
    route: str
    outcome: str


class Access:
    """The accesses since they were last taken."""

    def __init__(self) -> None:
        self._rows: Counter[Row] = Counter()

    def note(self, row: Row) -> None:
        """Count one access."""
        if row not in self._rows and len(self._rows) >= _MOST:
            row = Row(OTHERS, row.model, row.route, row.outcome)
        self._rows[row] += 1

    def take(self) -> list[tuple[Row, int]]:
        """Every sort with its number, and begin anew."""
        rows, self._rows = self._rows, Counter()
        return sorted(rows.items())


def magnitude(count: int) -> str:
    """A number as the log says it."""
    if count >= 1000:
        return "1000-or-more"
    return "100-999" if count >= 100 else "10-99" if count >= 10 else "1-9"
