"""A charge that a person of the institution decided on: ledger first, then log, then records."""

from __future__ import annotations

from audit import canonical
from audit.events import decimal
from audit.log import Log
from client.folder import Folder
from privacy.ledger import Reservation
from privacy.plan import Mechanism


def reserve(
    folder: Folder, log: Log, *, run: str, plan_digest: str, row: Mechanism, rounds: int = 1
) -> Reservation:
    """Reserve a mechanism in the ledger, and say so in the log with the decision before it.

    Doing the same again changes nothing, as after a process that died in between.

    Args:
        folder: the institution.
        log: its log.
        run: the charge's name in ledger and log.
        plan_digest: of what is paid for.
        row: noise, rate and steps over all rounds.
        rounds: in how many parts it is begun; `Ledger.begin_round` is the caller's, before each.

    Raises:
        BudgetExhausted: the cap would be exceeded; nothing was charged or logged.
    """
    budget = folder.settings.budget
    reservation = folder.ledger().reserve(
        cohort=budget.cohort, run=run, plan_digest=plan_digest, mechanism=row, rounds=rounds,
        delta=budget.delta, cap=budget.epsilon,
    )  # fmt: skip
    logged = {entry.event.fields["ledger_head"] for entry in log.entries("budget-reserved")}
    if reservation.head in logged:
        return reservation
    secret = folder.pseudonym_secret().hex()
    commitment = canonical.digest(canonical.encode({"cohort": budget.cohort, "secret": secret}))
    # Whoever gave the command decided; a verifier wants a yes before every charge.
    log.append(
        "approval",
        {"plan_digest": plan_digest, "decision": "approved", "by": "operator"},
        run=run,
    )
    log.append(
        "budget-reserved",
        {
            "plan_digest": plan_digest,
            "cohort_commitment": commitment,
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
        run=run,
    )
    return reservation
