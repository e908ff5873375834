"""How a loss on public records reacts to each direction of an adapter, before it is marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model import adapter, prompts
from model.labels import Labels

Row = tuple[str, str]


def second_moments(
    model: Any, base: Any, rows: Sequence[Row], *, labels: Labels | None, max_tokens: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Second moments of the loss's gradient along the rank of each module.

    Args:
        model: a model from `adapter.attach`, with the adapter in question written to it.
        base: the `Base` whose chat format is used.
        rows: instructions and responses that are public or synthetic, never an institution's.
        labels: every response is one of these; None is any text.
        max_tokens: longest sequence.

    Returns:
        Module path -> sum over rows of Gᵀ·G, shape (rank, rank), where G of shape (out, rank) is
        the gradient of the row's loss by B. Weights are not changed.
    """
    factors = {path: layer.lora_B["default"].weight for path, layer in adapter._layers(model)}
    found = {path: torch.zeros(2 * weight.shape[1:], dtype=torch.float64).cpu()
             for path, weight in factors.items()}  # fmt: skip
    for asked, answer in rows:
        example = prompts.encode(base, asked, answer, max_tokens=max_tokens)
        loss = prompts.loss(model, [example], labels=labels).sum()
        for path, gradient in zip(
            found, torch.autograd.grad(loss, list(factors.values())), strict=True
        ):
            wide = gradient.double().cpu()
            found[path] += wide.T @ wide
    return {path: moment.numpy().astype(np.float32) for path, moment in found.items()}
