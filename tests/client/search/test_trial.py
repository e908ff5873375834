"""A trial's adapter after a round is what the model has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.search import trial
from model import catalog

pytest.importorskip("optuna")


def test_a_narrow_machines_update_moves_its_own_columns_only() -> None:
    after = trial.moved({"b": np.ones((3, 4), np.float32)}, {"b": np.full((3, 2), 2.0, np.float32)})
    assert after["b"].tolist() == [[3, 3, 1, 1]] * 3


@pytest.mark.parametrize("columns", [None, 1])
@pytest.mark.parametrize("method", ["ffa-lora", "lora-xs"])
def test_what_moved_is_what_the_model_has_after_a_round(
    tiny_home: Path, monkeypatch: pytest.MonkeyPatch, method: Any, columns: int | None
) -> None:
    import torch

    from model import adapter, base, frozen

    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    loaded = base.load(catalog.find("tiny-llama"), threads=1)
    spec = adapter.Spec(method=method, rank=2, seed="moved")
    model = adapter.attach(loaded, spec, columns=columns)
    start = frozen.start(loaded.folder, spec)
    adapter.write(model, start)
    with torch.no_grad():
        for weight in (one for one in model.parameters() if one.requires_grad):
            weight.add_(torch.randn(weight.shape, generator=torch.manual_seed(3)))
    change = adapter.change(model, start)
    after, read = trial.moved(start, change), adapter.read(model)
    assert all(np.abs(part).max() > 0.1 for part in change.values())
    assert after.keys() == read.keys() == start.keys()
    for name, array in read.items():
        np.testing.assert_array_equal(after[name], array)
