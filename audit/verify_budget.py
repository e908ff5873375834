"""Layer three, budgets: recompute epsilon from what each institution reserved, and compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit.events import Event
from audit.evidence import Collector, Evidence, LogView, Recompute
from audit.findings import InstitutionFinding

TOLERANCE = 1e-3
_ROUNDING = 1e-9  # two machines' sums of the same numbers


@dataclass(frozen=True, slots=True)
class Budget:
    """An institution's finding, and every epsilon that its log reached at or after the run."""

    finding: InstitutionFinding
    reached: tuple[float, ...]


def check(evidence: Evidence, found: Collector, *, recompute: Recompute) -> Mapping[str, Budget]:
    """Check every institution's reservations and trainings; return its budget by name."""
    return {
        name: _check_site(evidence, site, found, recompute) for name, site in evidence.sites.items()
    }


def _check_site(
    evidence: Evidence, site: LogView, found: Collector, recompute: Recompute
) -> Budget:
    reserved = _reservations(site, found)
    epsilons = _recomputed(site, reserved, found, recompute)
    _check_trainings(site, reserved, found)
    _check_approvals(site, found)
    _check_egress(evidence, site, found)
    _tell(evidence, site, found)
    accepted = sum(
        1
        for _, event in evidence.coordinator.of("update-accepted", evidence.run)
        if event.fields["institution"] == site.keys.name
    )
    own = next(((i, e) for i, e in reserved if e.run == evidence.run), None)
    plan = evidence.started[1].fields["plan_digest"] if evidence.started else None
    if own is not None and own[1].fields["plan_digest"] != plan:
        text = "the budget was reserved for another plan than the run's"
        found.add("meaning", "plan-differs", site.place(own[0]), text)
    cohorts = {event.fields["cohort_commitment"] for _, event in reserved}
    if len(cohorts) > 1:
        found.notices.append(
            f"{site.keys.name} has {len(cohorts)} cohorts, each with an epsilon of its own"
        )
    reached: list[float] = []
    if own is not None:
        for index, event in reserved:
            same = event.fields["cohort_commitment"] == own[1].fields["cohort_commitment"]
            if same and index >= own[0] and index in epsilons:
                reached.append(epsilons[index])
    trained = next((e for _, e in site.of("dp-training", evidence.run)), None)
    finding = InstitutionFinding(
        name=site.keys.name,
        epsilon=reached[-1] if reached else None,
        cap=None if own is None else float(own[1].fields["cap"]),
        delta=None if own is None else float(own[1].fields["delta"]),
        unit=None if trained is None else trained.fields["unit"],
        adjacency=None if trained is None else trained.fields["adjacency"],
        accountant=None if trained is None else trained.fields["accountant"],
        rounds_accepted=accepted,
        rounds_reserved=0 if own is None else own[1].fields["rounds"],
    )
    return Budget(finding, tuple(reached))


def _reservations(site: LogView, found: Collector) -> list[tuple[int, Event]]:
    """Return the reservations, one a run: saying the same again on resuming adds nothing."""
    kept: dict[str | None, tuple[int, Event]] = {}
    for index, event in site.of("budget-reserved"):
        earlier = kept.get(event.run)
        if earlier is None:
            kept[event.run] = (index, event)
        elif dict(earlier[1].fields) != dict(event.fields):
            text = f"the reservation for run {event.run} was changed"
            found.add("meaning", "reservation-changed", site.place(index), text)
    return list(kept.values())


def _recomputed(
    site: LogView,
    reserved: Sequence[tuple[int, Event]],
    found: Collector,
    recompute: Recompute,
) -> dict[int, float]:
    """Recompute epsilon before and after each reservation, over all of its cohort."""
    epsilons: dict[int, float] = {}
    cohorts: dict[str, list[tuple[float, float, int]]] = {}
    known: dict[tuple[tuple[tuple[float, float, int], ...], float], float] = {}
    for index, event in reserved:
        fields, place = event.fields, site.place(index)
        rows = cohorts.setdefault(fields["cohort_commitment"], [])
        row = (float(fields["noise_multiplier"]), float(fields["sample_rate"]), fields["steps"])
        rounds, delta = fields["rounds"], float(fields["delta"])
        if not rounds >= 1 or not row[2] >= 1 or row[2] % rounds:
            text = "the reserved steps are not a whole number for each round"
            found.add("meaning", "bad-reservation", place, text)
        values = []
        for parts in (tuple(rows), (*rows, row)):
            try:
                if (parts, delta) not in known:
                    known[parts, delta] = float(recompute(parts, delta)) if parts else 0.0
                values.append(known[parts, delta])
            except Exception as error:  # the caller's accountant may refuse in its own way
                text = f"epsilon cannot be recomputed ({type(error).__name__})"
                found.add("meaning", "epsilon-not-recomputable", place, text)
                values.append(math.nan)
        rows.append(row)
        for value, name in zip(values, ("epsilon_before", "epsilon_after"), strict=True):
            if not abs(value - float(fields[name])) <= TOLERANCE:
                text = f"{name} is logged as {fields[name]} and recomputed as {value:.6f}"
                found.add("meaning", "epsilon-differs", place, text)
        if not values[1] <= float(fields["cap"]) + _ROUNDING:
            text = f"epsilon {values[1]:.6f} is over the cap {fields['cap']}"
            found.add("meaning", "over-cap", place, text)
        if math.isfinite(values[1]):
            epsilons[index] = values[1]
    return epsilons


