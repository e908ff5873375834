"""What a release claims about a site is what the verifier finds in that site's log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from server import publish

PLAN: Any = SimpleNamespace(run="triage", unit="person", adjacency="zero-out")


def _reserved(run: str, cohort: str, epsilon: str, cap: str = "2", delta: str = "0.00001") -> Any:
    fields = {"cohort_commitment": cohort, "epsilon_after": epsilon, "cap": cap, "delta": delta}
    return SimpleNamespace(kind="budget-reserved", run=run, fields=fields)


def _claim(*events: Any) -> Any:
    mirror: Any = SimpleNamespace(events=lambda: events)
    (claim,) = publish._claims(PLAN, ["clinic-a"], {"clinic-a": mirror})
    return claim


def test_a_claim_is_what_the_runs_cohort_has_reserved_in_all() -> None:
    earlier, own = _reserved("first", "ward", "0.5"), _reserved("triage", "ward", "1.25")
    later = _reserved("third", "ward", "1.5", cap="3")
    assert _claim(earlier, own).epsilon == 1.25
    found = _claim(earlier, own, later)
    assert (found.epsilon, found.cap, found.delta) == (1.5, 2.0, 1e-5)


def test_another_cohorts_reservation_is_no_part_of_the_claim() -> None:
    other = _reserved("other", "outpatients", "0.1", cap="9", delta="0.0001")
    found = _claim(_reserved("triage", "ward", "1.25"), other)
    assert (found.epsilon, found.cap, found.delta) == (1.25, 2.0, 1e-5)
