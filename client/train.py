"""One round at the institution: train privately from the round's adapter, keep the change of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from client import border, people
from privacy.csprng import Csprng

if TYPE_CHECKING:
    from client.people import Scrub
    from configs.run import Plan
    from model.base import Base
    from model.labels import Labels
    from model.preferences import Preference
    from model.prompts import Example, Pack
    from privacy.arithmetic import Rounding
    from privacy.crew import Crew
    from privacy.schedule import Schedule

Float32 = npt.NDArray[np.float32]
Item: TypeAlias = "Example | Pack | Preference"

# By model, then by what else decides which arithmetic is done: seconds of work, once a process.
_measured: WeakKeyDictionary[Any, dict[tuple[Any, ...], Rounding]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Trained:
    """What one round of private training gives: the change of B, and the optimiser's state.

    The state is as private as the update and stays at the site.
    """

    delta: Mapping[str, Float32] = field(repr=False)
    state: Mapping[str, Any] = field(repr=False)


def train(
    model: Any,
    people: Sequence[tuple[Item, ...]],
    start: Mapping[str, Float32],
    plan: Plan,
    *,
    chunk_tokens: int,
    state: Mapping[str, Any] | None,
    labels: Labels | None = None,
    pace: Schedule | None = None,
    on_step: Callable[[int, int], None] | None = None,
    crew: Crew | None = None,
) -> Trained:
    """Run one round's noisy steps from the adapter `start`.

    Args:
        model: the base model with the plan's adapter attached.
        people: one item a person; empty for a person of whom nothing can be used.
        start: the adapter of this round by wire name.
        plan: the approved plan; its σ, C, q and steps are used as they are.
        chunk_tokens: how many padded tokens are computed at a time; bounds memory only. Of a
            longer note every layer is computed twice instead of kept.
        state: the optimiser's state after the last round.
        labels: from `labels_of`.
        pace: from `schedule`, where the run stands; None is at its first step.
        on_step: called with (steps done, steps of the round).
        crew: the processes that train this together; None is this one alone.

    Guarantees: the caller has charged the round; every random draw that touches a person (who is
        sampled, which notes, the noise) comes from a fresh CSPRNG.

    Raises:
        UnsupportedModel: the model or this machine does not keep people apart; see `examine`.
    """
    from model import adapter
    from privacy import dpsgd

    def drawn(person: Sequence[Item], randomness: Csprng) -> Item:
        return draw(person, plan, randomness)

    adapter.write(model, start)
    examine(model, plan, chunk_tokens=chunk_tokens, people=len(people), labels=labels)
    trained = dpsgd.train(
        model,
        [person or None for person in people],
        draw=drawn,
        loss=_loss(plan, chunk_tokens, labels),
        size=_tokens,
        settings=dpsgd.Settings(
            noise_multiplier=plan.noise_multiplier,
            clip_norm=plan.clip_norm,
            sample_rate=plan.sample_rate,
            steps=plan.steps_per_round,
            learning_rate=plan.training.learning_rate,
            optimizer=plan.training.optimizer,
            chunk_tokens=chunk_tokens,
            clipping=plan.clipping,
            schedule=schedule(plan) if pace is None else pace,
            weight_decay=plan.training.weight_decay,
        ),
        randomness=Csprng(),
        state=state,
        on_step=on_step,
        crew=crew,
    )
    return Trained(adapter.change(model, start), trained.state)


def schedule(plan: Plan, *, before: int = 0) -> Schedule:
    """The plan's schedule, as it stands after `before` noisy steps of the run."""
    from privacy.schedule import Schedule

    table = plan.training
    return Schedule(
        name=table.schedule,
        warmup=table.warmup_steps,
        floor=table.rate_floor,
        total=plan.steps,
        first=before,
    )


def _tokens(item: Item) -> int:
    return item.tokens


