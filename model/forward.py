"""The model's forward pass, with logits only where somebody asks for them.

The output matrix is the largest of a small model; computing it at the handful of label positions
instead of everywhere saves up to half of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model import architectures


def logits_at(
    model: Any,
    ids: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Next-token logits at chosen positions.

    Args:
        model: causal language model, with or without an adapter.
        ids: shape (batch, length), right-padded.
        rows: shape (n,), which sequence.
        columns: shape (n,), which position of it.
        mask: additive attention mask of shape (batch, 1, length, length); None is causal. A
            causal model needs no padding mask when padding is on the right, since no token
            attends to what follows it.
        positions: position of each token, shape (batch, length); None counts from zero.

    Returns:
        Shape (n, vocabulary), float32.
    """
    hidden = hidden_at(model, ids, rows, columns, mask=mask, positions=positions)
    return head(model, hidden).float()


def hidden_at(
    model: Any,
    ids: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """What `head` turns into logits, at chosen positions; arguments as in `logits_at`.

    Returns:
        Shape (n, hidden); for a model whose head is unknown, its logits, shape (n, vocabulary).
    """
    inner = bare(model)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    inputs = {name: value for name, value in inputs.items() if value is not None}
    if _known(inner):
        outputs = getattr(inner, inner.base_model_prefix)(**inputs, use_cache=False)
        return outputs.last_hidden_state[rows, columns]
    return inner(**inputs, use_cache=False).logits[rows, columns]


def head(model: Any, hidden: Tensor) -> Tensor:
    """Turn the result of `hidden_at` into logits, soft-capped where the model does so (Gemma 2)."""
    inner = bare(model)
    if not _known(inner):
        return hidden
    logits = inner.get_output_embeddings()(hidden)
    cap = getattr(inner.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def pad(sequences: list[tuple[int, ...]], *, device: Any, width: int | None = None) -> Tensor:
    """Right-pad token sequences with zeros: shape (batch, width or the longest), int64."""
    width = max(len(sequence) for sequence in sequences) if width is None else width
    padded = [list(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(padded, dtype=torch.int64, device=device)


def device_of(model: Any) -> Any:
    """The device that the model's parameters are on."""
    return next(iter(model.parameters())).device


def bare(model: Any) -> Any:
    """The causal model itself, adapter layers included, without peft's wrapper around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _known(inner: Any) -> bool:
    return type(inner).__name__ in architectures.ARCHITECTURES
