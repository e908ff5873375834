"""From hidden states to cross-entropies, in blocks of one fixed shape.

The output matrix is the largest of a small model. A product with it is rounded in another way for
another number of rows, so were all labels of a pass taken together, the labels of one sequence
would reach the last bits of the others' gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from model import forward

# The last block is filled up. Larger blocks are no faster: the matrix is read once for 64 rows.
_BLOCK: Final = 64


def cross_entropy(
    model: Any,
    hidden: Tensor,
    targets: Tensor,
    choices: Sequence[tuple[int, ...]] | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of each position.

    Args:
        model: causal language model, with or without an adapter.
        hidden: from `forward.hidden_at`, shape (n, hidden).
        targets: the token that follows, shape (n,).
        choices: the tokens that could follow each position, the target among them; None is the
            whole vocabulary.
        smoothing: share of the wanted distribution that lies evenly on all that could follow, the
            target included.

    Returns:
        Shape (n,), float32, in nats.

    Guarantees: a position's loss and gradient do not depend on the others, to the last bit where
        the machine treats the rows of a product alike; the logits of one block are held at a time,
        and none are computed twice.
    """
    result: Tensor = _Blocks.apply(hidden, targets, model, choices, smoothing)
    return result


class _Blocks(torch.autograd.Function):
    """Takes each block's gradient right after its loss, while its logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        model: Any,
        choices: Sequence[tuple[int, ...]] | None,
        smoothing: float,
    ) -> Tensor:
        count = len(hidden)
        size = -(-count // _BLOCK) * _BLOCK
        rows = hidden.new_zeros((size, *hidden.shape[1:]))
        rows[:count] = hidden
        wanted = targets.new_zeros(size)
        wanted[:count] = targets
        losses = torch.empty(size, dtype=torch.float32, device=hidden.device)
        gradients = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        for start in range(0, size, _BLOCK):
            block = slice(start, start + _BLOCK)
            part = rows[block]
            with torch.set_grad_enabled(gradients is not None):
                part = part.detach().requires_grad_(gradients is not None)
                logits = forward.head(model, part).float()
                open_ = None if choices is None else choices[block]
                if open_ is not None:
                    logits = logits + _closed(open_, logits)
                each = functional.cross_entropy(logits, wanted[block], reduction="none")
                if smoothing:
                    each = torch.lerp(each, _even(logits, open_), smoothing)
                if gradients is not None:
                    (gradients[block],) = torch.autograd.grad(each.sum(), part)
            losses[block] = each.detach()
        if gradients is not None:
            ctx.save_for_backward(gradients[:count])
        return losses[:count]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return (gradients * outer[:, None]).to(gradients.dtype), None, None, None, None


def _closed(choices: Sequence[tuple[int, ...]], logits: Tensor) -> Tensor:
    """What takes every token but a position's choices out of its sum; filled-up rows stay open."""
    closed = torch.zeros_like(logits)
    for row, tokens in enumerate(choices):
        closed[row] = -torch.inf
        closed[row, list(tokens)] = 0.0
    return closed


def _even(logits: Tensor, choices: Sequence[tuple[int, ...]] | None) -> Tensor:
    """Cross-entropy of each row with the even distribution over what is open to it."""
    if choices is None:
        return torch.logsumexp(logits, -1) - logits.mean(-1)
    # A closed token is at minus infinity, which no share of it brings back: only open ones count.
    means = [logits[row, list(tokens)].mean() for row, tokens in enumerate(choices)]
    means += [logits[row].mean() for row in range(len(choices), len(logits))]
    return torch.logsumexp(logits, -1) - torch.stack(means)
