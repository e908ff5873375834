"""What is trained makes no difference to what one person moves; and each way learns something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client import train as site_training
from client.border import spec
from configs.load import check
from configs.run import Plan
from model import adapter, catalog, frozen, preferences, prompts
from model import base as base_model
from model.preferences import Preference
from model.prompts import Example
from tests.privacy.toy import QUIET

DIGEST = "sha256:" + "0" * 64
TARGETS = ("v_proj", "o_proj", "down_proj")
METHODS = ("ffa-lora", "lora-xs", "lora")
People = list[tuple[Example, ...]]


def plan(method: str, **changes: Any) -> Plan:
    training = {"optimizer": "sgd", "learning_rate": 1.0, "max_tokens": 64}
    table = {"method": method, "rank": 4, "alpha": 8, "targets": TARGETS}
    values: dict[str, Any] = {
        "run": "methods", "model": "tiny-llama", "model_digest": DIGEST, "frozen_digest": DIGEST,
        "adapter": table, "epsilon": 2.0, "delta": 1e-5,
        "noise_multiplier": QUIET, "clip_norm": 0.05, "sample_rate": 1.0, "rounds": 1,
        "steps_per_round": 1, "task": {}, "institutions": ["clinic"], "quorum": 1,
        "round_timeout_s": 60.0, "training": training | changes.pop("training", {}),
    }  # fmt: skip
    return check(values | changes, Plan, "plan")


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def attached(
    method: str, tiny_home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Any:
    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    base = base_model.load(catalog.find("tiny-llama"), threads=1)
    with torch.no_grad():  # at the usual scale of 0.02 nothing depends on anything
        for parameter in base.model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    few = getattr(request, "param", None)
    model = adapter.attach(base, spec(plan(method).adapter), columns=few)
    draws = np.random.default_rng(1)  # away from zero, where not every factor has a gradient
    arrays = {
        name: (0.1 * draws.normal(size=array.shape)).astype(np.float32)
        for name, array in frozen.start(base.folder, spec(plan(method).adapter)).items()
    }
    adapter.write(model, arrays)
    return model


def person(seed: int, ask: int, tell: int) -> tuple[Example, ...]:
    draws = np.random.default_rng(seed)
    return (Example(tuple(int(t) for t in draws.integers(0, 256, ask + tell)), ask),)


def moved(model: Any, people: People, wanted: Plan, chunk_tokens: int = 96) -> torch.Tensor:
    start = adapter.read(model)
    done = site_training.train(
        model, people, start, wanted, chunk_tokens=chunk_tokens, state=None
    ).delta
    adapter.write(model, start)
    flat = np.concatenate([done[name].ravel() for name in sorted(done)]).astype(np.float64)
    return -torch.from_numpy(flat) * len(people)


CROWD = [person(i, *size) for i, size in enumerate([(3, 1), (7, 9), (1, 30), (30, 5), (2, 2)])]


def test_each_persons_gradient_is_the_plain_one(attached: Any, method: str) -> None:
    """Unclipped, in company of every length, against autograd on one person alone."""
    free = plan(method, clip_norm=1e6, noise_multiplier=1e-18, training={"label_smoothing": 0.1})
    total = moved(attached, CROWD, free)
    plain = torch.zeros_like(total)
    weights = [factor.weight for factor in adapter._trained(attached).values()]
    for one in CROWD:
        # The clipping bound is so far away that flat clipping leaves the gradient as it is.
        losses = prompts.loss(attached, list(one), smoothing=0.1).sum()
        gradients = torch.autograd.grad(losses, weights)
        plain += torch.cat([gradient.flatten() for gradient in gradients]).double()
    assert (total - plain).norm() <= 1e-4 * plain.norm()


def test_taking_a_person_away_moves_the_sum_by_at_most_c(attached: Any, method: str) -> None:
    wanted = plan(method)
    whole = moved(attached, CROWD, wanted)
    for gone in range(len(CROWD)):
        rest = [one for i, one in enumerate(CROWD) if i != gone]
        change = (whole - moved(attached, rest, wanted)).norm()
        assert change <= 0.05 * (1 + 1e-6) + 1e-5 * whole.norm()
        assert change > 0.02  # clipped, not gone


@pytest.mark.parametrize(
    ("method", "attached"), [("ffa-lora", 3), ("lora-xs", 3)], indirect=["method", "attached"]
)
def test_of_fewer_columns_each_persons_gradient_is_that_part_of_the_plain_one(
    attached: Any, method: str
) -> None:
    free = plan(method, clip_norm=1e6, noise_multiplier=1e-18)
    total = moved(attached, CROWD, free)
    parts = [factor.trained.weight for factor in adapter._trained(attached).values()]
    plain = torch.zeros_like(total)
    for one in CROWD:
        gradients = torch.autograd.grad(prompts.loss(attached, list(one)).sum(), parts)
        plain += torch.cat([gradient.flatten() for gradient in gradients]).double()
    assert (total - plain).norm() <= 1e-4 * plain.norm()
    assert {part.shape[1] for part in parts} == {3}


def test_it_learns_a_response(attached: Any, method: str) -> None:
    people = [person(i, 6, 1) for i in range(8)]
    people = [(Example((*one.ids[:6], 77, 33), 6),) for (one,) in people]
    wanted = plan(
        method, clip_norm=1.0, steps_per_round=30, noise_multiplier=0.01,
        training={"optimizer": "adamw", "learning_rate": 0.05, "schedule": "linear",
                  "warmup_steps": 3},
    )  # fmt: skip
    items = [one for (one,) in people]
    with torch.no_grad():
        before = float(prompts.loss(attached, items).mean())
        start = adapter.read(attached)
        site_training.train(attached, people, start, wanted, chunk_tokens=96, state=None)
        after = float(prompts.loss(attached, items).mean())
    assert after < 0.7 * before


# -- preferences ----------------------------------------------------------------------------------


def pairs(model: Any, count: int = 5) -> list[tuple[Preference, ...]]:
    """One pair a person, of many lengths, with the adapter that the model carries as reference."""
    sizes = [(3, 1, 1), (7, 9, 2), (1, 30, 4), (20, 5, 9), (2, 2, 2)]
    found = []
    for number in range(count):
        ask, better, worse = sizes[number % len(sizes)]
        (one,), (other,) = person(number, ask, better), person(number + 100, ask, worse)
        item = Preference(one, Example((*one.ids[:ask], *other.ids[ask:]), ask))
        found.append((preferences.refer(model, item),))
    return found


PREFERENCE = {"objective": "preference", "beta": 0.5}


def test_each_persons_gradient_of_a_preference_is_the_plain_one(attached: Any, method: str) -> None:
    crowd: Any = pairs(attached)
    free = plan(method, clip_norm=1e6, noise_multiplier=1e-18, training=PREFERENCE)
    total = moved(attached, crowd, free)
    weights = [factor.weight for factor in adapter._trained(attached).values()]
    plain = torch.zeros_like(total)
    for (one,) in crowd:
        losses = preferences.loss(attached, [one], beta=0.5).sum()
        gradients = torch.autograd.grad(losses, weights)
        plain += torch.cat([gradient.flatten() for gradient in gradients]).double()
    assert (total - plain).norm() <= 1e-4 * plain.norm()


def test_taking_a_preference_away_moves_the_sum_by_at_most_c(attached: Any, method: str) -> None:
    crowd: Any = pairs(attached)
    wanted = plan(method, training=PREFERENCE)
    whole = moved(attached, crowd, wanted)
    for gone in range(len(crowd)):
        rest = [one for i, one in enumerate(crowd) if i != gone]
        change = (whole - moved(attached, rest, wanted)).norm()
        assert change <= 0.05 * (1 + 1e-6) + 1e-5 * whole.norm()
        assert change > 0.02


def test_it_learns_a_preference(attached: Any, method: str) -> None:
    asked = [person(i, 6, 1)[0].ids[:6] for i in range(8)]
    crowd: Any = [
        (preferences.refer(attached, Preference(Example((*a, 77), 6), Example((*a, 33), 6))),)
        for a in asked
    ]
    wanted = plan(
        method, clip_norm=1.0, steps_per_round=20, noise_multiplier=0.01,
        training=PREFERENCE | {"optimizer": "adamw", "learning_rate": 0.05},
    )  # fmt: skip
    items = [one for (one,) in crowd]
    site_training.train(
        attached, crowd, adapter.read(attached), wanted, chunk_tokens=96, state=None
    )
    with torch.no_grad():
        after = float(preferences.loss(attached, items, beta=0.5).mean())
    assert after < 0.5 * np.log(2)
