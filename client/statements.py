"""What an institution signs into its log about a charge, its records and a round: each form once.

A run, a search and whatever a person of the institution decided on say these with the same words,
which the gate, the coordinator and every verifier compare.
"""

from __future__ import annotations

from audit import canonical
from audit.events import Subject
from audit.log import Log, Receipt
from client import border, lineage, people
from client.folder import Folder
from client.trainer import Opened
from configs.run import Plan, decimal
from privacy.ledger import Reservation
from privacy.plan import Mechanism


def is_charged(log: Log, reservation: Reservation) -> bool:
    """Whether the log says already what the ledger reserved."""
    return any(
        entry.event.fields["ledger_head"] == reservation.head
        for entry in log.entries("budget-reserved")
    )


def charged(
    folder: Folder, log: Log, reservation: Reservation, *, row: Mechanism, rounds: int
) -> None:
    """State what the ledger reserved, with the commitment to the cohort in place of its name."""
    budget = folder.settings.budget
    opening = {"cohort": budget.cohort, "secret": folder.pseudonym_secret().hex()}
    log.append(
        "budget-reserved",
        {
            "plan_digest": reservation.plan_digest,
            "cohort_commitment": canonical.digest(canonical.encode(opening)),
            "noise_multiplier": decimal(row.noise_multiplier),
            "sample_rate": decimal(row.sample_rate),
            "steps": row.steps,
            "rounds": rounds,
            "delta": decimal(budget.delta),
            "epsilon_before": decimal(round(reservation.epsilon_before, 6)),
            "epsilon_after": decimal(round(reservation.epsilon_after, 6)),
            "cap": decimal(budget.epsilon),
            "ledger_head": reservation.head,
        },
        run=reservation.run,
    )


def opened(folder: Folder, log: Log, records: Opened, *, run: str) -> None:
    """State that records were opened and scrubbed; remember whose they were, here only."""
    lineage.remember(folder, run, records.lineage)
    log.append(
        "pii-scrub",
        {
            "profile": folder.settings.data.profile,
            "scrubber_digest": records.scrubber_digest,
            "records_commitment": people.keep_report(folder, records.report),
        },
        run=run,
    )


def trained(
    folder: Folder, log: Log, plan: Plan, *,
    digest: str, number: int, head: str, start: str, update: str,
) -> Receipt:  # fmt: skip
    """State one trained round.

    Args:
        folder: the institution.
        log: its log.
        plan: what was trained.
        digest: the plan's digest.
        number: the round.
        head: the ledger's head with this round's charge.
        start: digest of the adapter that the round began with.
        update: digest of the clipped, noised and cleared update.
    """
    return log.append(
        "dp-training",
        {
            "plan_digest": digest,
            "noise_multiplier": decimal(plan.noise_multiplier),
            "sample_rate": decimal(plan.sample_rate),
            "steps": plan.steps_per_round,
            "clip_norm": decimal(plan.clip_norm),
            "unit": plan.unit,
            "adjacency": plan.adjacency,
            "accountant": plan.accountant,
            "delta": decimal(plan.delta),
            "ledger_head": head,
            "input_digest": start,
            **border.stated_columns(folder, plan),
        },
        subjects=[Subject("update", update)],
        run=plan.run,
        round=number,
    )
