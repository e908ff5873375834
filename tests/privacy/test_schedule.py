"""The learning rate follows the number of the step in the whole run, over rounds and restarts."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from privacy.errors import PlanInvalid
from privacy.schedule import Schedule
from tests.privacy.adapted import Adapted, people, train


def test_a_cosine_warms_up_falls_and_ends_above_nothing() -> None:
    course = Schedule("cosine", warmup=4, floor=0.1, total=20)
    shares = [course.share(done) for done in range(20)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert shares[4] == 1.0
    assert all(after < before for before, after in pairwise(shares[4:]))
    assert shares[12] == pytest.approx(0.1 + 0.9 * 0.5)
    assert shares[-1] > 0.1


@pytest.mark.parametrize("name", ["constant", "cosine", "linear"])
def test_rounds_continue_the_course_of_the_run(name: Any) -> None:
    whole = Schedule(name, warmup=3, floor=0.2, total=12)
    parts = [
        Schedule(name, warmup=3, floor=0.2, total=12, first=first).share(done)
        for first in (0, 4, 8)
        for done in range(4)
    ]
    assert parts == [whole.share(done) for done in range(12)]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "step"}, {"warmup": -1}, {"warmup": 0.5}, {"floor": 1.1}, {"floor": math.nan},
        {"name": "linear", "total": 0}, {"name": "cosine", "warmup": 5, "total": 5}, {"first": -1},
    ],
)  # fmt: skip
def test_an_impossible_course_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PlanInvalid):
        Schedule(**change)


def test_no_step_is_taken_past_the_run() -> None:
    with pytest.raises(PlanInvalid, match="past"):
        train(Adapted(), people(3), steps=2, schedule=Schedule("linear", total=4, first=3))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_rounds_on_a_schedule_are_one_call_of_both(optimizer: str) -> None:
    crowd, settings = people(6), {"optimizer": optimizer, "learning_rate": 0.05}
    whole, split = Adapted(), Adapted()
    train(whole, crowd, steps=6, schedule=Schedule("cosine", warmup=2, total=6), **settings)
    state = None
    for first in (0, 3):
        course = Schedule("cosine", warmup=2, total=6, first=first)
        state = train(split, crowd, steps=3, state=state, schedule=course, **settings).state
    torch.testing.assert_close(split.b.weight, whole.b.weight, rtol=1e-5, atol=1e-7)
    restarted = Adapted()
    train(restarted, crowd, steps=6, **settings)
    assert (restarted.b.weight - whole.b.weight).norm() > 0.01 * whole.b.weight.norm()


def test_the_share_scales_the_step_and_nothing_of_the_noise() -> None:
    crowd = people(6)
    full, half = Adapted(), Adapted()
    train(full, crowd)
    train(half, crowd, schedule=Schedule("linear", total=2, first=1))
    torch.testing.assert_close(half.b.weight, 0.5 * full.b.weight)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_is_decoupled_and_looks_at_the_weights_only(optimizer: str) -> None:
    """Of people without any gradient it takes the same share of every weight at every step."""
    model = Adapted()
    with torch.no_grad():
        model.b.weight.copy_(torch.linspace(-1.0, 2.0, 12).view(6, 2))
    before = model.b.weight.detach().clone()
    train(
        model, [None] * 4, steps=3, optimizer=optimizer, learning_rate=0.1, weight_decay=0.5,
        noise_multiplier=1e-30,
    )  # fmt: skip
    expected = before * (1 - 0.1 * 0.5) ** 3
    torch.testing.assert_close(model.b.weight.detach(), expected, rtol=1e-5, atol=1e-6)
