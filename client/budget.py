"""The budget to be looked at: what the ledger holds, its history, and what a next run would add."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.folder import Folder
from privacy import plan as accounting
from privacy.ledger import Charge
from privacy.plan import Mechanism

# Composing epsilon takes tens of milliseconds; the picture needs no more steps than this.
_MOST_POINTS = 40


@dataclass(frozen=True, slots=True)
class Point:
    """The cohort's ε at one moment: `reserved` counts whole plans, `spent` their begun rounds."""

    time: str
    run: str
    reserved: float
    spent: float

    def document(self) -> dict[str, Any]:
        """The point as JSON values."""
        return {
            "time": self.time,
            "run": self.run,
            "reserved_in_all": round(self.reserved, 6),
            "spent": round(self.spent, 6),
        }


def facts(folder: Folder, run_file: Path | None = None) -> dict[str, Any]:
    """Everything about the cohort's budget.

    Args:
        folder: the institution.
        run_file: RUN.toml of a run that may come next.

    Returns:
        JSON values: unit, adjacency, δ, cap, ε spent, reserved and left, the ledger's head, one row
        a run, the history, and under "next" what the run of `run_file` would cost.

    Raises:
        LedgerFault: the ledger is damaged. ConfigError, ModelError: see `client.estimate.plan`.
    """
    limits, ledger = folder.settings.budget, folder.ledger()
    balance = ledger.balance(limits.cohort, delta=limits.delta, cap=limits.epsilon)
    shown: dict[str, Any] = {
        "cohort": limits.cohort,
        "unit": "person",
        "adjacency": "zero-out",
        "delta": limits.delta,
        "cap": limits.epsilon,
        "spent": round(balance.spent, 6),
        "reserved": round(balance.reserved, 6),
        "left": round(balance.left, 6),
        "ledger_head": ledger.head(),
        "rows": [
            {
                "run": row.run,
                "plan_digest": row.plan_digest,
                "noise_multiplier": row.noise_multiplier,
                "sample_rate": row.sample_rate,
                "steps": row.steps,
                "rounds": row.rounds,
                "rounds_begun": row.rounds_begun,
                "epsilon_alone": round(accounting.epsilon([row.mechanism], delta=row.delta), 6),
                "time": row.time,
            }
            for row in balance.rows
        ],
        "history": [point.document() for point in history(folder)],
        "next": None,
    }
    if run_file is not None:
        shown["next"] = _next(folder, run_file)
    return shown


def _next(folder: Folder, run_file: Path) -> dict[str, Any]:
    from client import estimate

    found = estimate.plan(folder, run_file)
    before, after = found["epsilon_before"], found["epsilon_after"]
    return {
        "run": found["run"],
        "decision": found["decision"],
        "costs": round(after - before, 6),
        "epsilon_after": after,
        "left_after": round(max(0.0, folder.settings.budget.epsilon - after), 6),
    }


def history(folder: Folder) -> list[Point]:
    """The cohort's ε after each reservation and each of at most 40 begun rounds, oldest first."""
    limits = folder.settings.budget
    charges = folder.ledger().charges(limits.cohort)
    rounds = [number for number, charge in enumerate(charges) if charge.round is not None]
    stride = max(1, -(-len(rounds) // _MOST_POINTS))
    wanted = {*rounds[::stride], *rounds[-1:]}
    points: list[Point] = []
    begun: dict[str, tuple[Charge, int]] = {}
    reserved = spent = 0.0
    for number, charge in enumerate(charges):
        if charge.round is None:
            begun[charge.run] = (charge, 0)
            reserved = charge.epsilon_after
        else:
            plan, done = begun[charge.run]
            begun[charge.run] = (plan, done + 1)
            if number not in wanted:
                continue
            spent = accounting.epsilon(
                [
                    Mechanism(p.mechanism.noise_multiplier, p.mechanism.sample_rate, n * p.steps)
                    for p, n in begun.values()
                    if n
                ],
                delta=limits.delta,
            )
        points.append(Point(charge.time, charge.run, reserved, spent))
    return points
