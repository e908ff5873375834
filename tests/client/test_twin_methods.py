"""A twin trains every adapter on the schedule, and what a plan learns: answers or preferences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from client import estimate, twin
from client.border import spec
from configs.load import load
from configs.run import Plan, Run
from model import adapter, base, catalog, frozen


def _plan(federation: Callable[..., Any], method: str, **training: Any) -> Plan:
    run = load(federation(["clinic-a"]).run_file(method=method), Run)
    plan = estimate.proposal(run, catalog.find(run.model.name))
    return plan.model_copy(update={"training": plan.training.model_copy(update=training)})


@pytest.mark.parametrize("method", ["lora-xs", "lora"])
def test_a_twin_ends_with_an_adapter_that_changes_nothing(
    federation: Callable[..., Any], method: str
) -> None:
    plan = _plan(federation, method, schedule="linear", warmup_steps=1)
    loaded = base.load(catalog.find(plan.model), threads=1)
    model = adapter.attach(loaded, spec(plan.adapter))
    seen = twin.observe(
        loaded, model, plan, twin.Size(2, 6, 2), noise_multiplier=1.0, chunk_tokens=256,
        progress=lambda what, done, total: None,
    )  # fmt: skip
    assert np.isfinite(seen.gradients).all()
    assert seen.losses.any()  # what was trained did something
    start = frozen.start(loaded.folder, spec(plan.adapter))
    after = adapter.read(model)
    assert all(np.array_equal(after[name], start[name]) for name in start)


def test_a_twin_of_preferences_tells_who_was_in_without_noise_and_not_with_it(
    federation: Callable[..., Any],
) -> None:
    plan = _plan(federation, "ffa-lora", objective="preference", learning_rate=1e-4)
    plan = plan.model_copy(update={"sample_rate": 1.0})
    loaded = base.load(catalog.find(plan.model), threads=1)
    model = adapter.attach(loaded, spec(plan.adapter))
    apart = {}
    for sigma in (0.02, 50.0):
        seen = twin.observe(
            loaded, model, plan, twin.Size(2, 40, 2), noise_multiplier=sigma, chunk_tokens=256,
            progress=lambda what, done, total: None,
        )  # fmt: skip
        present, absent = seen.gradients[seen.included], seen.gradients[~seen.included]
        apart[sigma] = float((present[:, None] > absent[None]).mean())
        assert seen.losses.any()
        assert seen.verbatim == 0
    assert apart[0.02] > 0.99
    assert abs(apart[50.0] - 0.5) < 0.4  # four standard errors of so few
