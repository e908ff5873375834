"""One round at the institution: train privately from the round's adapter, keep the change of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
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

_STIRRED: Final = 0.1  # of a trained B's entries, roughly

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

    def looked_at(*, brief: bool) -> None:
        examine(model, plan, chunk_tokens=chunk_tokens, people=len(people), labels=labels,
                brief=brief)  # fmt: skip

    looked_at(brief=False)
    adapter.write(model, start)
    looked_at(brief=True)
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
    looked_at(brief=True)  # what the steps made of the weights, too
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


def check_room(plan: Plan, base: Base) -> None:
    """Check that the plan's max_tokens holds the chat format and any answer that it teaches.

    Raises:
        ModelError: it does not; a label would be cut, and be no label.
    """
    from model import preferences, prompts, thoughts
    from model.errors import ModelError

    most, labels = plan.training.max_tokens, labels_of(plan, base)
    if plan.training.thoughts == "learn":
        thoughts.encode(base, "", "<think>a</think>a", max_tokens=most, learn=True)
    if plan.training.objective == "preference":
        preferences.encode(base, "", "a", "b", max_tokens=most)
    for text in labels.texts if labels else ("a",):
        example = prompts.encode(base, "", text, max_tokens=most)
        if labels and example.ids[example.prompt_tokens :] not in labels:
            raise ModelError(
                f"a label of the plan has no room in max_tokens = {most} beside the model's chat "
                "format; ask the coordinator for a plan with more",
                code="too-few-tokens",
            )


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
    brief: bool = False,
) -> None:
    """Check, with made-up tokens only, that this machine keeps people apart to the last bits.

    Takes seconds the first time for a model, and nothing afterwards, unless `brief`.

    Args:
        model: the base model with the plan's adapter attached.
        plan: the plan that is to be trained.
        chunk_tokens: as for `train`.
        people: how many there are, if that is known yet.
        labels: from `labels_of`.
        brief: look at the smallest passes only, and anew, with the adapter that is on the model;
            else at all, with one as training might leave it, which is taken off again.

    Raises:
        UnsupportedModel: the model is of a kind that cannot be trained a person at a time, or the
            machine's rounding mixes people by more than the clipping leaves free.
    """
    import torch

    from model import adapter, preferences, prompts
    from privacy import arithmetic, dpsgd

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
    measure = partial(
        arithmetic.measure,
        model,
        make=make,
        loss=_loss(plan, chunk_tokens, labels),
        longest=longest,
        chunk_tokens=chunk_tokens,
        shortest=max(8, 2 + max(map(len, choices), default=0)),
    )
    known = _measured.setdefault(model, {})
    if brief:
        floor = plan.clip_norm if plan.clipping == "flat" else dpsgd.FLOOR
        found = measure(brief=True, floor=floor)
    elif key in known:
        found = known[key]
    else:
        # Where B is zero, as before the first round, its products round nothing.
        kept = adapter.read(model)
        adapter.write(model, {name: _stirred(array) for name, array in kept.items()})
        try:
            found = known[key] = measure()
        finally:
            adapter.write(model, kept)
    arithmetic.check(found, people=people)


def _stirred(array: Float32) -> Float32:
    """An array as training might leave it; no chance is in it."""
    waves = np.sin(np.arange(1, array.size + 1, dtype=np.float64)).reshape(array.shape)
    return (array + _STIRRED * waves).astype(np.float32)


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
