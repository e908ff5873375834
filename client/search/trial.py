"""One trial: the plan's private recipe in full, and how the result does on public records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from client import train as training
from client.search.proxy import Proxy
from configs.run import Plan

if TYPE_CHECKING:
    from model.base import Base
    from model.labels import Labels
    from model.prompts import Example

Progress = Callable[[str, int, int], None]
_ROWS = 16


@dataclass(frozen=True, slots=True)
class Score:
    """On the proxy's held-out records.

    Attributes:
        loss: mean of the training objective: nats a token of the response, or, with labels, nats
            of the choice among them.
        accuracy: share of right choices among the labels; None without labels.
    """

    loss: float
    accuracy: float | None


def rehearse(
    base: Base,
    model: Any,
    plan: Plan,
    proxy: Proxy,
    *,
    persons: int,
    chunk_tokens: int,
    progress: Progress,
) -> Score:
    """Train on the proxy as an institution of `persons` persons would, and score.

    Args:
        base: the base model.
        model: the same with the plan's adapter attached.
        plan: its σ, q, steps, clipping, schedule and optimiser are used as they are.
        proxy: public records.
        persons: at the institution that the run is for; the noise of a step is scaled so that the
            mean gradient over the smaller or larger proxy has the noise of the run's.
        chunk_tokens: how many padded tokens are computed at a time.
        progress: called with (what, done, total).

    Raises:
        UnsupportedModel: see `client.train`.
    """
    from model import adapter

    scaled = plan.model_copy(
        update={"noise_multiplier": plan.noise_multiplier * len(proxy.people) / persons}
    )
    labels = training.labels_of(plan, base)
    current, state = adapter.read(model), None

    def on_step(done: int, total: int) -> None:
        progress("training", number * total + done, plan.rounds * total)

    for number in range(plan.rounds):
        trained = training.train(
            model,
            proxy.people,
            current,
            scaled,
            chunk_tokens=chunk_tokens,
            state=state,
            labels=labels,
            pace=training.schedule(plan, before=number * plan.steps_per_round),
            on_step=on_step,
        )
        current, state = moved(current, trained.delta), trained.state
    adapter.write(model, current)
    return score(base, model, proxy, labels, progress)


def moved(current: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter after a round, of which a narrow machine trains the first columns only."""
    after = {name: np.array(array) for name, array in current.items()}
    for name, change in delta.items():
        after[name][:, : change.shape[1]] += change
    return after


def score(base: Base, model: Any, proxy: Proxy, labels: Labels | None, progress: Progress) -> Score:
    """Score the model as it is on the proxy's held-out records."""
    from model import scoring

    losses = _losses(model, proxy.held, labels, progress)
    if labels is None:
        return Score(float(losses.mean()), None)
    asked = [row[0] for row in proxy.asked]
    chosen = scoring.choose(model, base, asked, labels.texts, rule="choice")
    right = [
        labels.texts[best] == row[1].strip()
        for best, row in zip(chosen.best, proxy.asked, strict=True)
    ]
    return Score(float(losses.mean()), float(np.mean(right)))


def _losses(
    model: Any, examples: Sequence[Example], labels: Labels | None, progress: Progress
) -> Any:
    import torch

    from model import prompts

    ordered = sorted(examples, key=lambda example: example.tokens)
    found = []
    with torch.inference_mode():
        for start in range(0, len(ordered), _ROWS):
            part = ordered[start : start + _ROWS]
            found.append(prompts.loss(model, part, labels=labels).double().cpu().numpy())
            progress("scoring", start + len(part), len(ordered))
    return np.concatenate(found)
