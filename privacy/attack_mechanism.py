"""Does the step that trains add the noise, and clip as far, as its plan says? Asked from outside.

The production `train` runs on a model that has one weight for each of many canaries. A canary is a
person whose gradient is far over the clipping norm and lies along its own weight alone; in every
step it is present or zeroed out by its own coin. By the claim, output i then is N(0, sigma^2 C^2)
without canary i and N(c, sigma^2 C^2) with it, whoever else is present: the others are
orthogonal to it, clipping looks at one person alone, and the noise is independent from weight to
weight and from step to step. So a step gives as many independent draws as it has canaries, each a
test of the same pair of neighbours: the data with one person, and with that person zeroed out. The
independence is not taken on trust: draws that repeat or follow one another fail the audit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from privacy import attack, dpsgd
from privacy.attack import Bools, Float64
from privacy.csprng import Csprng
from privacy.errors import PlanInvalid

WIDTH = 128  # canaries in a step
TOLERANCE = 0.03  # of the estimate; a tenth of the noise more or less is far outside
_ERRORS = (
    4.0  # standard errors that the tolerance is worth at least: chance fails it once in 16,000
)
_DRAWS = (100_000, 1_000_000)  # least and most of a default
_LARGE = 1000.0  # a canary's gradient before it is clipped
_CORRELATION = 5.0  # standard errors: a chance of 6e-7 for each of the three looks


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What the audit of the step found.

    Attributes:
        draws: outputs looked at, about half of them with the canary present.
        expected: mu by the plan, 1 / noise_multiplier.
        shift: mu by the draws.
        tolerance: what the estimate may be off, relative: 3 %, or four standard errors of it where
            so few draws cannot tell 3 %.
        correlation: largest correlation of neighbouring draws, over its standard error.
        passed: the lower bound is at most `expected`, the estimate within `tolerance` of it, and
            the draws look independent.
    """

    draws: int
    expected: float
    shift: attack.Shift
    tolerance: float
    correlation: float
    passed: bool


def draws_for(noise_multiplier: float) -> int:
    """How many draws make 3 % of mu worth four standard errors; from 100,000 to a million."""
    least, most = _DRAWS
    return min(most, max(least, math.ceil((2.0 * _ERRORS * noise_multiplier / TOLERANCE) ** 2)))


def audit(
    *,
    noise_multiplier: float,
    clip_norm: float,
    clipping: Literal["flat", "auto"] = "flat",
    draws: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Mechanism:
    """Run the production step with injected gradients and test its noise and its clipping.

    Args:
        noise_multiplier: of the plan.
        clip_norm: of the plan.
        clipping: of the plan.
        draws: how many outputs to look at; None for `draws_for(noise_multiplier)`.
        on_step: called with steps done and steps in all.

    Raises:
        PlanInvalid: a number is out of range, or fewer than 1,000 draws.
    """
    wanted = draws_for(noise_multiplier) if draws is None else draws
    if not wanted >= 1000:
        raise PlanInvalid(f"{wanted} draws tell nothing; take at least 1000")
    steps = math.ceil(wanted / WIDTH)
    outputs, coins = _observe(steps, noise_multiplier, clip_norm, clipping, on_step)
    found = attack.shift(outputs[~coins], outputs[coins], reach=clip_norm)
    noise = np.where(coins, outputs - outputs[coins].mean(), outputs - outputs[~coins].mean())
    correlation = _correlation(noise)
    expected = 1.0 / noise_multiplier
    # The mean of half of the draws less that of the other half has a standard error of 2 / sqrt(n).
    tolerance = max(TOLERANCE, _ERRORS * 2.0 / math.sqrt(outputs.size) / expected)
    passed = (
        found.bound <= expected
        and abs(found.estimate / expected - 1.0) <= tolerance
        and correlation <= _CORRELATION
    )
    return Mechanism(outputs.size, expected, found, tolerance, correlation, passed)


def _observe(
    steps: int,
    noise_multiplier: float,
    clip_norm: float,
    clipping: Literal["flat", "auto"],
    on_step: Callable[[int, int], None] | None,
) -> tuple[Float64, Bools]:
    """Outputs and coins of every step, each of shape (steps, WIDTH)."""
    model = nn.Linear(1, WIDTH, bias=False)
    nn.init.zeros_(model.weight)
    outputs = np.zeros((steps, WIDTH))
    coins = (Csprng().uniform(steps * WIDTH) < 0.5).reshape(steps, WIDTH)
    step = 0

    def draw(canary: int, _: Csprng) -> tuple[int, bool]:
        return canary, bool(coins[step, canary])

    def seen(done: int, total: int) -> None:
        nonlocal step
        # One plain gradient step of rate 1 from zero: minus the noisy sum over the divisor.
        outputs[step] = -WIDTH * model.weight.detach().double().numpy()[:, 0]
        nn.init.zeros_(model.weight)
        step = done
        if on_step is not None:
            on_step(done, total)

    dpsgd.train(
        model,
        range(WIDTH),
        draw=draw,
        loss=_Injected(_LARGE * max(1.0, clip_norm)),
        size=lambda _: 1,
        settings=dpsgd.Settings(
            noise_multiplier=noise_multiplier,
            clip_norm=clip_norm,
            sample_rate=1.0,
            steps=steps,
            learning_rate=1.0,
            optimizer="sgd",
            chunk_tokens=16 * WIDTH,
            clipping=clipping,
        ),
        randomness=Csprng(),
        on_step=seen,
    )
    return outputs, coins


@dataclass(frozen=True, slots=True)
class _Injected:
    """A loss whose gradient is `size` along the canary's own weight, or nothing at all."""

    size: float

    def __call__(self, model: nn.Module, examples: Sequence[tuple[int, bool]], _: int) -> Tensor:
        outputs = model(torch.ones(len(examples), 1))
        rows = torch.arange(len(examples))
        own = outputs[rows, torch.tensor([canary for canary, _ in examples])]
        return own * self.size * torch.tensor([float(present) for _, present in examples])


def _correlation(noise: Float64) -> float:
    """Largest correlation of a draw with those beside it, in standard errors.

    Looks at the next weight, the next step and the step after: noise that is drawn once and used
    twice is there first.
    """
    pairs = (
        (noise[:, 1:], noise[:, :-1]),
        (noise[1:], noise[:-1]),
        (noise[2:], noise[:-2]),
    )
    power = float((noise**2).mean())
    if not power > 0.0:
        return math.inf
    return max(
        abs(float((left * right).mean())) / power * math.sqrt(left.size) for left, right in pairs
    )
