"""A twin trains every adapter on the schedule; preferences, which it cannot judge, it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from client import estimate, twin
from client.border import spec
from client.errors import ClientError
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


def test_a_twin_on_preferences_is_refused(federation: Callable[..., Any]) -> None:
    plan = _plan(federation, "ffa-lora", objective="preference")
    with pytest.raises(ClientError, match="no canaries for preferences"):
        twin.observe(
            None, None, plan, twin.Size(2, 6, 2), noise_multiplier=1.0, chunk_tokens=256,
            progress=lambda what, done, total: None,
        )  # type: ignore[arg-type] # fmt: skip
