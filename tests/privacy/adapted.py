"""A frozen layer with a low-rank adapter, made-up people, and a training call for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privacy import dpsgd
from privacy.csprng import Csprng
from privacy.dpsgd import Settings, Trained

Note = tuple[float, ...]
QUIET = 1e-12  # noise multiplier of a test that looks at the clipped sums alone


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter beside it, as PEFT lays one out."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(3)
        self.base = nn.Linear(4, 6, bias=False)
        self.a = nn.Linear(4, 2, bias=False)
        self.b = nn.Linear(2, 6, bias=False)
        for layer in (self.base, self.a):
            layer.weight.data = torch.randn(layer.weight.shape, generator=draws)
            layer.weight.requires_grad_(False)
        self.b.weight.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


def mean_loss(model: nn.Module, notes: Sequence[Note], width: int | None = None) -> Tensor:
    """Mean over each note's own tokens; token i of a note is (value, i, 1, value squared)."""
    longest = max(width or 0, *map(len, notes))
    x = torch.zeros(len(notes), longest, 4)
    mask = torch.zeros(len(notes), longest)
    for row, note in enumerate(notes):
        for place, value in enumerate(note):
            x[row, place] = torch.tensor([value, place / 10, 1.0, value**2])
            mask[row, place] = 1.0
    per_token = (model(x) - 1.0).square().mean(-1)
    return (per_token * mask).sum(1) / mask.sum(1).clamp(min=1.0)


def people(count: int, seed: int = 5) -> list[Note]:
    """Made-up notes of one to eight tokens."""
    draws = np.random.default_rng(seed)
    return [tuple(draws.normal(size=int(draws.integers(1, 9)))) for _ in range(count)]


def train(
    model: nn.Module, people: Sequence[Any], *, randomness: Csprng | None = None, **changes: Any
) -> Trained:
    """Train with nearly no noise, unless told otherwise."""
    callables: dict[str, Any] = {
        "draw": lambda person, _: person, "loss": mean_loss, "size": len, "state": None,
        "on_step": None,
    }  # fmt: skip
    numbers: dict[str, Any] = {
        "noise_multiplier": QUIET, "clip_norm": 1.0, "sample_rate": 1.0, "steps": 1,
        "learning_rate": 1.0, "optimizer": "sgd",
    }  # fmt: skip
    for name in callables:
        callables[name] = changes.pop(name, callables[name])
    return dpsgd.train(
        model,
        people,
        settings=Settings(**(numbers | changes)),
        randomness=randomness or Csprng(),
        **callables,
    )


def moved(people: Sequence[Any], **changes: Any) -> Tensor:
    """The step's noisy sum, times -1, from one plain gradient step of rate 1."""
    model = Adapted()
    train(model, people, **changes)
    return model.b.weight.detach().double() * (len(people) * changes.get("sample_rate", 1.0))


def traces(model: nn.Module) -> list[str]:
    """What a training call has left on a model."""
    found = [f"{name}: hook" for name, m in model.named_modules() if m._forward_hooks]
    found += [f"{name}: hook" for name, m in model.named_modules() if m._backward_hooks]
    for name, module in model.named_modules():
        found += [f"{name}: {a}" for a in ("activations", "max_batch_len") if hasattr(module, a)]
    for name, weight in model.named_parameters():
        found += [f"{name}: {a}" for a in ("grad_sample", "summed_grad") if hasattr(weight, a)]
        found += [f"{name}: grad"] if weight.grad is not None else []
    return found
