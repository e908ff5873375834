"""The adapter on the model: public factors, frozen, and what is trained between or beside them.

With FFA-LoRA (arXiv:2403.12313) A is frozen and B is trained; with LoRA-XS (arXiv:2405.17604) A and
L are frozen and the small R between them is trained. Averages of what is trained are exact, since
the rest is the same everywhere, and the noise of several institutions adds up linearly. Plain LoRA
trains both factors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
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


def attach(base: Base, spec: Spec) -> Any:
    """Put an adapter on the base model, in place.

    Args:
        base: the loaded model; carries no adapter yet.
        spec: the adapter that the plan asks for.

    Returns:
        The `PeftModel`; it shares its weights with `base.model`.

    Guarantees: the trainable parameters are those of `shapes`, as weights of plain linear layers,
        and are `frozen.start`, so the model computes what the base computes; the others are
        `frozen.factors`; no dropout.

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
            layer.lora_B[_NAME].weight.zero_()
            if spec.method == "lora-xs":
                left = layer.lora_B[_NAME]
                left.weight.copy_(torch.from_numpy(fixed[f"{path}.L"]))
                inner = nn.utils.skip_init(
                    nn.Linear, spec.rank, spec.rank, bias=False, device=left.weight.device
                )
                inner.weight.zero_()
                layer.lora_B[_NAME] = nn.Sequential(inner, left)
    weights = _weights(model)
    for name in shapes(base.folder, spec):
        if name in weights:
            weights[name].requires_grad_(True)
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
    public = {name: w for name, w in _weights(model).items() if name.endswith((".A", ".L"))}
    return frozen.digest({name: _array(weight) for name, weight in public.items()})


def read(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Copy the trained arrays out, float32 by the names of `shapes`, sorted."""
    return {name: _array(weight) for name, weight in _trained(model).items()}


def write(model: Any, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Copy trained arrays into the model.

    Raises:
        ModelError: names or shapes are not exactly the adapter's, or an entry is not finite;
            nothing is written then.
    """
    weights = _trained(model)
    export.check(arrays, {name: tuple(weight.shape) for name, weight in weights.items()})
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


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


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name.removeprefix("base_model.model."), module


def _weights(model: Any) -> dict[str, Any]:
    """Every factor on the model: "<module path>.<letter>" -> its weight."""
    found = {}
    for path, layer in _layers(model):
        found[f"{path}.A"] = layer.lora_A[_NAME].weight
        outer = layer.lora_B[_NAME]
        if isinstance(outer, nn.Sequential):
            found[f"{path}.R"], found[f"{path}.L"] = outer[0].weight, outer[1].weight
        else:
            found[f"{path}.B"] = outer.weight
    return found


def _trained(model: Any) -> dict[str, Any]:
    return {
        name: weight for name, weight in sorted(_weights(model).items()) if weight.requires_grad
    }


def _array(weight: Any) -> npt.NDArray[np.float32]:
    return np.array(weight.detach().cpu().numpy(), dtype=np.float32)
