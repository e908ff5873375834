"""Layer three, meaning: budgets were kept, and updates, aggregates and release follow."""

from __future__ import annotations

from dataclasses import dataclass

from audit import (
    aggregation,
    canonical,
    stopping,
    verify_budget,
    verify_disclosures,
    verify_mark,
    verify_release,
    verify_review,
)
from audit import bundle as bundles
from audit.evidence import Collector, Evidence, Recompute
from audit.findings import InstitutionFinding, ReleaseFinding


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the run amounts to: budgets spent and the release."""

    institutions: tuple[InstitutionFinding, ...]
    release: ReleaseFinding | None
    rounds: int


def check(evidence: Evidence, found: Collector, *, recompute: Recompute) -> Meaning:
    """Check the run's plan, every institution's budget, the aggregates and the release."""
    _check_plan(evidence, found)
    verify_review.check(evidence, found)
    budgets = verify_budget.check(evidence, found, recompute=recompute)
    outputs = _check_aggregations(evidence, found)
    stopping.check(evidence, found)
    release = verify_release.check(evidence, found, outputs=outputs, budgets=budgets)
    verify_mark.check(evidence, found)
    for log in (evidence.coordinator, *evidence.sites.values()):
        name = log.keys.name
        shown = evidence.disclosures.get(name, ())
        verify_disclosures.check(log, shown, f"{bundles.DISCLOSURES}/{name}", found)
    rounds = sum(1 for _ in evidence.coordinator.of("round-closed", evidence.run))
    return Meaning(tuple(budget.finding for budget in budgets.values()), release, rounds)


def _check_plan(evidence: Evidence, found: Collector) -> None:
    """Check that the plan's digest is that of the plan, in the log and in the bundle."""
    if evidence.started is None:
        return
    index, event = evidence.started
    place = evidence.coordinator.place(index)
    digest = event.fields["plan_digest"]
    logged = canonical.encode(event.fields["plan"])
    if canonical.digest(logged) != digest:
        found.add("meaning", "plan-differs", place, "the plan's digest is not that of the plan")
    if evidence.plan != logged:
        text = "the plan in the bundle is not the one that the run was started with"
        found.add("meaning", "plan-differs", "plan.json", text)
    if not 0 < event.fields["quorum"] <= len(evidence.invited):
        found.add("meaning", "bad-quorum", place, "the quorum cannot be met or asks for nobody")


def _check_aggregations(evidence: Evidence, found: Collector) -> list[tuple[int, str]]:
    """Check that aggregates are made of the accepted updates, each from the one before.

    Returns:
        (index, output adapter) of every aggregation, in order.
    """
    log = evidence.coordinator
    outputs: list[tuple[int, str]] = []
    seen: set[int | None] = set()
    plan = evidence.started[1].fields["plan"] if evidence.started else {}
    method = aggregation.words(plan)
    for index, event in log.of("aggregation", evidence.run):
        place = log.place(index)
        if event.round in seen:
            text = f"round {event.round} was aggregated twice"
            found.add("meaning", "aggregation-repeated", place, text)
        inputs = sorted((i["institution"], i["update_digest"]) for i in event.fields["inputs"])
        accepted = sorted(
            (item.fields["institution"], item.fields["update_digest"])
            for _, item in log.of("update-accepted", evidence.run)
            if item.round == event.round
        )
        if inputs != accepted or not inputs:
            text = f"the aggregate of round {event.round} is not made of the accepted updates"
            found.add("meaning", "inputs-differ", place, text)
        if event.fields["method"] != method:
            text = f"round {event.round} was not combined in the way that the plan says"
            found.add("meaning", "method-differs", place, text)
        if outputs and event.fields["input_adapter"] != outputs[-1][1]:
            text = f"round {event.round} did not start from the aggregate before it"
            found.add("meaning", "chain-broken", place, text)
        seen.add(event.round)
        outputs.append((index, event.fields["output_adapter"]))
    if not aggregation.is_mean(plan):
        found.notices.append(
            "the aggregates were not computed again: a bundle holds the digests of the updates, "
            "and a robust rule cannot be followed by names"
        )
    for _, event in log.of("round-closed", evidence.run):
        if event.round not in seen:
            found.notices.append(f"round {event.round} missed its quorum and changed nothing")
    for lost in _rounds_at_quorum(evidence):
        if lost not in seen:
            text = f"round {lost} met the quorum and was never aggregated"
            found.add("meaning", "aggregation-missing", log.where, text)
    return outputs


def _rounds_at_quorum(evidence: Evidence) -> list[int]:
    quorum = max(evidence.quorum or 1, 1)
    return [
        event.round
        for _, event in evidence.coordinator.of("round-closed", evidence.run)
        if event.round is not None and len(event.fields["accepted"]) >= quorum
    ]
