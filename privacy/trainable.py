"""What of a model may be trained a person at a time, and how a sample of people becomes batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from privacy.errors import UnsupportedModel

E = TypeVar("E")


def find(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name, after checking that each can be told per person.

    Guarantees: every result is the float32 weight of exactly one plain `nn.Linear`, used under one
    name; nothing else in the model is trainable; no layer mixes the people of a batch.

    Raises:
        UnsupportedModel: one of these does not hold, or dropout is active.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UnsupportedModel(
                f"{path} is a batch normalisation, which mixes people; take a model without it"
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise UnsupportedModel(f"dropout is active in {path}; call eval() on the model first")
    weights = {
        f"{path}.weight" if path else "weight": module.weight
        for path, module in model.named_modules()
        if type(module) is nn.Linear  # a subclass may compute something else, as quantised ones do
    }
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    found = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not found:
        raise UnsupportedModel("the model has no trainable parameter; attach an adapter first")
    for name, weight in found.items():
        if name not in weights or weights[name] is not weight:
            raise UnsupportedModel(
                f"{name} is trainable but is not the weight of a plain nn.Linear; freeze it"
            )
        if weight.dtype != torch.float32:
            raise UnsupportedModel(
                f"{name} is {weight.dtype}; load the adapter in float32, or its clipping is inexact"
            )
        if uses[id(weight)] != 1:
            raise UnsupportedModel(f"{name} is tied to another parameter; untie or freeze it")
    return found


@contextmanager
def only_trainable_in_training_mode(model: nn.Module) -> Iterator[None]:
    """Put the trainable layers into training mode, all else into evaluation mode; then restore.

    Per-person hooks listen only in training mode; dropout anywhere else stays off.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for module in modes:
            if any(weight.requires_grad for weight in module.parameters(recurse=False)):
                module.training = True
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def chunks(examples: Sequence[E], *, size: Callable[[E], int], limit: int) -> list[list[E]]:
    """Split one sample into batches of similar sizes, each of at most `limit` padded tokens.

    An example over the limit gets a batch of its own. Never returns an empty list: nobody sampled
    is one empty batch, so that such a step adds its noise like any other.
    """
    split: list[list[E]] = [[]]
    for example in sorted(examples, key=size):
        if split[-1] and (len(split[-1]) + 1) * size(example) > limit:
            split.append([])
        split[-1].append(example)
    return split
