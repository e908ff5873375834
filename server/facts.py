"""What a release says of itself: the facts behind its card, bill of materials and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

from audit.events import Event
from server.errors import ServerError


@dataclass(frozen=True, slots=True)
class Claim:
    """The privacy claim of one institution; meaningless with any field left out.

    Attributes:
        institution: the name it is enrolled under.
        epsilon: cumulative over all rounds of this run and of its cohort's runs before it.
        delta: the δ that ε holds at.
        cap: the ε that the institution allows its cohort in total.
        unit: who one unit is, "person".
        adjacency: the neighbouring relation, e.g. "zero-out".
    """

    institution: str
    epsilon: float
    delta: float
    cap: float
    unit: str
    adjacency: str


@dataclass(frozen=True, slots=True)
class Participation:
    """Who took part in one round (0-based) and who did not.

    Attributes:
        averaged: whether the round changed the adapter; not where it missed its quorum.
    """

    round: int
    accepted: tuple[str, ...]
    rejected: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    averaged: bool = True


@dataclass(frozen=True, slots=True)
class Scores:
    """Utility on the evaluation records: shares in [0, 1] and a mean response loss in nats."""

    accuracy: float
    macro_f1: float
    loss: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of the base model and of the released one on the same records."""

    data: str
    records: int
    base: Scores
    released: Scores


@dataclass(frozen=True, slots=True)
class Mark:
    """What was committed about the watermark before the release."""

    strength: float
    reference_digest: str
    commitments: Mapping[str, str]  # recipient -> "sha256:<hex>" of subkey and nonce


@dataclass(frozen=True, slots=True)
class Audit:
    """What one institution's newest empirical audit of the run's plan said, as its log has it.

    Attributes:
        institution: who ran it, on its own machine, on made-up people.
        verdict: "passed", "failed" or "blind".
        epsilon: what the plan claims at `delta`.
        epsilon_bound: lower bound of ε by the guesses about the twin's canaries, 95 %.
        canaries: how many there were.
        tpr: share of present canaries found at 1 % false positives, with its 95 % interval.
        ceiling: the most that any attack finds there if the claim holds.
        mu_estimate: size of a canary in the step's output, in standard deviations of the noise.
        mu_expected: the same by the plan.
        control_bound: lower bound of ε on the control without noise.
        report_digest: of the whole report, which stays at the institution.
    """

    institution: str
    verdict: str
    epsilon: float
    delta: float
    epsilon_bound: float
    canaries: int
    tpr: tuple[float, float, float]
    ceiling: float
    mu_estimate: float
    mu_expected: float
    control_bound: float
    report_digest: str


def audit_of(institution: str, events: Iterable[Event], plan_digest: str) -> Audit | None:
    """Read the newest audit of a plan out of an institution's log; None if it holds none."""
    found = [
        event.fields
        for event in events
        if event.kind == "privacy-audit" and event.fields["plan_digest"] == plan_digest
    ]
    if not found:
        return None
    newest = found[-1]
    twin, mechanism = newest["twin"], newest["mechanism"]
    return Audit(
        institution=institution,
        verdict=newest["verdict"],
        epsilon=float(newest["epsilon"]),
        delta=float(newest["delta"]),
        epsilon_bound=float(twin["epsilon_bound"]),
        canaries=twin["canaries"],
        tpr=(float(twin["tpr"]), float(twin["tpr_low"]), float(twin["tpr_high"])),
        ceiling=float(twin["ceiling"]),
        mu_estimate=float(mechanism["mu_estimate"]),
        mu_expected=float(mechanism["mu_expected"]),
        control_bound=float(newest["control"]["epsilon_bound"]),
        report_digest=newest["report_digest"],
    )


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """Everything public about a release.

    Attributes:
        release: id of the release, also the served model's name.
        run: name of the run.
        coordinator: who cut it.
        software: name and version of what cut it, "privity 0.1.0".
        time: when, timezone-aware.
        licence: SPDX id of the adapter's licence, or a free name.
        base_model: public name of the base model, never a path.
        base_digest: digest of the base model's files.
        seed: public seed of the frozen factor A.
        plan: the whole plan that every institution approved.
        plan_digest: its digest in the log.
        institutions: who was invited.
        claims: one for each institution whose updates were accepted.
        rounds: participation of each round.
        data: public sentences about the data by heading; never counts of records or people.
        evaluation: None where nothing was evaluated, and the card says so.
        mark: None where the release is not watermarked, and the card says so.
        audits: empirical audits of the plan that the institutions' logs hold; may be none.
    """

    release: str
    run: str
    coordinator: str
    software: str
    time: datetime
    licence: str
    base_model: str
    base_digest: str
    seed: str
    plan: Mapping[str, Any]
    plan_digest: str
    institutions: tuple[str, ...]
    claims: tuple[Claim, ...]
    rounds: tuple[Participation, ...]
    data: Mapping[str, str]
    evaluation: Evaluation | None = None
    mark: Mark | None = None
    audits: tuple[Audit, ...] = ()

    @property
    def contributors(self) -> tuple[str, ...]:
        """Institutions with at least one accepted update, in name order."""
        return tuple(sorted({name for part in self.rounds for name in part.accepted}))

    @property
    def partial(self) -> bool:
        """Whether some invited institution is missing from some round."""
        return any(
            set(part.accepted) != set(self.institutions) or not part.averaged
            for part in self.rounds
        )


def check(facts: ReleaseFacts) -> None:
    """Refuse facts that would make an incomplete or untrue card.

    Raises:
        ServerError: a contributor without a claim, a claim that is not finite, lacks its unit or
            adjacency or exceeds its cap, no averaged round or one without an update, a participant
            that was not invited, or a time without a zone.
    """
    if facts.time.tzinfo is None:
        raise _refused(facts, "its time has no time zone")
    if not any(part.averaged for part in facts.rounds):
        raise _refused(facts, "no round was averaged")
    claimed = [claim.institution for claim in facts.claims]
    if len(set(claimed)) != len(claimed) or not set(facts.contributors) <= set(claimed):
        raise _refused(facts, "each contributor needs exactly one privacy claim")
    for part in facts.rounds:
        named = (*part.accepted, *part.rejected, *part.absent)
        if part.averaged and not part.accepted:
            raise _refused(facts, f"round {part.round} accepted no update")
        if sorted(named) != sorted(facts.institutions):
            raise _refused(
                facts, f"round {part.round} does not account for each invited institution once"
            )
    for claim in facts.claims:
        if not (isfinite(claim.epsilon) and 0 <= claim.epsilon <= claim.cap and claim.cap > 0):
            raise _refused(facts, f"the ε of {claim.institution} is not within its cap")
        if not 0 < claim.delta < 1:
            raise _refused(facts, f"the δ of {claim.institution} is not between 0 and 1")
        if not (claim.unit and claim.adjacency):
            raise _refused(facts, f"the claim of {claim.institution} lacks its unit or adjacency")
    if facts.evaluation is not None and not facts.evaluation.records > 0:
        raise _refused(facts, "its evaluation names no number of records")


def _refused(facts: ReleaseFacts, reason: str) -> ServerError:
    return ServerError(
        f"release {facts.release} cannot be cut: {reason}; correct the run's record",
        code="facts-incomplete",
        exit_code=3,
    )
