"""A charge that a person of the institution decided on: ledger first, then log, then records."""

from __future__ import annotations

from audit.log import Log
from client import statements
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
    if not statements.is_charged(log, reservation):
        # Whoever gave the command decided; a verifier wants a yes before every charge.
        decision = {"plan_digest": plan_digest, "decision": "approved", "by": "operator"}
        log.append("approval", decision, run=run)
        statements.charged(folder, log, reservation, row=row, rounds=rounds)
    return reservation
