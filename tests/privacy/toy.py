"""A small model, made-up people, and the sums that a training call really handed on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privacy import dpsgd
from privacy.csprng import Csprng
from privacy.dpsgd import Settings
from privacy.ledger import Ledger
from privacy.plan import Mechanism

Note = tuple[float, ...]
DELTA = 1e-5
DIGEST = "sha256:" + "0" * 64
QUIET = 1e-12  # noise multiplier of a test that looks at the clipped sums alone


def reserve(book: Ledger, run: str, row: Mechanism, rounds: int = 1, **more: Any) -> Any:
    """Reserve `row` for one cohort with a cap of 2, if `more` says nothing else."""
    request: dict[str, Any] = {"cohort": "ward", "plan_digest": DIGEST, "delta": DELTA, "cap": 2.0}
    return book.reserve(run=run, mechanism=row, rounds=rounds, **(request | more))


class Scores(nn.Module):
    """Two layers of 6,000 trainable weights, the same in every test."""

    def __init__(self, width: int = 60) -> None:
        super().__init__()
        self.first = nn.utils.skip_init(nn.Linear, 3, width, bias=False)
        self.second = nn.utils.skip_init(nn.Linear, width, 100 - 3, bias=False)
        for layer in (self.first, self.second):  # no generator is asked: see the tests of seeds
            shape = layer.weight.shape
            layer.weight.data = 0.3 * torch.arange(shape.numel()).mul(2.4).sin().view(shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def _errors(model: nn.Module, notes: Sequence[Note], width: int | None) -> tuple[Tensor, Tensor]:
    longest = max(1, width or 0, *map(len, notes))
    x, mask = torch.zeros(len(notes), longest, 3), torch.zeros(len(notes), longest)
    for row, note in enumerate(notes):
        mask[row, : len(note)] = 1.0
        for place, value in enumerate(note):
            x[row, place] = torch.tensor([value, math.sin(place), 1.0])
    return (model(x) - 3.0).square().sum(-1) * mask, mask


def person_mean(model: nn.Module, notes: Sequence[Note], width: int | None = None) -> Tensor:
    """Mean over each note's own tokens; a note without any has the loss 0."""
    each, mask = _errors(model, notes, width)
    return each.sum(1) / mask.sum(1).clamp(min=1.0)


def batch_mean(model: nn.Module, notes: Sequence[Note], width: int | None = None) -> Tensor:
    """The loss of common training code: a mean over all tokens of the batch."""
    each, mask = _errors(model, notes, width)
    return each.sum(1) / mask.sum().clamp(min=1.0) * len(notes)


def pad_mean(model: nn.Module, notes: Sequence[Note], width: int | None = None) -> Tensor:
    """A mean that counts padding: what it gives one depends on the longest beside them."""
    each, _ = _errors(model, notes, width)
    return each.mean(1)


@contextmanager
def applied(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what every step of plain SGD takes off the weights, over its learning rate."""
    taken: list[Tensor] = []
    step = torch.optim.SGD.step

    def recording(self: Any, closure: Any = None) -> Any:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        taken.append(torch.cat([weight.grad.detach().double().flatten() for weight in weights]))
        return step(self, closure)

    with mock.patch.object(torch.optim.SGD, "step", recording):
        yield taken


def sums(
    people: Sequence[Any],
    *,
    randomness: Csprng | None = None,
    loss: Any = person_mean,
    draw: Any = lambda person, _: person,
    size: Any = len,
    on_step: Any = None,
    model: nn.Module | None = None,
    **changes: Any,
) -> Tensor:
    """Train, and return every step's noisy sum over people: float64, shape (steps, weights)."""
    numbers: dict[str, Any] = {
        "noise_multiplier": QUIET,
        "clip_norm": 1.0,
        "sample_rate": 1.0,
        "steps": 1,
        "learning_rate": 1e-3,
        "optimizer": "sgd",
        "chunk_tokens": 64,
    } | changes
    model = Scores() if model is None else model
    with applied(model) as taken:
        dpsgd.train(
            model,
            people,
            draw=draw,
            loss=loss,
            size=size,
            settings=Settings(**numbers),
            randomness=randomness or Csprng(),
            on_step=on_step,
        )
    return torch.stack(taken) * (len(people) * numbers["sample_rate"])


class Recording(Csprng):
    """The real source, remembering what it was asked for and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.noise: list[npt.NDArray[np.float64]] = []
        self.stds: list[float] = []
        self.asked: list[tuple[int, float]] = []
        self.sampled: list[npt.NDArray[np.int64]] = []

    def normal(self, shape: tuple[int, ...], std: float) -> npt.NDArray[np.float64]:
        self.stds.append(std)
        self.noise.append(super().normal(shape, std))
        return self.noise[-1].copy()

    def poisson_sample(self, count: int, rate: float) -> npt.NDArray[np.int64]:
        self.asked.append((count, rate))
        self.sampled.append(super().poisson_sample(count, rate))
        return self.sampled[-1].copy()


class Scripted(Recording):
    """Takes who is sampled from a script, the last line for ever; its noise is real."""

    def __init__(self, *script: Sequence[int]) -> None:
        super().__init__()
        self.script = list(script)

    def poisson_sample(self, count: int, rate: float) -> npt.NDArray[np.int64]:
        self.asked.append((count, rate))
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.sampled.append(np.array(line, dtype=np.int64))
        return self.sampled[-1].copy()
