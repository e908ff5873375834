"""One gradient for each person from one backward pass, at the cost of the sum of them.

A layer's weight gets its people's gradients where autograd would have computed their sum. Module
hooks do the same, but autograd then computes the sum as well and wraps every input and output of
every layer, which is a tenth of a step where all matrices carry an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Opacus' form: layer, its inputs, gradient of its output -> gradient of each person by parameter.
Sampler = Callable[[nn.Linear, list[Tensor], Tensor], Mapping[nn.Parameter, Tensor]]


@contextmanager
def gradients(layers: Iterable[nn.Linear], *, sampler: Sampler) -> Iterator[None]:
    """Make backward passes leave `grad_sample` on the layers' weights instead of `grad`.

    Args:
        layers: those whose weights are trained; each has people in the first dimension of its
            input. Their biases, if any, are frozen.
        sampler: computes the people's gradients, shape (people, *weight.shape).

    Guarantees: outputs and the gradients of inputs are those of the plain layer; a layer that is
        used several times in a pass gets the sum over its uses, for each person; a weight's `grad`
        stays None, unless the weight is used outside its layer; nothing is left on the layers and
        weights afterwards, also on an exception.
    """
    replaced: list[nn.Linear] = []
    try:
        for layer in layers:
            layer.weight.grad_sample = None
            layer.forward = partial(_forward, layer, sampler)
            replaced.append(layer)
        yield
    finally:
        for layer in replaced:
            layer.__dict__.pop("forward", None)
            layer.weight.__dict__.pop("grad_sample", None)


def _forward(layer: nn.Linear, sampler: Sampler, inputs: Tensor) -> Tensor:
    result: Tensor = _PersonLinear.apply(inputs, layer.weight, layer, sampler)
    return result


class _PersonLinear(Function):  # type: ignore[misc] # torch is skipped
    """A linear layer that hands its weight's gradient out before the people are summed."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, layer: Any, sampler: Any) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.layer, ctx.sampler = layer, sampler
        return functional.linear(inputs, weight, layer.bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, None, None, None]:
        inputs, saved = ctx.saved_tensors
        weight = ctx.layer.weight
        found = ctx.sampler(ctx.layer, [inputs], outer)[weight]
        earlier = weight.grad_sample
        weight.grad_sample = found if earlier is None else earlier + found
        # The weight's own gradient is None: the sum over people is never computed.
        return outer @ saved if ctx.needs_input_grad[0] else None, None, None, None
