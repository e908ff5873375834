"""Ends a run early by the loss on public records: free of epsilon, since no private one is read.

The budget of the whole plan stays reserved at the sites, as it was before the first round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audit import stopping
from audit.digests import file_digest
from audit.log import Log
from configs.run import Plan, Run, decimal
from server import closing, evaluate, plans
from server.errors import ServerError
from server.progress import Progress
from server.state import State

# Mean loss of the adapter, by name, on some rows.
Judge = Callable[[dict[str, Any]], float]


def rows_of(run: Run, plan: Plan, base: Path) -> tuple[tuple[str, str], ...]:
    """The public records that the plan's rule names; none without a rule.

    Raises:
        ServerError: the file is not there, or is another than the plan says.
    """
    if plan.stopping is None:
        return ()
    path = base / run.stopping.path
    rows = evaluate.read(path, limit=plan.stopping.limit)
    digest = file_digest(path)
    if digest != plan.stopping.digest:
        raise ServerError(
            f"{path} has the digest {digest}, which is not stopping.digest in RUN.toml; correct "
            "one of them",
            code="stopping-data",
        )
    return rows


@dataclass(slots=True)
class Stopping:
    """One run's rule. Callable: whether the run is over, with this many rounds closed."""

    log: Log
    state: State
    tell: Progress
    judge: Judge = field(repr=False)

    def __call__(self, closed: int) -> bool:
        """Judge the newest adapter if that was not done, and apply the rule to all losses.

        Guarantees: repeating it after a crash logs nothing twice.
        """
        plan, run = self.state.plan, self.state.plan.run
        if plan.stopping is None or closed == 0:
            return False
        logged = [entry.event for entry in self.log.entries(stopping.KIND, run)]
        losses = [str(event.fields["loss"]) for event in logged]
        newest = closed - 1
        averaged = closing.began(self.log, run, newest)
        if averaged and all(event.round != newest for event in logged):
            losses.append(decimal(round(self.judge(self.state.adapter(closed)), 6)))
            self.log.append(
                stopping.KIND,
                {"data_digest": plan.stopping.digest, "loss": losses[-1]},
                run=run,
                round=newest,
            )
            self.tell("public-loss", round=newest, loss=float(losses[-1]))
        return stopping.stops(
            losses,
            patience=plan.stopping.patience,
            least_gain=decimal(plan.stopping.least_gain),
        )


def judge(plan: Plan, rows: tuple[tuple[str, str], ...]) -> Judge:
    """Measures adapters of a plan on `rows`; the base model is loaded when it is first asked."""
    held: list[Any] = []

    def mean_loss(arrays: dict[str, Any]) -> float:
        from model import adapter, catalog, frozen, scoring
        from model import base as base_model

        spec = plans.adapter_spec(plan)
        if not held:
            found = catalog.find(plan.model, expect_digest=plan.model_digest)
            base = base_model.load(found)
            held.extend((base, adapter.attach(base, replace(spec, method="lora"))))
        base, model = held
        b, a = frozen.product(base.folder, spec, arrays)
        adapter.write(model, {**b, **a})
        return float(scoring.losses(model, base, rows).mean())

    return mean_loss
