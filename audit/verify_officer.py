"""Layer two, sign-offs: an officer writes into a log of their own, never into a party's."""

from __future__ import annotations

from audit.evidence import Collector, Evidence
from audit.kinds_officer import SIGN_OFF


def check(evidence: Evidence, found: Collector) -> None:
    """Check that no party signed off in its own log, which would look like somebody's review."""
    for log in (evidence.coordinator, *evidence.sites.values()):
        for index, _ in log.of(SIGN_OFF):
            text = f"{log.keys.name} signed off a review in its own log; an officer has another"
            found.add("completeness", "own-review", log.place(index), text)
