"""Who was in the training? Scores canaries by what the noised gradients have of their gradients.

The attacker here sees every noised gradient, from which all that is ever sent follows, knows the
model and each canary, and does not know which canaries were in. It is the attacker that the claim
is about; whoever has the released adapters alone knows less. A canary's own gradient is taken by
plain autograd, one canary at a time: an audit that shared the per-person machinery with the
training would share its faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from privacy.attack import Float64
from privacy.csprng import Csprng
from privacy.errors import UnsupportedModel

E = TypeVar("E")
Clipping = Literal["flat", "auto"]
AUTO_FLOOR = 0.01  # γ of AUTO-S, written down again: the audit shares no constant with its object
_WIDEST = 1 << 18  # numbers kept of a gradient: a megabyte each


class Seen:
    """The sum of the noised gradients of the steps that were watched.

    Attributes:
        total: float64, the trainable weights in the order of their names.
        steps: how many steps it is the sum of.
    """

    def __init__(self, model: nn.Module) -> None:
        self._weights = _trainable(model)
        self.total = torch.zeros(sum(w.numel() for w in self._weights), dtype=torch.float64)
        self.steps = 0

    def look(self, optimizer: Any, *_: object) -> None:
        """Add what is about to be applied, if it is this model's."""
        given = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if given == {id(weight) for weight in self._weights}:
            grads = [weight.grad.double().flatten() for weight in self._weights]
            self.total += torch.cat(grads)
            self.steps += 1


@contextmanager
def watched(model: nn.Module) -> Iterator[Seen]:
    """Watch what every optimizer step applies to this model's trainable weights."""
    seen = Seen(model)
    handle = register_optimizer_step_pre_hook(seen.look)
    try:
        yield seen
    finally:
        handle.remove()


def clipped_gradient(
    model: nn.Module,
    example: E,
    *,
    loss: Callable[[nn.Module, Sequence[E]], Tensor],
    clip_norm: float,
    clipping: Clipping = "flat",
) -> Tensor:
    """Gradient of one example's loss, in the order of `Seen.total`, clipped as training does.

    Raises:
        UnsupportedModel: the loss is not one number, or the gradient is not finite.
    """
    losses = loss(model, [example])
    if losses.shape != (1,):
        raise UnsupportedModel("the loss of one canary is not one number; return one loss each")
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(losses[0], _trainable(model))])
    norm = float(gradient.norm())
    if not norm < float("inf"):
        raise UnsupportedModel("the gradient of a canary is not finite; take another base model")
    over = norm + AUTO_FLOOR if clipping == "auto" else max(norm, clip_norm)
    return gradient * (clip_norm / over)


def gradients(
    model: nn.Module,
    examples: Sequence[E],
    shorten: Callable[[Tensor], Tensor],
    *,
    loss: Callable[[nn.Module, Sequence[E]], Tensor],
    clip_norm: float,
    clipping: Clipping = "flat",
    on_example: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Take the clipped gradient of every example, where the model now is.

    Args:
        model: its weights are read only.
        examples: every canary, in or not, and everybody else whom the attacker knows.
        shorten: from `shortener`; the same for all that is compared.
        loss: as in training.
        clip_norm: of the plan.
        clipping: of the plan.
        on_example: called after each with examples done and examples in all.

    Returns:
        Shape (len(examples), at most `_WIDEST`).
    """
    taken = []
    for example in examples:
        gradient = clipped_gradient(
            model, example, loss=loss, clip_norm=clip_norm, clipping=clipping
        )
        taken.append(shorten(gradient))
        if on_example is not None:
            on_example(len(taken), len(examples))
    return torch.stack(taken)


def membership(
    before: Tensor,
    after: Tensor,
    total: Tensor,
    *,
    clip_norm: float,
    noise_multiplier: float,
    sample_rate: float,
) -> Float64:
    """Score each example by how much of its clipped gradient is in what was seen.

    An example's gradient moves as the weights do; half of before and after stands for the steps in
    between. Its inner product with the sum also holds what other examples put there, since texts
    of one form have similar gradients. With K the inner products among the gradients, the products
    are K x + noise of covariance proportional to K, for x how often each was sampled; the score is
    the best linear estimate of x. Where the noise dwarfs the canaries this is the plain inner
    product; where there is next to none it tells canaries apart that are nearly parallel.

    Args:
        before: `gradients` before the steps.
        after: `gradients` after them.
        total: `Seen.total`, shortened like the gradients.
        clip_norm: of the plan.
        noise_multiplier: of the run that is attacked.
        sample_rate: of the run that is attacked.

    Returns:
        Shape (len(before),): higher for one that was in; no unit.
    """
    middle = (before + after) / 2.0
    products = (middle.double() @ total.double()).numpy()
    among = (middle @ middle.T).double().numpy()
    # Over T steps the noise has T sigma^2 C^2, and x a variance of about T q / 2.
    level = 2.0 * (noise_multiplier * clip_norm) ** 2 / sample_rate
    scores: Float64 = np.linalg.solve(among + level * np.eye(len(middle)), products)
    return scores


def shortener(length: int) -> Callable[[Tensor], Tensor]:
    """Keep inner products while keeping at most `_WIDEST` numbers of a vector of this length.

    Longer ones are summed into buckets with random signs: products then are off by about a
    five-hundredth of the norms, which makes the attack on a very large adapter a weaker one.
    """
    if length <= _WIDEST:
        return lambda vector: vector.float()
    randomness = Csprng()
    bucket = torch.from_numpy((randomness.uniform(length) * _WIDEST).astype(np.int64))
    sign = torch.from_numpy(np.where(randomness.uniform(length) < 0.5, -1.0, 1.0)).float()
    return lambda vector: torch.zeros(_WIDEST).index_add_(0, bucket, vector.float() * sign)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [weight for _, weight in sorted(model.named_parameters()) if weight.requires_grad]
