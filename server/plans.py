"""From a run to its plan: σ from the ε target, the adapter's frozen half, everything by digest."""

from __future__ import annotations

from audit import canonical
from configs.run import Plan, Run
from model import catalog, frozen
from model.shapes import Spec
from privacy import plan as accounting


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
    spec = adapter_spec(run)
    return Plan(
        run=run.name,
        model=run.model.name,
        model_digest=found.digest,
        adapter=run.adapter,
        frozen_digest=frozen.digest(frozen.factors(found, spec)),
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        noise_multiplier=sigma,
        clip_norm=privacy.clip_norm,
        clipping=privacy.clipping,
        notes_per_person=privacy.notes_per_person,
        sample_rate=privacy.sample_rate,
        rounds=privacy.rounds,
        steps_per_round=privacy.steps_per_round,
        training=run.training,
        task=run.task,
        institutions=tuple(sorted(run.federation.institutions)),
        quorum=run.federation.quorum,
        round_timeout_s=run.federation.round_timeout_s,
    )


def adapter_spec(run: Run | Plan) -> Spec:
    """The adapter of a run or plan in the model package's terms."""
    table = run.adapter
    return Spec(
        method=table.method,
        rank=table.rank,
        alpha=table.alpha,
        targets=table.targets,
        seed=table.seed,
    )


def document(plan: Plan) -> bytes:
    """The plan's canonical JSON: what is sent, logged and digested."""
    return canonical.encode(plan.document())


def digest(plan: Plan) -> str:
    """The digest that identifies the plan in every statement about it."""
    return canonical.digest(document(plan))
