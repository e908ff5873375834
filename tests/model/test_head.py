from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from model import forward, head
from model.base import Base


def _hidden(model: Any, count: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 264, (1, count), generator=draws)
    return forward.hidden_at(model, ids, torch.zeros(count, dtype=int), torch.arange(count))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_blocks_give_the_loss_and_gradient_of_the_whole(tiny: Base, count: int) -> None:
    hidden = _hidden(tiny.model, count).detach().requires_grad_()
    targets = torch.arange(count) % 264
    weights = torch.linspace(-1, 1, count)
    mine = head.cross_entropy(tiny.model, hidden, targets)
    logits = forward.head(tiny.model, hidden)
    wanted = functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad((mine * weights).sum(), hidden)
    (plain,) = torch.autograd.grad((wanted * weights).sum(), hidden)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-4)


def test_a_position_has_the_same_bits_whatever_stands_beside_it(llama: Base) -> None:
    hidden = _hidden(llama.model, 130).detach()
    targets = torch.arange(130) % 264

    def taken(places: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        part = hidden[places].requires_grad_()
        losses = head.cross_entropy(llama.model, part, targets[places])
        (gradient,) = torch.autograd.grad(losses[0], part)
        return losses[0], gradient[0]

    loss, gradient = taken([7])
    for places in ([7, 1], [7, *range(8, 70)], [7, *range(130)]):
        other_loss, other_gradient = taken(places)
        assert torch.equal(loss, other_loss)
        assert torch.equal(gradient, other_gradient)


def test_no_gradient_is_computed_where_none_is_asked_for(
    llama: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = _hidden(llama.model, 9).detach()
    targets = torch.zeros(9, dtype=int)
    wanted = head.cross_entropy(llama.model, hidden.clone().requires_grad_(), targets)
    monkeypatch.setattr(torch.autograd, "grad", None)
    assert torch.equal(head.cross_entropy(llama.model, hidden, targets), wanted)


def test_smoothing_is_that_of_the_plain_loss(llama: Base) -> None:
    hidden = _hidden(llama.model, 70).detach().requires_grad_()
    targets = torch.arange(70) % 264
    mine = head.cross_entropy(llama.model, hidden, targets, smoothing=0.2)
    logits = forward.head(llama.model, hidden)
    wanted = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad(mine.sum(), hidden)
    (plain,) = torch.autograd.grad(wanted.sum(), hidden)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-4)


def test_smoothing_among_choices_reaches_no_other_token(llama: Base) -> None:
    hidden = _hidden(llama.model, 3).detach().requires_grad_()
    choices, targets = [(4, 9), (7,), (1, 2, 3)], torch.tensor([9, 7, 1])
    mine = head.cross_entropy(llama.model, hidden, targets, choices, 0.3)
    logits = forward.head(llama.model, hidden)
    for row, tokens in enumerate(choices):
        part = logits[row, list(tokens)][None]
        place = torch.tensor([tokens.index(int(targets[row]))])
        wanted = functional.cross_entropy(part, place, label_smoothing=0.3)
        torch.testing.assert_close(mine[row], wanted, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(mine.sum(), hidden)
    assert torch.isfinite(gradient).all()
