"""A frozen base model in 8 or 4 bits a weight, on any processor that torch has.

Matrices are kept as whole numbers with scales and multiplied out when they are used, forward and
backward; activations and the adapter stay float32. So a person's gradient is, to the last bits,
that over the multiplied-out base: what is clipped and noised has not changed its kind, and
`privacy.arithmetic` measures this arithmetic like any other before anybody is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from model.errors import ModelError

Form = Literal["int8", "nf4"]
FORMS: Final[tuple[Form, ...]] = ("int8", "nf4")
_GROUPS: Final = (64, 32, 16)  # weights that share a scale in 4 bits: the largest that fits a row


def _levels() -> tuple[float, ...]:
    """The 16 values of NF4: quantiles of a normal distribution, with an exact zero, within [-1, 1].

    After QLoRA (Dettmers and others, 2023), appendix E.
    """
    tail = 0.9677083
    below = [-NormalDist().inv_cdf(tail + (0.5 - tail) * step / 7) for step in range(7)]
    above = [NormalDist().inv_cdf(tail + (0.5 - tail) * step / 8) for step in range(8)]
    most = above[0]
    return tuple(sorted(value / most for value in (*below, 0.0, *above)))


class QuantisedLinear(nn.Linear):
    """A frozen linear layer whose matrix is kept in 8 or 4 bits.

    int8: one scale a row, values -127 to 127. nf4: one scale a group of inputs, two values a byte.

    Raises:
        ModelError: rows are no multiple of 16 long, in 4 bits.
    """

    def __init__(self, plain: nn.Linear, form: Form) -> None:
        nn.Module.__init__(self)  # not a linear layer's: it would allocate the matrix
        self.in_features, self.out_features, self.form = plain.in_features, plain.out_features, form
        weight = plain.weight.detach().float()
        if form == "int8":
            scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127.0
            store = (weight / scale).round().to(torch.int8)
        else:
            store, scale = _pack(weight)
        self.register_buffer("store", store, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("levels", torch.tensor(_levels()), persistent=False)
        self.bias = plain.bias
        if self.bias is not None:
            self.bias.data = self.bias.data.float()

    @property
    def weight(self) -> Tensor:
        """The matrix multiplied out, float32, (out, in); a copy."""
        if self.form == "int8":
            return self.store.float() * self.scale
        codes = torch.stack([self.store & 15, self.store >> 4], dim=-1).view(self.out_features, -1)
        groups = self.levels[codes.int()].view(self.out_features, self.scale.shape[1], -1)
        return (groups * self.scale[..., None]).view(self.out_features, self.in_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """As a plain layer with the matrix `weight`, which is not kept for the backward pass."""
        result: Tensor = _Product.apply(inputs, self)
        return result if self.bias is None else result + self.bias

    def extra_repr(self) -> str:
        """What printing the model says of the layer."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.form}"


class _Product(Function):
    """Multiplies the matrix out a second time in the backward pass, so that nobody keeps it."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return functional.linear(inputs, layer.weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, None]:
        return outer @ ctx.layer.weight if ctx.needs_input_grad[0] else None, None


def quantise(model: Any, paths: Iterable[str], form: Form) -> None:
    """Replace the named linear layers, in place; make the rest of the model float32.

    Raises:
        ModelError: a layer is of another kind, or carries an adapter already.
    """
    for path in sorted(paths):
        parent, _, name = path.rpartition(".")
        holder = model.get_submodule(parent)
        plain = getattr(holder, name)
        if type(plain) is not nn.Linear:
            raise ModelError(
                f"{path} is a {type(plain).__name__}, which cannot be kept in {form}; load the "
                "base in float32 or bfloat16",
                code="not-quantisable",
            )
        setattr(holder, name, QuantisedLinear(plain, form))
    model.float()
    for weight in model.parameters():  # a copy, so that the file's pages are given back
        weight.data = weight.data.clone()


def _pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows, wide = weight.shape
    size = next((size for size in _GROUPS if wide % size == 0), 0)
    if not size:
        raise ModelError(
            f"rows of {wide} weights have no groups of 16, so they cannot be kept in nf4; use int8",
            code="not-quantisable",
        )
    groups = weight.view(rows, wide // size, size)
    scale = groups.abs().amax(dim=2).clamp(min=1e-30)
    levels = torch.tensor(_levels(), device=weight.device)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize((groups / scale[..., None]).view(rows, wide), middles).to(torch.uint8)
    return codes[:, 0::2] | (codes[:, 1::2] << 4), scale
