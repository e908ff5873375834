"""A review may conclude no more than its counts allow."""

from __future__ import annotations

import math
from typing import Any

import pytest

from audit.verify_review import miss_bound

SCRUB = "sha256:" + "a" * 64


def test_no_miss_in_sixty_is_the_rule_of_three() -> None:
    assert miss_bound(0, 60) == "0.05"
    assert miss_bound(0, 3) == miss_bound(0, 1) == miss_bound(4, 4) == "1"


@pytest.mark.parametrize(("misses", "read"), [(1, 60), (3, 50), (7, 200), (49, 50), (2, 20_000)])
def test_some_misses_are_bounded_by_clopper_and_pearson(misses: int, read: int) -> None:
    from scipy.stats import beta

    exact = beta.ppf(0.95, misses + 1, read - misses)
    shown = float(miss_bound(misses, read))
    assert exact <= shown <= exact + 1.001e-4


def test_the_bound_holds_as_often_as_it_says() -> None:
    share, read = 0.1, 40
    held = 0.0
    for misses in range(read + 1):
        chance = math.comb(read, misses) * share**misses * (1 - share) ** (read - misses)
        held += chance * (float(miss_bound(misses, read)) >= share)
    assert held >= 0.95
    # A bound that only repeats what was seen holds far less often.
    naive = sum(
        math.comb(read, m) * share**m * (1 - share) ** (read - m)
        for m in range(read + 1) if m / read >= share
    )  # fmt: skip
    assert naive < 0.7


def test_impossible_counts_are_refused() -> None:
    for misses, read in ((-1, 4), (5, 4)):
        with pytest.raises(ValueError, match="misses"):
            miss_bound(misses, read)


FIELDS = {
    "reviewer": "ada", "scrubber_digest": SCRUB, "sampled": 60, "accepted": 58, "missed": 1,
    "damaged": 1, "miss_bound": miss_bound(1, 60), "report_digest": SCRUB,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"miss_bound": "0.2"}, None),
        ({"miss_bound": "0.05"}, "review-bound"),
        ({"missed": 0, "accepted": 59, "miss_bound": "0.01"}, "review-bound"),
        ({"missed": 3}, "review-count"),
        ({"accepted": 0, "missed": 0, "damaged": 0}, "review-count"),
        ({"sampled": 10**9, "accepted": 10**9 - 2, "miss_bound": "0"}, "review-count"),
    ],
)
def test_a_review_that_claims_too_much_is_a_fault(
    federate: Any, judge: Any, tmp_path: Any, changes: dict[str, Any], code: str | None
) -> None:
    made = federate(tmp_path / "made")
    made.append(made.sites["alpha"], "scrub-review", {**FIELDS, **changes}, run=None)
    findings = judge(made.play().bundle())
    assert {fault.code for fault in findings.faults} == (set() if code is None else {code})
    # The run's own scrub is another one than was reviewed: said, and no fault.
    assert any("alpha reviewed another scrubber" in notice for notice in findings.notices)
