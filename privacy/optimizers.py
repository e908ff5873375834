"""What turns a noised gradient into a step, and its state between an institution's rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import torch
from torch import Tensor, nn

from privacy.errors import PlanInvalid

Name = Literal["adamw", "sgd"]

# The entries of a weight's state, all made of noised gradients.
_STATE: Final[Mapping[str, tuple[str, ...]]] = {
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "sgd": (),
}
NAMES: Final = tuple(_STATE)


def make(
    name: Name, weights: Sequence[nn.Parameter], rate: float, decay: float = 0.0
) -> torch.optim.Optimizer:
    """An optimizer over `weights`: "adamw", or "sgd" without momentum.

    Every step takes rate times `decay` of the weights off beside the gradient's part. That is
    decoupled from the gradient in both: without momentum, SGD's own form is the same.
    """
    if name == "adamw":
        return torch.optim.AdamW(weights, lr=rate, weight_decay=decay)
    return torch.optim.SGD(weights, lr=rate, weight_decay=decay)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Take the next step at this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def saved(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Copy the state by "<parameter name>.<entry>"."""
    return {
        f"{name}.{key}": value.detach().cpu().clone()
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
        if isinstance(value, Tensor)
    }


def restore(
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, nn.Parameter],
    state: Mapping[str, Tensor],
    name: Name,
) -> None:
    """Put what `saved` returned back; an empty state is a fresh start.

    Raises:
        PlanInvalid: the state belongs to other weights or another optimizer, or is not finite.
    """
    if not state:
        return
    keys = _STATE[name]
    if set(state) != {f"{weight}.{key}" for weight in weights for key in keys}:
        raise PlanInvalid(
            f"the optimizer state does not belong to this model and {name}; start without it"
        )
    for path, weight in weights.items():
        entries = {key: state[f"{path}.{key}"].detach().clone() for key in keys}
        for key, value in entries.items():
            wanted = () if key == "step" else tuple(weight.shape)
            if tuple(value.shape) != wanted or not bool(torch.isfinite(value).all()):
                raise PlanInvalid(
                    f"{path}.{key} of the optimizer state has another shape or is not finite; "
                    "start without it"
                )
        optimizer.state[weight] = {
            key: value if key == "step" else value.to(weight.device)
            for key, value in entries.items()
        }
