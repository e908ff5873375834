"""The adapter as a folder in PEFT's format: what a release contains and what others can load.

Imports no torch, so that a release can be composed, marked and verified without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from model import architectures, frozen
from model.errors import ModelError
from model.manifest import ModelFolder
from model.shapes import Spec, shapes, targets_for

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."

Arrays = Mapping[str, npt.NDArray[np.float32]]


def save_folder(
    out: Path, *, folder: ModelFolder, spec: Spec, arrays: Arrays, a: Arrays | None = None
) -> Path:
    """Write an adapter as a PEFT folder that `PeftModel.from_pretrained` loads on the base model.

    Args:
        out: folder to write to; created if missing.
        folder: the base model; only its public name is written, no path.
        spec: the adapter's shape.
        arrays: factors "<module path>.B" -> (out, rank); see `frozen.product`.
        a: factors "<module path>.A" -> (rank, in); None derives them from the seed.

    Returns:
        `out`.

    Raises:
        ModelError: names, shapes or finiteness of the arrays are not what the adapter demands.
    """
    plain = replace(spec, method="lora")
    wanted = shapes(folder, plain)
    fixed = frozen.factors(folder, plain) if a is None else a
    check(arrays, {name: shape for name, shape in wanted.items() if name.endswith(".B")})
    check(fixed, {name: shape for name, shape in wanted.items() if name.endswith(".A")})
    tensors = {}
    for name, array in [*arrays.items(), *fixed.items()]:
        path, _, letter = name.rpartition(".")
        key = f"{_PREFIX}{path}.lora_{letter}.weight"
        tensors[key] = np.ascontiguousarray(array, dtype=np.float32)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": folder.name,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "target_modules": list(targets_for(folder, spec)),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": architectures.of(folder.architecture).transposed,
        "inference_mode": True,
        "use_rslora": False,
        "use_dora": False,
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (out / CONFIG_FILE).write_text(text, "utf-8")
    ordered = {key: tensors[key] for key in sorted(tensors)}
    save_file(ordered, out / WEIGHTS_FILE, metadata={"format": "pt"})
    return out


def load_arrays(
    folder: Path,
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, npt.NDArray[np.float32]], dict[str, Any]]:
    """Read an adapter folder.

    Returns:
        Trained factors "<module path>.B" -> (out, rank), frozen factors "<module path>.A" ->
        (rank, in), and the adapter's configuration.

    Raises:
        ModelError: the folder holds no plain LoRA adapter in safetensors, or a damaged one.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no readable adapter ({CONFIG_FILE} and {WEIGHTS_FILE}); "
            "copy the whole release again",
            code="bad-adapter",
            exit_code=4,
        ) from error
    sides: dict[str, dict[str, npt.NDArray[np.float32]]] = {"A": {}, "B": {}}
    for key, tensor in sorted(tensors.items()):
        path, _, letter = key.removesuffix(".weight").rpartition(".lora_")
        if letter not in sides or not path.startswith(_PREFIX) or tensor.ndim != 2:
            raise ModelError(
                f"the adapter in {folder} has an array that is no LoRA factor; "
                "use an adapter that this software wrote",
                code="bad-adapter",
                exit_code=4,
            )
        sides[letter][f"{path.removeprefix(_PREFIX)}.{letter}"] = tensor.astype(np.float32)
    modules = [{name.rpartition(".")[0] for name in side} for side in sides.values()]
    if not isinstance(config, dict) or modules[0] != modules[1] or not modules[0]:
        raise ModelError(
            f"the adapter in {folder} is incomplete; copy the whole release again",
            code="bad-adapter",
            exit_code=4,
        )
    return sides["B"], sides["A"], config


def check(arrays: Arrays, wanted: Mapping[str, tuple[int, int]]) -> None:
    """Raise unless the arrays have exactly the wanted names and shapes and only finite entries.

    Raises:
        ModelError: they do not.
    """
    for name in sorted(arrays.keys() ^ wanted.keys()):
        state = "missing" if name in wanted else "not part of it"
        raise ModelError(
            f"the arrays do not make this adapter, {name!r:.120} is {state}; use arrays of the "
            "same model and plan",
            code="bad-arrays",
        )
    for name, shape in wanted.items():
        array = arrays[name]
        if tuple(array.shape) != shape or not np.isfinite(array).all():
            raise ModelError(
                f"the array {name} must have the shape {shape} and finite entries, and has the "
                f"shape {tuple(array.shape)}; use arrays of the same model and plan",
                code="bad-arrays",
            )
