"""When a run ends before its last round: a rule over losses on public records, and its check.

The coordinator and the verifier use the same function on the same logged numbers, so that what
the log says of a run's end follows from what it says before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from audit.events import Event
from audit.evidence import Collector, Evidence

KIND: Final = "public-loss"
OUTCOME: Final = "stopped"


def stops(losses: Sequence[str], *, patience: int, least_gain: str) -> bool:
    """Whether the rule ends the run after the rounds that these losses are of.

    Args:
        losses: one a round that was averaged, in order, as decimal text.
        patience: how many rounds in a row may gain too little.
        least_gain: by how much the best of them must be under the best before, to be a gain.

    >>> stops(["2.0", "1.5", "1.6", "1.4"], patience=2, least_gain="0.05")
    False
    >>> stops(["2.0", "1.5", "1.6", "1.49"], patience=2, least_gain="0.05")
    True
    """
    values = [Decimal(loss) for loss in losses]
    if not len(values) > patience >= 1:
        return False
    before, newest = min(values[:-patience]), min(values[-patience:])
    return not newest < before - Decimal(least_gain)


def check(evidence: Evidence, found: Collector) -> None:
    """Check that a run ended early if, and only if, its plan's rule and logged losses say so."""
    log, run = evidence.coordinator, evidence.run
    rule = _rule(evidence)
    judged = list(log.of(KIND, run))
    ends = list(log.of("run-finished", run))
    early = [(index, event) for index, event in ends if event.fields["outcome"] == OUTCOME]
    if rule is None:
        for index, _ in [*judged, *early]:
            text = "the plan has no rule to end the run by public records"
            found.add("meaning", "stopping-unplanned", log.place(index), text)
        return
    losses: list[str] = []
    averaged = [event.round for _, event in log.of("aggregation", run)]
    if [event.round for _, event in judged] != averaged[: len(judged)]:
        text = "the losses on public records are not of the rounds that were averaged, in order"
        found.add("meaning", "stopping-differs", log.where, text)
    for place, (index, event) in enumerate(judged):
        if event.fields["data_digest"] != rule.get("digest"):
            text = f"round {event.round} was judged on other records than the plan names"
            found.add("meaning", "stopping-differs", log.place(index), text)
        losses.append(event.fields["loss"])
        more = len(averaged) > place + 1
        if more and _stops(losses, rule):
            text = f"the plan's rule ended the run after round {event.round}, and it went on"
            found.add("meaning", "stopping-differs", log.place(index), text)
    for index, event in early:
        if len(losses) != len(averaged) or not _stops(losses, rule):
            text = "the run was ended early, and the plan's rule does not say so"
            found.add("meaning", "stopping-differs", log.place(index), text)
        else:
            found.notices.append(
                f"the run ended after {event.fields['rounds']} rounds, as its plan's rule says of "
                "losses on public records; the bundle has their digest and not the records"
            )


def _rule(evidence: Evidence) -> Mapping[str, Any] | None:
    started: tuple[int, Event] | None = evidence.started
    rule = started[1].fields["plan"].get("stopping") if started else None
    return rule if isinstance(rule, Mapping) else None


def _stops(losses: Sequence[str], rule: Mapping[str, Any]) -> bool:
    try:
        return stops(losses, patience=rule["patience"], least_gain=rule["least_gain"])
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return False
