"""The arm of a search that trains on private records: every trial is paid for before any begins.

All settings are drawn before a record is opened, and all trials are reserved together. Were each
trial's noise and rate chosen after the scores of earlier ones, the ledger's sum would have no
theorem behind it: composition bounds mechanisms that are fixed beforehand. What a trial trained is
scored on public records alone, which costs nothing further.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from audit.digests import arrays_digest
from client import border, charge, decisions, people, statements, withdrawals
from client.cell import Cell
from client.errors import ClientError
from client.folder import Folder
from client.judge import judge, mechanism
from client.search.trial import Progress, moved
from client.trainer import Trains
from configs.run import Plan
from privacy import plan as accounting
from privacy.egress import clear


def names(count: int) -> list[str]:
    """Names for the trials as runs, in the ledger and in the log."""
    mark = secrets.token_hex(4)
    return [f"search-{mark}-{number}" for number in range(count)]


def cost(folder: Folder, plans: Sequence[Plan]) -> tuple[float, float]:
    """ε of the cohort before and after all trials, at the budget's δ, if the site allows each.

    Raises:
        ClientError: the site's rules or its budget forbid one of them; nothing was charged.
    """
    settings = folder.settings
    held = [row.mechanism for row in folder.ledger().rows(settings.budget.cohort)]
    before = accounting.epsilon(held, delta=settings.budget.delta)
    for number, plan in enumerate(plans):
        reason = judge(plan, settings, spent=tuple(held), reserved=False).reason
        if reason != "none":
            raise ClientError(
                f"trial {number + 1} of {len(plans)} is not allowed here ({reason}), and nothing "
                "was charged; lower epsilon in RUN.toml or --trials, or search on public records",
                code="trial-not-allowed",
                exit_code=3,
            )
        held.append(mechanism(plan))
    return before, accounting.epsilon(held, delta=settings.budget.delta)


def reserve(folder: Folder, plans: Sequence[Plan]) -> float:
    """Charge every trial, in ledger and log; done before, it changes nothing.

    Returns:
        ε of the cohort afterwards.

    Raises:
        BudgetExhausted: the cap was reached meanwhile.
    """
    if not folder.data.is_file():
        raise ClientError(f"{folder.data} does not exist; see site.toml", code="no-file")
    people.prepared(folder)
    withdrawals.check(folder)
    log, after = folder.log(), 0.0
    try:
        for plan in plans:
            decisions.remember(folder, plan)
            after = charge.reserve(
                folder, log, run=plan.run, plan_digest=decisions.digest(plan),
                row=mechanism(plan), rounds=plan.rounds,
            ).epsilon_after  # fmt: skip
    finally:
        log.close()
    return after


def check(folder: Folder, plan: Plan, *, trainer: Trains | None = None) -> None:
    """Load a trial's plan where it would be trained; opens no record and costs nothing.

    Raises:
        ClientError: it cannot be trained here, or not cut off as it must be (exit code 3).
    """
    with _loaded(folder, plan, trainer):
        pass


@contextmanager
def _loaded(folder: Folder, plan: Plan, trainer: Trains | None) -> Iterator[Trains]:
    inside = trainer or Cell(folder)
    try:
        reason = inside.load(plan, decisions.digest(plan))
        if reason != "none":
            raise ClientError(
                f"a trial cannot be trained here ({reason}); correct what the trainer said above, "
                "and search again",
                code=reason,
            )
        yield inside
    finally:
        stop = getattr(inside, "stop", None)
        if stop is not None:
            stop()


def train(
    folder: Folder,
    plan: Plan,
    start: Mapping[str, Any],
    *,
    trainer: Trains | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Train one reserved trial on the institution's people, in the cell that a run trains in.

    Args:
        folder: the institution; its folder is locked.
        plan: one of `reserve`.
        start: the adapter to start from.
        trainer: what opens records; a process of its own, cut off from the network, unless given.
        progress: called with (what, done, total).

    Returns:
        The trained adapter: a differentially private result, at the ε that was charged for it.

    Raises:
        ClientError, PrivacyError: the trial failed; what it was charged stays charged.
    """
    digest, current, state = decisions.digest(plan), dict(start), None
    with closing(folder.log()) as log, _loaded(folder, plan, trainer) as inside:
        log.append("trainer-started", {"network": inside.network}, run=plan.run)
        for number in range(plan.rounds):
            entry = arrays_digest(current)
            folder.ledger().begin_round(plan.run, number, input_digest=entry)
            records = inside.open()
            if records is not None:
                statements.opened(folder, log, records, run=plan.run)

            def on_step(done: int, total: int, at: int = number) -> None:
                progress("training", at * total + done, plan.rounds * total)

            trained = inside.train(current, state, on_step, before=number * plan.steps_per_round)
            cleared = clear(
                trained.delta,
                shapes=border.shapes_of(folder, plan),
                max_norm=folder.settings.policy.max_update_norm,
            )
            statements.trained(
                folder, log, plan, digest=digest, number=number, head=folder.ledger().head(),
                start=entry, update=arrays_digest(cleared.arrays),
            )  # fmt: skip
            current, state = moved(current, cleared.arrays), trained.state
    return current
