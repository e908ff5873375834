"""How a round's updates became one, in the words of the coordinator's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "mean": "uniform mean of B, A frozen",
    "trimmed-mean": "trimmed mean of B, {faulty} values off each end, A frozen",
    "median": "median of each number of B, A frozen",
    "krum": "the B closest to its neighbours (Krum, f = {faulty}), A frozen",
}


def words(plan: Mapping[str, Any]) -> str:
    """What an `aggregation` event of a run with this plan must say; empty for an unknown method.

    >>> words({})
    'uniform mean of B, A frozen'
    """
    how = plan.get("aggregation", {})
    if not isinstance(how, Mapping):
        return ""
    text = _WORDS.get(how.get("method", "mean"), "")
    return text.format(faulty=how.get("faulty", 0))
