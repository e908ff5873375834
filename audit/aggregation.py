"""How a round's updates became one, in the words of the coordinator's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "mean": "uniform mean of {trained}, {frozen} frozen",
    "trimmed-mean": "trimmed mean of {trained}, {faulty} values off each end, {frozen} frozen",
    "median": "median of each number of {trained}, {frozen} frozen",
    "krum": "the {trained} closest to its neighbours (Krum, f = {faulty}), {frozen} frozen",
}
# What an adapter trains and what it holds still; the rest is the same at every site.
_SPLIT = {"ffa-lora": ("B", "A"), "lora-xs": ("R", "A and L")}
_ALONE = "A and B of one institution"


def words(plan: Mapping[str, Any]) -> str:
    """What an `aggregation` event of a run with this plan must say; empty for an unknown method.

    >>> words({})
    'uniform mean of B, A frozen'
    >>> words({"adapter": {"method": "lora-xs"}, "aggregation": {"method": "median"}})
    'median of each number of R, A and L frozen'
    """
    rule, method = _rule(plan), adapter(plan)
    if method == "lora":
        sites = plan.get("institutions")
        alone = isinstance(sites, list) and len(sites) == 1
        return _ALONE if rule == "mean" and alone else ""
    if rule not in _WORDS or method not in _SPLIT:
        return ""
    trained, frozen = _SPLIT[method]
    faulty = plan.get("aggregation", {}).get("faulty", 0)
    return _WORDS[rule].format(faulty=faulty, trained=trained, frozen=frozen)


def is_mean(plan: Mapping[str, Any]) -> bool:
    """Whether a run with this plan takes the mean, which is no robust rule."""
    return _rule(plan) == "mean"


def adapter(plan: Mapping[str, Any]) -> str:
    """How a run with this plan trains its adapter; empty for what is no method."""
    return _entry(plan, "adapter", "ffa-lora")


def _rule(plan: Mapping[str, Any]) -> str:
    return _entry(plan, "aggregation", "mean")


def _entry(plan: Mapping[str, Any], table: str, default: str) -> str:
    held = plan.get(table, {})
    method = held.get("method", default) if isinstance(held, Mapping) else ""
    return method if isinstance(method, str) else ""
