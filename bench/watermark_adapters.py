"""The adapters that the watermark is measured on: one trained at ε = 2, one without privacy.

Both have every matrix of the model as target (rank 8), because such a release has most to carry a
mark, and an attack that hides it there hides it anywhere. Training is done once and kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from bench import utility
from client import train as private
from configs.run import Run
from model import adapter, frozen, prompts, sensitivity
from model import base as base_model
from model.labels import Labels
from server import aggregate, plans

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SEED = 7
SHAPING = 16
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Trained:
    """One adapter: factors by wire name, and how it came about."""

    name: str
    b: Arrays
    a: Arrays
    scale: float
    sensitivity: Arrays


@dataclass
class Task(utility.Task):
    """A task of `bench/utility.py` whose adapter is on every matrix.

    `public` are the coordinator's records on which marks are shaped; no copy is judged on them.
    """

    public: Sequence[utility.Row] = ()

    def run(self, epsilon: float, institutions: Sequence[str]) -> Run:
        run = super().run(epsilon, institutions)
        return run.model_copy(
            update={"adapter": run.adapter.model_copy(update={"targets": MATRICES})}
        )


def read(data: Path, model: str, *, people: int, test_records: int, exact: bool = False) -> Task:
    """The task multidogo, with so many people at each of its four sites.

    `exact` loads the model in float32: rounding to bfloat16 would hide what a mark costs.
    """
    found = utility.read(
        utility.SETS["multidogo"], data, model, most=people, test_records=SHAPING + test_records
    )
    if exact:
        found.base = base_model.load(found.base.folder, precision="float32")
    task = Task(**{name: getattr(found, name) for name in found.__dataclass_fields__})
    task.public, task.test = task.test[:SHAPING], task.test[SHAPING:]
    return task


def train(task: Task, name: str, keep: Path, say: Callable[[str], None], *, steps: int) -> Trained:
    """Train `private` or `open` on the task, or read it back from `keep`.

    The model carries the adapter afterwards.
    """
    plan = plans.make(task.run(2.0, list(task.sites)))
    spec = plans.adapter_spec(plan)
    a = frozen.factors(task.base.folder, spec)
    model = adapter.attach(task.base, spec)
    if keep.exists():
        b = load_file(keep)
    else:
        b = _privately(task, model, plan, say) if name == "private" else _openly(task, model, steps)
        save_file({key: np.ascontiguousarray(x) for key, x in b.items()}, keep)
    adapter.write(model, b)
    return Trained(name, b, a, spec.scale, _sensitivity(task, model, keep))


def _sensitivity(task: Task, model: Any, keep: Path) -> Arrays:
    """What `server/evaluate.py` measures before a release is marked."""
    kept = keep.with_suffix(".sensitivity")
    if kept.exists():
        return load_file(kept)
    labels = Labels.of(task.base, task.labels)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_B" in name)
    found = sensitivity.second_moments(
        model, task.base, task.public, labels=labels, max_tokens=task.chosen.max_tokens
    )
    save_file({name: np.ascontiguousarray(x) for name, x in found.items()}, kept)
    return found


def _privately(task: Task, model: Any, plan: Any, say: Callable[[str], None]) -> Arrays:
    """What the institutions and the coordinator do in the rounds of a run."""
    labels = private.labels_of(plan, task.base)
    current = adapter.read(model)
    states: dict[str, Any] = dict.fromkeys(task.sites)
    for turn in range(plan.rounds):
        deltas = []
        for site in task.sites:
            say(f"private: round {turn + 1} of {plan.rounds}, {site}")
            trained = private.train(
                model, task.sites[site], current, plan,
                chunk_tokens=512, state=states[site], labels=labels,
            )  # fmt: skip
            states[site] = trained.state
            deltas.append(trained.delta)
        current = aggregate.mean(current, deltas)
    return current


def _openly(task: Task, model: Any, steps: int) -> Arrays:
    tune(task, model, steps=steps, rate=2e-3)
    return adapter.read(model)


def tune(
    task: Task,
    model: Any,
    *,
    steps: int,
    rate: float,
    both: bool = False,
    notes: Sequence[Any] = (),
) -> None:
    """Plain AdamW on the records of all sites, or on `notes`; `both` trains A as well."""
    labels = Labels.of(task.base, task.labels)
    notes = notes or [n for people in task.sites.values() for person in people for n in person]
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_B" in name or (both and "lora_A" in name))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    draws = random.Random(SEED)
    for _ in range(steps):
        batch = draws.sample(list(notes), min(16, len(notes)))
        for at in range(0, len(batch), 8):
            part = batch[at : at + 8]
            (prompts.loss(model, part, labels=labels).sum() / len(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()


def losses(task: Task, model: Any, b: Arrays, *, chosen: bool = True) -> np.ndarray:
    """Loss of each test record with the adapter `b`, in float32.

    Of the choice among the labels, or with `chosen` false of the response's tokens.
    """
    adapter.write(model, b)
    labels = Labels.of(task.base, task.labels) if chosen else None
    examples = sorted(
        (
            prompts.encode(task.base, ask, answer, max_tokens=task.chosen.max_tokens)
            for ask, answer in task.test
        ),
        key=lambda example: example.tokens,
    )
    with torch.inference_mode():
        found = [
            prompts.loss(model, examples[at : at + 16], labels=labels)
            for at in range(0, len(examples), 16)
        ]
    return torch.cat([x.double() for x in found]).numpy()


def loss(task: Task, model: Any, b: Arrays) -> float:
    """Mean of `losses`."""
    return float(losses(task, model, b).mean())
