"""The adapter on the model: public factors, frozen, and what is trained between or beside them.

With FFA-LoRA (arXiv:2403.12313) A is frozen and B is trained; with LoRA-XS (arXiv:2405.17604) A and
L are frozen and the small R between them is trained. Averages of what is trained are exact, since
the rest is the same everywhere, and the noise of several institutions adds up linearly. Plain LoRA
trains both factors.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

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


class _Split(nn.Module):
    """Factor B or R in two plain layers: its first columns, which are trained, and the rest."""

    def __init__(self, whole: nn.Linear, columns: int) -> None:
        super().__init__()
        rows, rank = whole.weight.shape
        self.trained = nn.Linear(columns, rows, bias=False)
        self.rest = nn.Linear(rank - columns, rows, bias=False)
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
        columns: how many columns of each B (or R) are trained, from the first on; None: all.
            With "lora" it is all: there are two factors to be trained in step.

    Returns:
        The `PeftModel`; it shares its weights with `base.model`.

    Guarantees: the trainable parameters are those of `shapes`, as weights of plain linear layers,
        and are `frozen.start`, so the model computes what the base computes; of B (or of R, with
        LoRA-XS) only the first `columns` columns are trained; the others are `frozen.factors`; no
        dropout.

    Raises:
        ModelError: the adapter does not fit, or the model already carries one.
    """
    if spec.method == "lora" and columns is not None and columns < spec.rank:
        raise ModelError(
            "both factors of lora are trained whole; set runtime.columns to 0, or take ffa-lora",
            code="bad-adapter",
        )
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
            _set(layer.lora_B[_NAME], torch.zeros_like(layer.lora_B[_NAME].weight))
            if spec.method == "lora-xs":
                left = layer.lora_B[_NAME]
                _set(left, torch.from_numpy(fixed[f"{path}.L"]))
                inner = nn.utils.skip_init(
                    nn.Linear, spec.rank, spec.rank, bias=False, device=left.weight.device
                )
                inner.weight.zero_()
                layer.lora_B[_NAME] = nn.Sequential(inner, left)
            if columns is not None and columns < spec.rank:
                _split(layer, columns)
            layer.requires_grad_(False)
    for factor in _trained(model, shapes(base.folder, spec)).values():
        getattr(factor, "trained", factor).weight.requires_grad_(True)
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
    """Digest of the public factors on the model; equal wherever the same plan is attached.

    With "lora", where A is trained, of A as it is now.
    """
    public = {n: factor for n, factor in _factors(model).items() if n.endswith((".A", ".L"))}
    return frozen.digest({name: _array(factor) for name, factor in public.items()})


def read(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Copy the trained arrays out, float32 by the names of `shapes`, sorted."""
    return {name: _array(factor) for name, factor in _trained(model).items()}


def write(model: Any, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Copy trained arrays into the model.

    Raises:
        ModelError: names or shapes are not exactly the adapter's, or an entry is not finite;
            nothing is written then.
    """
    factors = _trained(model)
    export.check(arrays, {name: tuple(factor.weight.shape) for name, factor in factors.items()})
    with torch.no_grad():
        for name, factor in factors.items():
            _set(factor, torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


def change(
    model: Any, start: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    """How the trained arrays moved since `start`, only the columns that are trained."""
    moved = {}
    for name, factor in _trained(model).items():
        whole = _array(factor) - start[name]
        moved[name] = np.ascontiguousarray(whole[:, : getattr(factor, "columns", whole.shape[1])])
    return moved


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
    """Copy a whole factor into a layer, split or not."""
    if isinstance(factor, _Split):
        factor.trained.weight.copy_(whole[:, : factor.columns])
        factor.rest.weight.copy_(whole[:, factor.columns :])
    else:
        factor.weight.copy_(whole)


def _split(layer: Any, columns: int) -> None:
    """Divide what is trained of one module, B or with LoRA-XS R, after `columns` columns."""
    outer = layer.lora_B[_NAME]
    whole = outer[0] if isinstance(outer, nn.Sequential) else outer
    parts = _Split(whole, columns).to(whole.weight.device)
    _set(parts, whole.weight)
    if whole is outer:
        layer.lora_B[_NAME] = parts
    else:
        outer[0] = parts


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name.removeprefix("base_model.model."), module


def _factors(model: Any) -> dict[str, Any]:
    """Every factor on the model: "<module path>.<letter>" -> the layer that holds it."""
    found: dict[str, Any] = {}
    for path, layer in _layers(model):
        found[f"{path}.A"] = layer.lora_A[_NAME]
        outer = layer.lora_B[_NAME]
        if isinstance(outer, nn.Sequential):
            found[f"{path}.R"], found[f"{path}.L"] = outer[0], outer[1]
        else:
            found[f"{path}.B"] = outer
    return found


def _trained(model: Any, names: Container[str] | None = None) -> dict[str, Any]:
    """The factors of `names`, sorted; by default those of which something is trained."""
    return {
        name: factor
        for name, factor in sorted(_factors(model).items())
        if (name in names if names is not None else _learns(factor))
    }


def _learns(factor: Any) -> bool:
    return any(weight.requires_grad for weight in factor.parameters())


def _array(factor: Any) -> npt.NDArray[np.float32]:
    return np.array(factor.weight.detach().cpu().numpy(), dtype=np.float32)
