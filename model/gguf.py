"""Turn a quantised GGUF file into a plain model folder: float32 safetensors and a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def dequantise(file: Path, out: Path) -> None:
    """Write the model in a GGUF file as a folder that loads like any other.

    Args:
        file: the GGUF file.
        out: existing folder; receives config.json, model.safetensors and the tokenizer with
            its chat template.

    Guarantees: the same file gives the same weights on every machine, and nothing that is
        written names this machine, the time or the version of a library.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    quantised = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    config = type(quantised.config)(**_plain(quantised.config.to_dict()))
    # The loaded object counts as quantised and refuses to be saved, though its tensors are
    # float32 by now; a fresh one takes them over.
    with torch.device("meta"):
        model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(str(out))
    tokenizer = AutoTokenizer.from_pretrained(
        str(file.parent), gguf_file=file.name, local_files_only=True
    )
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(str(out))
    _drop(out / "config.json", "transformers_version")
    _drop(out / "generation_config.json", "transformers_version")
    _drop(out / "tokenizer_config.json", "is_local", "local_files_only")


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    dropped = ("quantization_config", "_name_or_path", "_model_name_or_path", "architectures")
    return {key: value for key, value in config.items() if key not in dropped}


def _drop(file: Path, *keys: str) -> None:
    if not file.is_file():
        return
    value = json.loads(file.read_text("utf-8"))
    for key in keys:
        value.pop(key, None)
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
