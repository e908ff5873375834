"""A run's twin: the same plan on made-up people and canaries, and what an attacker reads from it.

The twin trains as a round of a run does, on this machine, and nothing of it is ever sent as an
update. Its canaries are persons whose only record is a random text with a random secret, or, where
the plan learns a choice among labels, with a random label. Each is in, or zeroed out, by its own
coin, so that every canary is a test of the adjacency that the plan claims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from client import canaries
from client.border import spec
from client.train import Item, draw, labels_of, schedule, train
from configs.run import Plan
from privacy.attack import Bools, Float64
from privacy.csprng import Csprng

if TYPE_CHECKING:
    from model.base import Base
    from model.labels import Labels

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a twin is run.

    Attributes:
        persons: made-up people beside the canaries.
        canaries: each in by its own fair coin.
        looks: how often the attacker takes the canaries' gradients anew; the plan's noisy steps
            are spread over them.
    """

    persons: int
    canaries: int
    looks: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What the attacker has after the run.

    Attributes:
        included: the coins, shape (canaries,).
        gradients: score by the noised gradients of every step, shape (canaries,).
        losses: score by the loss before less after, shape (canaries,).
        verbatim: secrets that the model, asked for them, generates greedily to the letter.
    """

    included: Bools = field(repr=False)
    gradients: Float64 = field(repr=False)
    losses: Float64 = field(repr=False)
    verbatim: int


def observe(
    base: Base,
    model: Any,
    plan: Plan,
    size: Size,
    *,
    noise_multiplier: float,
    people: Sequence[tuple[Item, ...]] | None = None,
    chunk_tokens: int,
    progress: Progress,
) -> Observed:
    """Train a twin and attack it.

    Args:
        base: the base model.
        model: the same with the plan's adapter attached.
        plan: the plan; its steps, rate, clipping and optimiser are used as they are.
        size: how many people, canaries and looks.
        noise_multiplier: the plan's, or another to see whether the attack notices.
        people: one item a person; None for made-up ones.
        chunk_tokens: how many padded tokens are computed at a time.
        progress: called with (what, done, total).

    Guarantees: the model's adapter changes nothing afterwards, as it did before.

    Raises:
        ModelError, PrivacyError: the plan's model or numbers cannot be used.
    """
    from model import adapter, frozen
    from privacy import attack_canaries

    randomness = Csprng()
    labels, tokens = labels_of(plan, base), plan.training.max_tokens
    zero = frozen.start(base.folder, spec(plan.adapter))
    adapter.write(model, zero)  # what preferences are judged against
    judge = model if plan.training.objective == "preference" else None
    if people is None:
        people = canaries.people(
            base, size.persons, plan.task.labels, max_tokens=tokens, judge=judge
        )
    answers = plan.task.labels if labels else ()
    planted = canaries.plant(base, size.canaries, answers, max_tokens=tokens, judge=judge)
    included = randomness.uniform(size.canaries) < 0.5
    # Zeroed out like anybody of whom nothing can be used: how many there are tells no coin.
    coined = [(one,) if present else () for one, present in zip(planted, included, strict=True)]
    others = [person[0] for person in people if person]
    known = [draw((note,), plan, randomness) for note in (*planted, *others)]
    loss, recall = _attacker(plan, labels)
    shorten = attack_canaries.shortener(sum(array.size for array in zero.values()))
    look = partial(
        attack_canaries.gradients,
        model,
        known,
        shorten,
        loss=loss,
        clip_norm=plan.clip_norm,
        clipping=plan.clipping,
    )
    try:
        before, _ = recall(model, planted, partial(progress, "losses before"))
        scores = np.zeros(len(known))
        earlier = look(on_example=partial(progress, "gradients before"))
        state, done = None, 0
        for turn, steps in enumerate(_split(plan.steps, size.looks)):
            part = f"part {turn + 1} of {size.looks}"
            numbers = {"noise_multiplier": noise_multiplier, "steps_per_round": steps}
            with attack_canaries.watched(model) as seen:
                trained = train(
                    model,
                    [*people, *coined],
                    adapter.read(model),
                    plan.model_copy(update=numbers),
                    chunk_tokens=chunk_tokens,
                    state=state,
                    labels=labels,
                    pace=schedule(plan, before=done),
                    on_step=partial(progress, f"{part}, training"),
                )
            state, done = trained.state, done + steps
            now = look(on_example=partial(progress, f"{part}, gradients"))
            scores += attack_canaries.membership(
                earlier,
                now,
                shorten(seen.total),
                clip_norm=plan.clip_norm,
                noise_multiplier=noise_multiplier,
                sample_rate=plan.sample_rate,
            )
            earlier = now
        after, verbatim = recall(model, planted, partial(progress, "losses after"))
    finally:
        adapter.write(model, zero)
    # One of a few public labels is no secret, whoever says it.
    return Observed(included, scores[: size.canaries], before - after, 0 if labels else verbatim)


def _attacker(plan: Plan, labels: Labels | None) -> tuple[Any, Any]:
    """The plan's loss, and what asks a model for the canaries' answers."""
    from model import preferences, prompts

    table = plan.training
    if table.objective == "preference":
        return (
            partial(preferences.loss, beta=table.beta),
            partial(canaries.preferred, beta=table.beta),
        )
    loss = partial(prompts.loss, labels=labels, smoothing=table.label_smoothing)
    return loss, canaries.recall


def _split(steps: int, parts: int) -> list[int]:
    """The plan's steps in so many parts, as even as whole numbers go."""
    ends = [steps * part // parts for part in range(parts + 1)]
    return [after - before for before, after in pairwise(ends) if after > before]
