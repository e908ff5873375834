"""The adapter on the model: FFA-LoRA with a frozen public factor A and a trained factor B.

Averages of B are exact because A is the same everywhere (arXiv:2403.12313), and the noise of
several institutions adds up linearly.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model import architectures, export, frozen
from model.base import Base
from model.errors import ModelError
from model.export import load_arrays
from model.shapes import Spec, shapes, targets_for

__all__ = [
    "Spec",
    "attach",
    "detach",
    "frozen_digest",
    "load_arrays",
    "read",
    "save",
    "shapes",
    "targets_for",
    "write",
]

_NAME = "default"


class _Split(torch.nn.Module):
    """Factor B in two plain layers: its first columns, which are trained, and the frozen rest."""

    def __init__(self, whole: torch.nn.Linear, columns: int) -> None:
        super().__init__()
        rows, rank = whole.weight.shape
        self.trained = torch.nn.Linear(columns, rows, bias=False)
        self.rest = torch.nn.Linear(rank - columns, rows, bias=False)
        self.columns = columns

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        ours, theirs = hidden[..., : self.columns], hidden[..., self.columns :]
        return torch.add(self.trained(ours), self.rest(theirs))

    @property
    def weight(self) -> torch.Tensor:
        """The whole factor, (out, rank); a copy."""
        return torch.cat([self.trained.weight, self.rest.weight], dim=1)


def attach(base: Base, spec: Spec, *, columns: int | None = None) -> Any:
    """Put an adapter on the base model, in place.

    Args:
        base: the loaded model; carries no adapter yet.
        spec: the adapter that the plan asks for.
        columns: how many columns of each B are trained, from the first on; None: all.

    Returns:
        The `PeftModel`; it shares its weights with `base.model`.

    Guarantees: the B factors are zero, and their first `columns` columns are the only trainable
        parameters, so the model computes what the base computes; A has orthonormal rows derived
        from the seed; no dropout.

    Raises:
        ModelError: the adapter does not fit, or the model already carries one.
    """
    from peft import LoraConfig, get_peft_model

    targets = targets_for(base.folder, spec)
    if any(True for _ in _layers(base.model)):
        raise ModelError(
            f"the model {base.folder.name} already carries an adapter; detach it first",
            code="adapter-attached",
        )
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        fan_in_fan_out=architectures.of(base.folder.architecture).transposed,
        base_model_name_or_path=base.folder.name,
    )
    with warnings.catch_warnings():
        # peft asks transformers for a property under its old name; no concern of ours.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", append=False)
        model = get_peft_model(base.model, config)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    fixed = frozen.factors(base.folder, spec)
    covered = set()
    with torch.no_grad():
        for path, layer in _layers(model):
            covered.add(path)
            layer.lora_A[_NAME].weight.copy_(torch.from_numpy(fixed[f"{path}.A"]))
            if columns is not None and columns < spec.rank:
                layer.lora_B[_NAME] = _Split(layer.lora_B[_NAME], columns).requires_grad_(False)
            _set(layer.lora_B[_NAME], torch.zeros_like(layer.lora_B[_NAME].weight))
            trained = getattr(layer.lora_B[_NAME], "trained", layer.lora_B[_NAME])
            trained.weight.requires_grad_(True)
    if covered != set(targets):
        raise ModelError(
            f"the adapter reached {len(covered)} of {len(targets)} matrices of "
            f"{base.folder.name}; choose its targets by whole paths",
            code="bad-adapter",
        )
    return model.eval()


def detach(model: Any) -> None:
    """Take the adapter off again; the base model is as it was before `attach`."""
    model.unload()


def frozen_digest(model: Any) -> str:
    """Digest of the frozen factors on the model; equal wherever the same plan is attached."""
    return frozen.digest(
        {f"{path}.A": _array(layer.lora_A[_NAME].weight) for path, layer in _layers(model)}
    )


def read(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Copy the trained factors out: "<module path>.B" -> float32, shape (out, rank), sorted."""
    found = {f"{path}.B": _array(layer.lora_B[_NAME].weight) for path, layer in _layers(model)}
    return dict(sorted(found.items()))


def write(model: Any, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Copy trained factors into the model.

    Raises:
        ModelError: names or shapes are not exactly the adapter's, or an entry is not finite;
            nothing is written then.
    """
    weights = {f"{path}.B": layer.lora_B[_NAME].weight for path, layer in _layers(model)}
    export.check(arrays, {name: tuple(weight.shape) for name, weight in weights.items()})
    with torch.no_grad():
        for path, layer in _layers(model):
            whole = np.array(arrays[f"{path}.B"], dtype=np.float32)
            _set(layer.lora_B[_NAME], torch.from_numpy(whole))


def columns(model: Any) -> int:
    """How many columns of each B are trained."""
    (count,) = {
        getattr(layer.lora_B[_NAME], "columns", layer.lora_B[_NAME].weight.shape[1])
        for _, layer in _layers(model)
    }
    return int(count)


def save(
    folder: Path,
    *,
    base: Base,
    spec: Spec,
    arrays: Mapping[str, npt.NDArray[np.float32]],
    a: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> Path:
    """Write an adapter as a PEFT folder; see `export.save_folder`."""
    return export.save_folder(folder, folder=base.folder, spec=spec, arrays=arrays, a=a)


def _set(factor: Any, whole: torch.Tensor) -> None:
    """Copy a whole factor B into a layer, split or not."""
    if isinstance(factor, _Split):
        factor.trained.weight.copy_(whole[:, : factor.columns])
        factor.rest.weight.copy_(whole[:, factor.columns :])
    else:
        factor.weight.copy_(whole)


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name.removeprefix("base_model.model."), module


def _array(weight: Any) -> npt.NDArray[np.float32]:
    return np.array(weight.detach().cpu().numpy(), dtype=np.float32)
