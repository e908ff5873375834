"""Trade time for memory: keep what goes into each decoder layer, and compute the rest again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model import architectures
from model.forward import bare


@contextmanager
def recomputed(model: Any) -> Iterator[None]:
    """Run forward passes so that a backward pass recomputes each decoder layer.

    Memory then grows by one vector a token and layer, instead of everything that a layer computes.

    Guarantees: losses and gradients are the same bits; each layer leaves its people's gradients
        once, in the recomputation. The backward pass may come after this context, and must be
        `backward`, not `torch.autograd.grad`.
    """
    layers = _layers(bare(model))
    try:
        for layer in layers:
            trained = any(weight.requires_grad for weight in layer.parameters())
            layer.forward = partial(_recompute, layer.forward, trained)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _recompute(
    forward: Callable[..., Any], trained: bool, hidden_states: Tensor, *args: Any, **kwargs: Any
) -> Any:
    if not torch.is_grad_enabled() or not (trained or hidden_states.requires_grad):
        return forward(hidden_states, *args, **kwargs)
    if not hidden_states.requires_grad:  # else the first layers would be left out of the graph
        hidden_states = hidden_states.detach().requires_grad_()
    # With reentry the first pass leaves no graph behind, and nothing of the layer is kept.
    return checkpoint(
        lambda hidden: forward(hidden, *args, **kwargs),
        hidden_states,
        use_reentrant=True,
        preserve_rng_state=False,
    )


def _layers(model: Any) -> list[Any]:
    """The decoder layers; none for an architecture that is not known, which then keeps it all."""
    if type(model).__name__ not in architectures.ARCHITECTURES:
        return []
    backbone = getattr(model, model.base_model_prefix)
    return list(backbone.h if hasattr(backbone, "h") else backbone.layers)