def items(scrub: Scrub, base: Base, model: Any, plan: Plan) -> tuple[tuple[Item, ...], ...]:
    """One item a person, of what the plan's objective learns from; see `people.group`.

    Args:
        scrub: what passed the scrub, and everybody.
        base: the model that encodes.
        model: the same with the plan's adapter attached; for preferences it is put back to its
            start, where it changes nothing: the base's judgement is the reference.
        plan: the plan that is to be trained.

    Raises:
        ClientError: nothing can be used of anybody.
    """
    from model import adapter, frozen

    table = plan.training
    if table.objective == "preference":
        adapter.write(model, frozen.start(base.folder, border.spec(plan.adapter)))
        return people.preferences(scrub, base, model, max_tokens=table.max_tokens)
    return people.group(
        scrub,
        base,
        max_tokens=table.max_tokens,
        labels=labels_of(plan, base),
        thoughts=table.thoughts == "learn",
    )


def labels_of(plan: Plan, base: Base) -> Labels | None:
    """The plan's labels, where it trains the choice among them; None where it trains any text."""
    from model.labels import Labels

    return Labels.of(base, plan.task.labels) if plan.training.objective == "label" else None


def draw(person: Sequence[Item], plan: Plan, randomness: Csprng) -> Item:
    """What one person brings into one step: up to the plan's number of their notes, at random.

    Notes are drawn without replacement; of several, those that do not fit into the plan's
    max_tokens beside the earlier ones stay out.
    """
    from model import prompts

    left = list(person)
    most = min(plan.notes_per_person, len(left))
    drawn = [left.pop(randomness.choice(len(left))) for _ in range(most)]
    if plan.notes_per_person == 1:
        return drawn[0]
    # Also a single note, so that which arithmetic is done does not depend on how many there are.
    return prompts.pack(cast("list[Example]", drawn), max_tokens=plan.training.max_tokens)


def examine(
    model: Any,
    plan: Plan,
    *,
    chunk_tokens: int,
    people: int = 1,
    labels: Labels | None = None,
) -> None:
    """Check, with made-up tokens only, that this machine keeps people apart to the last bits.

    Takes seconds the first time for a model, and nothing afterwards.

    Args:
        model: the base model with the plan's adapter attached.
        plan: the plan that is to be trained.
        chunk_tokens: as for `train`.
        people: how many there are, if that is known yet.
        labels: from `labels_of`.

    Raises:
        UnsupportedModel: the model is of a kind that cannot be trained a person at a time, or the
            machine's rounding mixes people by more than the clipping leaves free.
    """
    import torch

    from model import preferences, prompts
    from privacy import arithmetic

    def make(tokens: int, number: int) -> Item:
        if plan.training.objective == "preference":
            return preferences.made_up(model, tokens=tokens, number=number)
        example = prompts.made_up(model, tokens=tokens, number=number, labels=labels)
        return example if plan.notes_per_person == 1 else prompts.Pack((example,))

    longest = plan.training.max_tokens
    choices = labels.answers if labels else ()
    table = plan.training
    key = (longest, chunk_tokens, plan.notes_per_person, torch.get_num_threads(), choices,
           table.label_smoothing, table.objective, table.beta)  # fmt: skip
    known = _measured.setdefault(model, {})
    if key not in known:
        known[key] = arithmetic.measure(
            model,
            make=make,
            loss=_loss(plan, chunk_tokens, labels),
            longest=longest,
            chunk_tokens=chunk_tokens,
            shortest=max(8, 2 + max(map(len, choices), default=0)),
        )
    arithmetic.check(known[key], people=people)


def _loss(
    plan: Plan, chunk_tokens: int, labels: Labels | None = None
) -> Callable[[Any, Sequence[Any], int], Any]:
    from model import preferences, prompts

    def loss(model: Any, items: Sequence[Any], width: int) -> Any:
        if plan.training.objective == "preference":
            return preferences.loss(
                model, items, width, beta=plan.training.beta, recompute=width > chunk_tokens
            )
        return prompts.loss(
            model,
            items,
            width,
            labels=labels,
            smoothing=plan.training.label_smoothing,
            recompute=width > chunk_tokens,
        )

    return loss
