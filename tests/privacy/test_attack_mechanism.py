"""The audit of the step passes the step that is there and fails every broken one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from privacy import dpsgd
from privacy.attack_mechanism import Mechanism, audit, draws_for
from privacy.csprng import Csprng
from privacy.errors import PlanInvalid

DRAWS = 20_000  # enough for 6 % at sigma 1


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same stream in every test: a verdict on one step in 350 is wrong by chance."""
    words = np.random.default_rng(1)
    monkeypatch.setattr(
        Csprng, "_words", lambda self, n: words.integers(0, 2**64, n, dtype=np.uint64)
    )


def look(**changes: Any) -> Mechanism:
    return audit(**{"noise_multiplier": 1.0, "clip_norm": 1.0, "draws": DRAWS} | changes)


@pytest.mark.parametrize(
    ("noise", "clip", "clipping"), [(1.0, 1.0, "flat"), (0.5, 0.01, "auto"), (1.5, 30.0, "flat")]
)
def test_the_step_that_is_there_passes(noise: float, clip: float, clipping: Any) -> None:
    found = look(noise_multiplier=noise, clip_norm=clip, clipping=clipping)
    assert found.passed, found
    assert found.expected == 1.0 / noise
    assert found.shift.bound > 0.85 * found.expected


def test_the_draws_make_three_per_cent_worth_four_standard_errors() -> None:
    assert draws_for(0.5) == 100_000
    assert draws_for(2.0) == pytest.approx((2 * 4 * 2.0 / 0.03) ** 2, rel=1e-4)
    assert draws_for(100.0) == 1_000_000
    found = look(draws=1000)
    assert found.tolerance == pytest.approx(8 / found.draws**0.5)
    with pytest.raises(PlanInvalid):
        look(draws=999)


def test_the_caller_hears_of_every_step() -> None:
    heard: list[tuple[int, int]] = []
    look(draws=1000, on_step=lambda done, total: heard.append((done, total)))
    assert heard == [(done, 8) for done in range(1, 9)]


Break = Callable[[pytest.MonkeyPatch], None]
STEP = dpsgd._PersonOptimizer


def _scaled(name: str, attribute: str, factor: float) -> Break:
    """The named part of the step works with a number that is not the plan's."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        whole = getattr(STEP, name)

        def part(self: Any) -> None:
            kept = getattr(self, attribute)
            setattr(self, attribute, kept * factor)
            whole(self)
            setattr(self, attribute, kept)

        patch.setattr(STEP, name, part)

    return apply


def _clip_the_sum(patch: pytest.MonkeyPatch) -> None:
    def part(self: Any) -> None:
        for weight, grad in zip(self.params, self.grad_samples, strict=True):
            total = grad.double().sum(0)
            weight.summed_grad = total * min(1.0, self.max_grad_norm / float(total.norm()))
            weight.grad_sample = weight.grad_sample[:0]

    patch.setattr(STEP, "clip_and_accumulate", part)


def _repeat_the_noise(patch: pytest.MonkeyPatch) -> None:
    whole, drawn = Csprng.normal, []

    def normal(self: Csprng, shape: tuple[int, ...], std: float) -> Any:
        drawn.append(whole(self, shape, std) if len(drawn) % 2 == 0 else drawn[-1])
        return drawn[-1]

    patch.setattr(Csprng, "normal", normal)


def _one_draw_for_all_weights(patch: pytest.MonkeyPatch) -> None:
    whole = Csprng.normal

    def normal(self: Csprng, shape: tuple[int, ...], std: float) -> Any:
        return np.broadcast_to(whole(self, (1, 1), std), shape).copy()

    patch.setattr(Csprng, "normal", normal)


def _no_noise(patch: pytest.MonkeyPatch) -> None:
    def part(self: Any) -> None:
        for weight in self.params:
            weight.grad = weight.summed_grad.to(torch.float32)
            weight.summed_grad = None

    patch.setattr(STEP, "add_noise", part)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_scaled("add_noise", "noise_multiplier", 0.5), id="half the noise"),
        pytest.param(_scaled("add_noise", "noise_multiplier", 0.9), id="a tenth less noise"),
        pytest.param(_scaled("add_noise", "noise_multiplier", 1.2), id="a fifth more noise"),
        pytest.param(_scaled("clip_and_accumulate", "max_grad_norm", 1e12), id="no clip"),
        pytest.param(_scaled("clip_and_accumulate", "max_grad_norm", 2.0), id="twice the clip"),
        pytest.param(_clip_the_sum, id="clip after summing"),
        pytest.param(_repeat_the_noise, id="noise used twice"),
        pytest.param(_one_draw_for_all_weights, id="one draw for all weights"),
        pytest.param(_no_noise, id="no noise"),
    ],
)
def test_a_broken_step_fails(damage: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(monkeypatch)
    assert not look().passed
