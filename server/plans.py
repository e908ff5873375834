"""From a run to its plan: σ from the ε target, the adapter's frozen half, everything by digest."""

from __future__ import annotations

import math

from audit import canonical
from configs.run import Plan, Run
from model import catalog, frozen
from model.shapes import Spec
from privacy import plan as accounting

_ADAM_STEP = 7.28
# Far above the noise of any plan: an update over it is a fault or an attack.
_NO_BOUND = 1e6


def make(run: Run) -> Plan:
    """Fix the plan of `run` before round 1.

    Guarantees: PLD ε of the plan at its δ is at most the run's target; the model's digest is that
        of the files on this machine.

    Raises:
        ModelError: the base model is not here, or is another. PlanInvalid: no σ reaches the target.
    """
    found = catalog.find(run.model.name, expect_digest=run.model.digest)
    privacy = run.privacy
    sigma = accounting.find_noise(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        sample_rate=privacy.sample_rate,
        steps=privacy.rounds * privacy.steps_per_round,
    )
    return Plan.of(
        run,
        model_digest=found.digest,
        frozen_digest=frozen.digest(frozen.factors(found, adapter_spec(run))),
        noise_multiplier=sigma,
    )


def norm_limit(plan: Plan, values: int) -> float:
    """The largest joint l2 norm that an honest update of `values` numbers can have in one round.

    A step of Adam moves no number by more than the learning rate times the square root of
    sum(w_i^2 / v_i), by Cauchy and Schwarz over the two running means with weights w and v (Kingma
    and Ba 2015, section 2.1): under 7.28 for decays of 0.9 and 0.999 after any number of steps.
    A step of SGD divides by a number of people that only the site knows, so it has no such bound.
    """
    if plan.aggregation.max_update_norm > 0:
        return plan.aggregation.max_update_norm
    if plan.training.optimizer != "adamw":
        return _NO_BOUND
    most = _ADAM_STEP * plan.training.learning_rate * plan.steps_per_round
    return most * math.sqrt(values)


def adapter_spec(run: Run | Plan) -> Spec:
    """The adapter of a run or plan in the model package's terms."""
    return Spec(**run.adapter.model_dump())


def document(plan: Plan) -> bytes:
    """The plan's canonical JSON: what is sent, logged and digested."""
    return canonical.encode(plan.document())


def digest(plan: Plan) -> str:
    """The digest that identifies the plan in every statement about it."""
    return canonical.digest(document(plan))