def _check_trainings(
    site: LogView, reserved: Sequence[tuple[int, Event]], found: Collector
) -> None:
    """Check that each training is a round of a reservation made before it, and only once."""
    by_run = {event.run: (index, event) for index, event in reserved}
    begun: dict[str | None, set[int | None]] = {}
    for index, event in site.of("dp-training"):
        place, fields = site.place(index), event.fields
        reservation = by_run.get(event.run)
        if reservation is None or not reservation[0] < index:
            text = f"round {event.round} was trained without a reservation before it"
            found.add("meaning", "not-reserved", place, text)
            continue
        held = reservation[1].fields
        same = (
            fields["plan_digest"] == held["plan_digest"]
            and all(
                float(fields[name]) == float(held[name])
                for name in ("noise_multiplier", "sample_rate", "delta")
            )
            and fields["steps"] * held["rounds"] == held["steps"]
        )
        if not same:
            text = f"round {event.round} was trained with other parameters than were reserved"
            found.add("meaning", "parameters-differ", place, text)
        rounds = begun.setdefault(event.run, set())
        if event.round in rounds:
            text = f"round {event.round} was trained twice"
            found.add("meaning", "round-repeated", place, text)
        rounds.add(event.round)
        within = event.round is not None and event.round < held["rounds"]
        if not within:
            text = f"round {event.round} is beyond the {held['rounds']} rounds that were reserved"
            found.add("meaning", "over-reserved", place, text)


def _check_approvals(site: LogView, found: Collector) -> None:
    """Check that the last decision on a plan before each training or reservation is a yes."""
    approved: set[tuple[str | None, str]] = set()
    for index, event in site.events.of("approval", "budget-reserved", "dp-training"):
        key = (event.run, event.fields.get("plan_digest", ""))
        if event.kind == "approval":
            (approved.add if event.fields["decision"] == "approved" else approved.discard)(key)
        elif key not in approved:
            text = f"the {event.kind} has no approval of its plan before it"
            found.add("meaning", "not-approved", site.place(index), text)


def _check_egress(evidence: Evidence, site: LogView, found: Collector) -> None:
    """Check that the site's gate cleared every update that the coordinator accepted."""
    verdicts: dict[tuple[int | None, str], str] = {
        (event.round, event.fields["update_digest"]): event.fields["verdict"]
        for _, event in site.of("egress", evidence.run)
    }
    for index, event in evidence.coordinator.of("update-accepted", evidence.run):
        if event.fields["institution"] != site.keys.name:
            continue
        if verdicts.get((event.round, event.fields["update_digest"])) != "cleared":
            text = f"the gate of {site.keys.name} did not clear the update of round {event.round}"
            found.add("meaning", "not-cleared", evidence.coordinator.place(index), text)


def _tell(evidence: Evidence, site: LogView, found: Collector) -> None:
    """Give notice of what a reader should know and what is no fault of the evidence."""
    words = {event.fields["word"] for _, event in site.of("request-refused")}
    if words:
        found.notices.append(f"{site.keys.name} refused requests: {', '.join(sorted(words))}")
    started = list(site.of("trainer-started", evidence.run))
    if any(event.fields["network"] != "none" for _, event in started):
        found.notices.append(
            f"{site.keys.name} could not cut its trainer off from the network in this run"
        )
    trained = next((index for index, _ in site.of("dp-training", evidence.run)), None)
    if started and trained is not None and not started[0][0] < trained:
        text = "the trainer's start is stated after its first training"
        found.add("meaning", "trainer-late", site.place(started[0][0]), text)
