"""One round at the institution: charge, train privately, state it in the log, keep the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from privacy.csprng import Csprng

if TYPE_CHECKING:
    from configs.run import Plan
    from model.prompts import Example

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Trained:
    """What one round of private training gives: the change of B, and the optimiser's state.

    The state is as private as the update and stays at the site.
    """

    delta: Mapping[str, Float32] = field(repr=False)
    state: Mapping[str, Any] = field(repr=False)


def train(
    model: Any,
    people: Sequence[tuple[Example, ...]],
    start: Mapping[str, Float32],
    plan: Plan,
    *,
    chunk_tokens: int,
    state: Mapping[str, Any] | None,
    on_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Run one round's noisy steps from the adapter `start`.

    Args:
        model: the base model with the plan's adapter attached.
        people: one item a person, each with at least one example.
        start: the adapter of this round by wire name.
        plan: the approved plan; its σ, C, q and steps are used as they are.
        chunk_tokens: how many padded tokens are computed at a time; bounds memory only.
        state: the optimiser's state after the last round.
        on_step: called with (steps done, steps of the round).

    Guarantees: the caller has charged the round; every random draw that touches a person (who is
        sampled, which note, the noise) comes from a fresh CSPRNG.
    """
    from model import adapter, prompts
    from privacy import dpsgd

    adapter.write(model, start)
    trained = dpsgd.train(
        model,
        people,
        draw=lambda person, rng: person[rng.choice(len(person))],
        loss=prompts.loss,
        size=lambda example: len(example.ids),
        settings=dpsgd.Settings(
            noise_multiplier=plan.noise_multiplier,
            clip_norm=plan.clip_norm,
            sample_rate=plan.sample_rate,
            steps=plan.steps_per_round,
            learning_rate=plan.training.learning_rate,
            optimizer=plan.training.optimizer,
            chunk_tokens=chunk_tokens,
        ),
        randomness=Csprng(),
        state=state,
        on_step=on_step,
    )
    after = adapter.read(model)
    delta = {name: np.ascontiguousarray(after[name] - start[name]) for name in sorted(after)}
    return Trained(delta, trained.state)
