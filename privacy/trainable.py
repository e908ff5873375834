"""What of a model may be trained a person at a time, and how a sample of people becomes batches."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import torch
from torch import nn

from privacy.errors import UnsupportedModel

E = TypeVar("E")

# Where torch and the libraries for it keep layers that hold their weights in other forms.
_QUANTISED: Final = (
    "torch.ao.nn.",
    "torch.nn.quantized",
    "torchao.",
    "bitsandbytes.",
    "gptqmodel.",
)
# More rows make no pass faster, and the fewer rows, the less can change when one row goes.
MOST_ROWS: Final = 64
# A product with fewer rows of tokens has a kernel of its own, which rounds otherwise; a lone short
# note would be computed by it, and the same note beside another one not.
LEAST_WIDTH: Final = 16


def find(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name, after checking that each can be told per person.

    Guarantees: every result is the float32 weight of exactly one plain `nn.Linear`, used under one
    name; nothing else in the model is trainable; no layer mixes the people of a batch; what is
    frozen is float32 or bfloat16, and not quantised.

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
        if type(module).__module__.startswith(_QUANTISED):
            raise UnsupportedModel(f"{path} is quantised; load the base in float32 or bfloat16")
    for name, weight in model.named_parameters():
        # A tensor of another class holds something else than its dtype says.
        plain = type(weight.data) is torch.Tensor
        if not plain or weight.dtype not in (torch.float32, torch.bfloat16):
            raise UnsupportedModel(
                f"{name} is {weight.dtype if plain else 'quantised'}, which was never tried; load "
                "the base in float32 or bfloat16"
            )
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


def digest(weights: Mapping[str, nn.Parameter]) -> str:
    """Digest of names and values, to tell whether two processes train the same."""
    state = hashlib.sha256()
    for name, weight in weights.items():
        values = weight.detach().cpu().contiguous().numpy()
        state.update(f"{len(name)}:{name}{values.shape}".encode() + values.tobytes())
    return state.hexdigest()


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every layer into evaluation mode, where nothing drops out; then restore."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@dataclass(frozen=True, slots=True)
class Chunk(Generic[E]):
    """Examples for one forward pass, all padded to the same length.

    Attributes:
        examples: at least one, except in the one chunk of a step that nobody was sampled for.
        width: a length class; no example is longer.
    """

    examples: tuple[E, ...]
    width: int


def width(size: int) -> int:
    """The length class of an example: `size`, rounded up by at most one token or an eighth.

    Classes are a sixteenth of the next power of two apart, so padding costs 3 to 4 % on average
    and a step has few classes. They are fixed: no sample has a say in how long a pass is. None is
    under `LEAST_WIDTH`.

    >>> [width(n) for n in (1, 31, 33, 127, 129, 1000)]
    [16, 32, 36, 128, 144, 1024]
    """
    step = max(2, (1 << max(0, size - 1).bit_length()) // 16)
    return max(LEAST_WIDTH, -(-size // step) * step)


def rows(width: int, *, limit: int) -> int:
    """The examples of a full chunk of this width: at most `limit` tokens and `MOST_ROWS`."""
    return max(1, min(MOST_ROWS, limit // width))


def chunks(examples: Sequence[E], *, size: Callable[[E], int], limit: int) -> list[Chunk[E]]:
    """Split one sample into forward passes of at most `limit` padded tokens.

    An example over the limit gets a pass of its own. Never returns an empty list: nobody sampled
    is one empty chunk, so that such a step adds its noise like any other.

    Guarantees: every chunk of a width is full except the last, and inside a width the order is by
        size, then by place. So taking one example away changes the shape of one chunk at most:
        others of its width move up by one place, and those of other widths stay where they are.
    """
    classes: dict[int, list[E]] = {}
    for example in sorted(examples, key=size):
        classes.setdefault(width(size(example)), []).append(example)
    split = [
        Chunk(tuple(members[start : start + rows(wide, limit=limit)]), wide)
        for wide, members in classes.items()
        for start in range(0, len(members), rows(wide, limit=limit))
    ]
    return split or [Chunk((), width(0))]
