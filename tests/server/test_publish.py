"""What a release claims about a site is what the verifier finds in that site's log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from server import publish
from server.errors import ServerError

PLAN: Any = SimpleNamespace(run="triage", unit="person", adjacency="zero-out")


def _reserved(run: str, cohort: str, epsilon: str, cap: str = "2", delta: str = "0.00001") -> Any:
    fields = {"cohort_commitment": cohort, "epsilon_after": epsilon, "cap": cap, "delta": delta}
    return SimpleNamespace(kind="budget-reserved", run=run, fields=fields)


def _claim(*events: Any) -> Any:
    mirror: Any = SimpleNamespace(events=lambda: events)
    (claim,) = publish._claims(PLAN, ["clinic-a"], {"clinic-a": mirror})
    return claim


def test_a_claim_is_what_the_run_and_all_earlier_ones_have_reserved_under_its_cap() -> None:
    earlier, own = _reserved("first", "ward", "0.5"), _reserved("triage", "ward", "1.8")
    assert _claim(earlier, own).epsilon == 1.8
    later = _reserved("third", "ward", "3", cap="4")  # the cap was raised since
    found = _claim(earlier, own, later)
    assert (found.epsilon, found.cap, found.delta) == (1.8, 2.0, 1e-5)


def test_a_site_without_a_reservation_is_refused_with_a_sentence() -> None:
    with pytest.raises(ServerError, match="log of clinic-a holds no budget") as refused:
        _claim(_reserved("first", "ward", "0.5"))
    assert (refused.value.code, refused.value.exit_code) == ("not-reserved", 3)


def test_another_cohorts_reservation_is_no_part_of_the_claim() -> None:
    other = _reserved("other", "outpatients", "0.1", cap="9", delta="0.0001")
    found = _claim(_reserved("triage", "ward", "1.25"), other)
    assert (found.epsilon, found.cap, found.delta) == (1.25, 2.0, 1e-5)
