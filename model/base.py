"""Load a base model for training, scoring or serving: float32, frozen in behaviour, offline."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from model.errors import ModelError
from model.manifest import ModelFolder


@dataclass(frozen=True, slots=True, repr=False)
class Base:
    """A loaded model with its tokenizer.

    Attributes:
        model: the causal language model, float32, in eval mode, every dropout set to zero.
        tokenizer: its tokenizer.
        folder: the checked folder that both came from.
    """

    model: Any
    tokenizer: Any
    folder: ModelFolder


def load(folder: ModelFolder, *, threads: int | None = None) -> Base:
    """Load a model from its folder alone: no network, no pickle, no code from the folder.

    Args:
        folder: from `catalog.find` or `catalog.pull`.
        threads: number of CPU threads for torch; None leaves torch's own choice.

    Guarantees: weights are float32, no module drops out, and a module path of `folder.linear`
        names a module with that matrix.

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
        model = AutoModelForCausalLM.from_pretrained(
            str(folder.path), config=config, dtype=torch.float32, use_safetensors=True, **offline
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
    return Base(model=model.eval(), tokenizer=tokenizer, folder=folder)


def _still(config: Any) -> None:
    """Set every dropout probability to zero: noise of the mechanism is the only randomness."""
    for name in list(vars(config)):
        if name.endswith(("dropout", "_pdrop", "layerdrop")):
            setattr(config, name, 0.0)
