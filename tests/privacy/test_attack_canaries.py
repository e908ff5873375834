"""The attack on canaries finds those that noise does not hide, and reads what training applies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privacy import attack, attack_canaries, dpsgd
from privacy.csprng import Csprng
from privacy.errors import UnsupportedModel

WIDTH, CANARIES = 300, 200
Item = tuple[Tensor, float]


def _model() -> nn.Linear:
    model = nn.Linear(WIDTH, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def _loss(model: nn.Module, items: Sequence[Item], _: int = 0) -> Tensor:
    """The gradient of an item is its vector, or nothing."""
    points = torch.stack([point for point, _ in items])
    return model(points)[:, 0] * torch.tensor([weight for _, weight in items])


def _points(common: float) -> list[Tensor]:
    """Canaries that all share a direction; the larger, the more alike they are."""
    draws = torch.Generator().manual_seed(2)
    shared = torch.randn(WIDTH, generator=draws)
    return [common * shared + torch.randn(WIDTH, generator=draws) for _ in range(CANARIES)]


def _attacked(noise: float, *, common: float = 0.0, optimizer: str = "sgd") -> attack.Attack:
    points = _points(common)
    coins = np.random.default_rng(4).random(CANARIES) < 0.5
    model = _model()
    shorten = attack_canaries.shortener(WIDTH)
    taken = attack_canaries.gradients(
        model, [(point, 1.0) for point in points], shorten, loss=_loss, clip_norm=1.0
    )
    with attack_canaries.watched(model) as seen:
        dpsgd.train(
            model,
            [(point, float(coin)) for point, coin in zip(points, coins, strict=True)],
            draw=lambda item, _: item,
            loss=_loss,
            size=lambda _: 1,
            settings=dpsgd.Settings(
                noise_multiplier=noise, clip_norm=1.0, sample_rate=0.5, steps=12,
                learning_rate=0.1, optimizer=optimizer,
            ),
            randomness=Csprng(),
        )  # fmt: skip
    assert seen.steps == 12
    scores = attack_canaries.membership(
        taken, taken, shorten(seen.total), clip_norm=1.0, noise_multiplier=noise, sample_rate=0.5
    )
    return attack.evaluate(scores, coins, guesses=70, delta=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("common", [0.0, 2.0])
def test_next_to_no_noise_hides_nobody(optimizer: str, common: float) -> None:
    found = _attacked(0.05, common=common, optimizer=optimizer)
    assert found.correct == 70
    assert found.epsilon_bound > 3.0


def test_much_noise_hides_everybody() -> None:
    found = _attacked(20.0)
    assert found.epsilon_bound < 1.0
    assert 0.35 < found.auc < 0.65


def test_a_gradient_too_long_to_keep_is_shortened_and_still_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attack_canaries, "_WIDEST", 256)
    assert _attacked(0.3).auc > 0.7


def test_what_was_seen_is_what_moved_the_weights_and_other_models_are_not_seen() -> None:
    model, other = _model(), _model()
    elsewhere = torch.optim.SGD(other.parameters(), lr=1.0)
    with attack_canaries.watched(model) as seen:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for step in (1.0, 2.0):
            model.weight.grad = torch.full((1, WIDTH), step)
            optimizer.step()
        other.weight.grad = torch.ones(1, WIDTH)
        elsewhere.step()
    assert seen.steps == 2
    assert torch.equal(seen.total, torch.full((WIDTH,), 3.0, dtype=torch.float64))
    assert torch.allclose(model.weight[0].double(), -0.5 * seen.total)
    optimizer.step()
    assert seen.steps == 2


@pytest.mark.parametrize("clip", [0.5, 1000.0])
def test_a_canarys_gradient_is_its_own_and_no_longer_than_the_clip(clip: float) -> None:
    point = _points(0.0)[0]
    found = attack_canaries.clipped_gradient(_model(), (point, 1.0), loss=_loss, clip_norm=clip)
    assert torch.allclose(found, point * min(1.0, clip / float(point.norm())))
    nothing = attack_canaries.clipped_gradient(_model(), (point, 0.0), loss=_loss, clip_norm=clip)
    assert not nothing.any()


@pytest.mark.parametrize("clipping", ["flat", "auto"])
@pytest.mark.parametrize("length", [0.001, 0.02, 1.0, 50.0])
def test_a_canarys_gradient_is_clipped_as_training_clips_it(clipping: str, length: float) -> None:
    point = length * torch.nn.functional.one_hot(torch.tensor(0), WIDTH).float()
    found = attack_canaries.clipped_gradient(
        _model(), (point, 1.0), loss=_loss, clip_norm=0.5, clipping=clipping
    )
    model = _model()
    with attack_canaries.watched(model) as seen:
        dpsgd.train(
            model,
            [(point, 1.0)],
            draw=lambda item, _: item,
            loss=_loss,
            size=lambda _: 1,
            settings=dpsgd.Settings(
                noise_multiplier=1e-9, clip_norm=0.5, sample_rate=1.0, steps=1,
                learning_rate=0.1, optimizer="sgd", clipping=clipping,
            ),
            randomness=Csprng(),
        )  # fmt: skip
    assert found.double()[0] == pytest.approx(float(seen.total[0]), rel=2e-3)


def test_a_canary_without_one_finite_gradient_is_refused() -> None:
    point = _points(0.0)[0]
    with pytest.raises(UnsupportedModel, match="finite"):
        attack_canaries.clipped_gradient(
            _model(), (point * float("inf"), 1.0), loss=_loss, clip_norm=1.0
        )
    with pytest.raises(UnsupportedModel, match="one number"):
        attack_canaries.clipped_gradient(
            _model(), (point, 1.0), loss=lambda model, items: _loss(model, items)[0], clip_norm=1.0
        )
