from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from privacy.errors import PlanInvalid, UnsupportedModel
from tests.privacy.adapted import Adapted, mean_loss, people, traces, train


def test_a_loss_that_is_not_one_number_per_person_is_refused() -> None:
    def wrong(shape: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        return lambda model, notes, width: shape(mean_loss(model, notes))

    for shape in (lambda x: x.mean(), lambda x: x[:, None], lambda x: x[:1], lambda x: x.mean(0)):
        with pytest.raises(UnsupportedModel, match="one loss each"):
            train(Adapted(), people(4), loss=wrong(shape))


def test_people_that_are_not_in_the_first_dimension_are_refused() -> None:
    class Flat(Adapted):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(0, 1)).view(*x.shape[:2], -1)

    with pytest.raises(UnsupportedModel, match="first dimension"):
        train(Flat(), [(1.0, 2.0), (0.5, 1.0)])


def test_a_layer_that_the_loss_does_not_use_is_refused() -> None:
    model = Adapted()
    model.extra = nn.Linear(2, 2, bias=False)
    with pytest.raises(UnsupportedModel, match=r"extra\.weight"):
        train(model, people(3))
    assert traces(model) == []  # the other layer had its raw gradient by then


def test_autocast_is_refused() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UnsupportedModel, match="autocast"):
        train(Adapted(), people(3))


@pytest.mark.parametrize(
    "change",
    [
        *({"noise_multiplier": v} for v in (0.0, -1.0, math.nan, math.inf)),
        *({"clip_norm": v} for v in (0.0, -1.0, math.nan, math.inf)),
        *({"sample_rate": v} for v in (0.0, 1.1, math.nan)),
        *({"steps": v} for v in (0, -1, 1.5, True)),
        *({"learning_rate": v} for v in (0.0, math.nan, math.inf)),
        *({"chunk_tokens": v} for v in (0, math.nan)),
        {"optimizer": "adam"},
        *({"weight_decay": v} for v in (-0.1, 1.0, math.nan)),  # at a rate of 1
        {"clipping": "adaptive"},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PlanInvalid):
        train(Adapted(), people(3), **change)


def test_training_on_nobody_is_refused() -> None:
    with pytest.raises(PlanInvalid, match="nobody"):
        train(Adapted(), [])
