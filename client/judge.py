"""Whether a plan is acceptable: the site's rules against the coordinator's wish. Never clamps."""

from __future__ import annotations

from dataclasses import dataclass

from client import decisions
from configs.run import Plan
from configs.site import Site
from privacy import plan as accounting
from privacy.plan import Mechanism


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is "none" when the site's rules allow the plan; a word of `wire.DECLINES` else.

    Attributes:
        reason: why not, or "none".
        epsilon_before: ε of the cohort so far, at the budget's δ.
        epsilon_after: ε of the cohort with this plan on top.
        epsilon_run: ε of this plan alone.
    """

    reason: str
    epsilon_before: float
    epsilon_after: float
    epsilon_run: float


def mechanism(plan: Plan) -> Mechanism:
    """The whole plan as one row of the ledger."""
    return Mechanism(plan.noise_multiplier, plan.sample_rate, plan.steps)


def judge(plan: Plan, site: Site, *, spent: tuple[Mechanism, ...], reserved: bool) -> Verdict:
    """Hold `plan` against the site's policy and budget.

    Args:
        plan: what the coordinator proposes.
        site: what the institution allows.
        spent: every row of the cohort in the ledger.
        reserved: whether the ledger holds this plan's reservation among them already.

    Guarantees: recomputes ε itself by PLD and believes no number of the plan; a comparison with
        NaN declines.
    """
    row = mechanism(plan)
    alone = accounting.epsilon([row], delta=plan.delta)
    before = accounting.epsilon(list(spent), delta=site.budget.delta)
    after = before if reserved else accounting.epsilon([*spent, row], delta=site.budget.delta)
    return Verdict(_reason(plan, site, alone, after), before, after, alone)


def _reason(plan: Plan, site: Site, alone: float, after: float) -> str:
    if site.name not in plan.institutions or plan.quorum > len(plan.institutions):
        return "plan-inconsistent"
    if not alone <= plan.epsilon:
        return "plan-inconsistent"
    if plan.adapter.method == "lora" and 0 < site.runtime.columns < plan.adapter.rank:
        return "needs-all-columns"
    if plan.model not in site.policy.models:
        return "model-not-allowed"
    if site.policy.plans and decisions.digest(plan) not in site.policy.plans:
        return "plan-not-listed"
    if plan.delta != site.budget.delta:
        return "delta-mismatch"
    if plan.steps > site.policy.max_steps:
        return "too-many-steps"
    if not alone <= site.policy.run_epsilon:
        return "epsilon-over-policy"
    if not after <= site.budget.epsilon:
        return "epsilon-over-budget"
    return "none"
