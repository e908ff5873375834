"""What a reading of a sample may conclude, and whether a log's reviews conclude no more.

Of n records drawn at random and read, with m of them still holding an identifier, the share p of
such records in the whole is bounded at 95 %: by 3/n where m is 0 (the rule of three, Hanley and
Lippman-Hand 1983), else by the one-sided limit of Clopper and Pearson (1934), the p at which m or
fewer misses have a chance of 5 %.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal

from audit.evidence import Collector, Evidence

CONFIDENCE = 0.95
MOST = 20_000
"""Most records of one review."""
_PLACES = Decimal("0.0001")


def miss_bound(misses: int, reviewed: int) -> str:
    """The bound on the share of records with a miss, rounded up to four decimals, at most 1.

    Args:
        misses: records of the reviewed ones in which an identifier was left.
        reviewed: records read, drawn at random.

    Raises:
        ValueError: fewer than no misses, or more misses than records.
    """
    if not 0 <= misses <= reviewed:
        raise ValueError("misses lie between 0 and the records reviewed")
    if misses == reviewed:
        return "1"
    if misses == 0:
        bound = Decimal(3) / reviewed
    else:
        low, high = misses / reviewed, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            rare = _at_most(misses, reviewed, middle) <= 1 - CONFIDENCE
            low, high = (low, middle) if rare else (middle, high)
        bound = Decimal(high)
    shown = min(bound.quantize(_PLACES, ROUND_CEILING), Decimal(1))
    return format(shown.normalize(), "f")


def _at_most(misses: int, reviewed: int, share: float) -> float:
    """The chance of at most so many misses if each record has one with chance `share` < 1."""
    if not share < 1:
        return 0.0
    return math.fsum(
        math.exp(
            math.lgamma(reviewed + 1) - math.lgamma(k + 1) - math.lgamma(reviewed - k + 1)
            + k * math.log(share) + (reviewed - k) * math.log1p(-share)
        )
        for k in range(misses + 1)
    )  # fmt: skip


def check(evidence: Evidence, found: Collector) -> None:
    """Check the sums and the bound of every review, and what it was a review of."""
    for site in evidence.sites.values():
        newest = None
        for index, event in site.of("scrub-review"):
            fields, place, newest = event.fields, site.place(index), event
            read = fields["accepted"] + fields["missed"] + fields["damaged"]
            if not 0 < read <= fields["sampled"] <= MOST:
                text = "the review counts more records than a sample can have, or none"
                found.add("meaning", "review-count", place, text)
            elif not Decimal(miss_bound(fields["missed"], read)) <= Decimal(fields["miss_bound"]):
                text = f"the bound does not follow from {fields['missed']} misses in {read} records"
                found.add("meaning", "review-bound", place, text)
        for _, scrubbed in site.of("pii-scrub", evidence.run):
            if newest is None:
                break
            if scrubbed.fields["scrubber_digest"] != newest.fields["scrubber_digest"]:
                found.notices.append(
                    f"{site.keys.name} reviewed another scrubber than the one that the run used"
                )
                break
