"""Load a base model for training, scoring or serving: frozen in behaviour, offline."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import Any, Literal

import torch

from model import quantised
from model.errors import ModelError
from model.manifest import ModelFolder


@dataclass(frozen=True, slots=True, repr=False)
class Base:
    """A loaded model with its tokenizer.

    Attributes:
        model: the causal language model in eval mode, every dropout set to zero.
        tokenizer: its tokenizer.
        folder: the checked folder that both came from.
    """

    model: Any
    tokenizer: Any
    folder: ModelFolder


Precision = Literal["auto", "float32", "bfloat16", "int8", "nf4"]


def load(
    folder: ModelFolder, *, threads: int | None = None, precision: Precision = "float32"
) -> Base:
    """Load a model from its folder alone: no network, no pickle, no code from the folder.

    Args:
        folder: from `catalog.find` or `catalog.pull`.
        threads: number of CPU threads for torch; None leaves torch's own choice.
        precision: of the frozen weights, with which their products are rounded as well; "auto" is
            bfloat16 where the processor has matrix units for it, and float32 elsewhere. "int8" and
            "nf4" keep the layers' matrices in so many bits and compute in float32. An adapter is
            float32 on any.

    Guarantees: weights have that precision, no module drops out, and a module path of
        `folder.linear` names a module with that matrix.

    Raises:
        ModelError: the files do not make a model.
    """
    # Read once at import by the hub client, hence before it.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if threads is not None:
        torch.set_num_threads(threads)
    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(str(folder.path), **offline)
        _still(config)
        if getattr(config, "quantization_config", None) is not None:
            raise ModelError(
                f"the model {folder.name} is quantised, which private training was never tried "
                "on; use its original weights",
                code="model-quantised",
            )
        model = AutoModelForCausalLM.from_pretrained(
            str(folder.path),
            config=config,
            dtype=_dtype(precision),
            use_safetensors=True,
            **offline,
        )
        tokenizer = AutoTokenizer.from_pretrained(str(folder.path), **offline)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(
            f"the model {folder.name} in {folder.path} does not load ({type(error).__name__}); "
            "pull it again, or choose another model",
            code="model-does-not-load",
        ) from error
    # Else the path on this machine would go wherever the configuration goes.
    model.name_or_path = model.config._name_or_path = folder.name
    if tokenizer.pad_token_id is None:
        # Padding is masked by length, never by id, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    modules = dict(model.named_modules())
    for path, (rows, columns) in folder.linear.items():
        weight = getattr(modules.get(path), "weight", None)
        if weight is None or set(weight.shape) != {rows, columns}:
            raise ModelError(
                f"the weights of {folder.name} do not fit its architecture at {path}; "
                "pull it again, or choose another model",
                code="model-does-not-load",
            )
    if precision in quantised.FORMS:
        quantised.quantise(model, folder.linear, precision)
    return Base(model=model.eval(), tokenizer=tokenizer, folder=folder)


def _dtype(precision: Precision) -> torch.dtype | str:
    if precision in quantised.FORMS:
        return "auto"  # as the files have it: no larger copy is made before it is quantised
    if precision == "bfloat16" or (precision == "auto" and _matrix_units()):
        return torch.bfloat16
    return torch.float32


def _matrix_units() -> bool:
    """Whether bfloat16 is faster than float32: on x86 with AMX, on Arm with its matrix product.

    Vector instructions alone (AVX-512 BF16) save nothing here.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_amx_tile_supported())
    return _arm_product()


def _arm_product() -> bool:
    supported = torch.backends.mkldnn.is_available()
    return bool(supported and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _still(config: Any) -> None:
    """Set every dropout probability to zero: noise of the mechanism is the only randomness."""
    for name in list(vars(config)):
        if name.endswith(("dropout", "_pdrop", "layerdrop")):
            setattr(config, name, 0.0)
