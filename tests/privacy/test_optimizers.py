from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from privacy.errors import PlanInvalid
from tests.privacy.adapted import Adapted, people, train


def test_optimizer_state_is_carried_by_name_and_survives_safetensors() -> None:
    everyone = people(5)

    def run(split: Sequence[int]) -> Tensor:
        model, state = Adapted(), None
        for steps in split:
            trained = train(
                model, everyone, steps=steps, optimizer="adamw", learning_rate=0.01, state=state
            )
            state = load(save(trained.state))
            assert set(state) == {f"b.weight.{key}" for key in ("step", "exp_avg", "exp_avg_sq")}
        return model.b.weight.detach()

    assert torch.allclose(run([6]), run([2, 4]), atol=1e-6)
    model = Adapted()
    train(model, everyone, steps=2, optimizer="adamw", learning_rate=0.01)
    train(model, everyone, steps=4, optimizer="adamw", learning_rate=0.01)
    assert not torch.allclose(run([6]), model.b.weight, atol=1e-6)


def test_foreign_optimizer_state_is_refused() -> None:
    good = train(Adapted(), people(3), optimizer="adamw").state
    nan = {**good, "b.weight.exp_avg": torch.full((6, 2), math.nan)}
    short = {**good, "b.weight.exp_avg": torch.zeros(3, 2)}
    missing = {name: value for name, value in good.items() if not name.endswith("step")}
    for bad in (nan, short, missing, {**good, "more": torch.zeros(1)}):
        with pytest.raises(PlanInvalid):
            train(Adapted(), people(3), optimizer="adamw", state=bad)
    with pytest.raises(PlanInvalid):
        train(Adapted(), people(3), optimizer="sgd", state=good)


def test_weight_decay_is_off() -> None:
    model = Adapted()
    model.b.weight.data.fill_(1.0)
    train(
        model,
        [(0.0,)],
        loss=lambda model, notes, width: model(torch.zeros(1, 1, 4)).sum((1, 2)) * 0.0,
        optimizer="adamw",
        learning_rate=0.1,
        noise_multiplier=1e-30,
    )
    assert torch.allclose(model.b.weight, torch.ones(6, 2), atol=1e-6)
