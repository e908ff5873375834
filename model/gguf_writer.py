"""Write a merged model as GGUF: 16 bits, 8 bits (Q8_0) or 4 bits (Q4_0)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind

from model import gguf_tokens
from model.errors import ModelError

Width = Literal["f16", "q8_0", "q4_0"]
_KINDS: Final[dict[Width, tuple[Kind, gguf.LlamaFileType]]] = {
    "f16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Kind.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
_ARCHITECTURES: Final = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
}
_BLOCK: Final = 32  # numbers that share a scale; a row that does not divide stays at 16 bits
# Looked up rather than multiplied, and the first to suffer: never under 8 bits.
_SENSITIVE: Final = ("token_embd", "output.")


def write(
    file: Path,
    folder: Path,
    weights: Mapping[str, npt.NDArray[np.float32]],
    width: Width,
    *,
    name: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write one GGUF file.

    Args:
        file: the file to write.
        folder: the merged model's folder: its config.json and tokenizer.json are read.
        weights: by their names in transformers, float32.
        width: bits of the matrices; vectors stay float32.
        name: of the model, for whoever opens the file.
        progress: called with tensors done and in all.

    Raises:
        ModelError: the architecture or the tokenizer is none that readers of GGUF know by name.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    arch = _ARCHITECTURES.get((config.get("architectures") or [""])[0])
    if arch is None:
        raise ModelError(
            "GGUF is written for Llama, Mistral and Qwen2 models; export the merged model instead",
            code="unsupported-architecture",
        )
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[arch])
    kind, file_type = _KINDS[width]
    _describe(writer, config, name, file_type)
    gguf_tokens.describe(writer, folder, int(config["vocab_size"]))
    names = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    for place, (key, array) in enumerate(sorted(weights.items())):
        target = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(f"the weight {key} has no place in GGUF", code="unsupported-weight")
        if arch == gguf.MODEL_ARCH.LLAMA:
            array = _paired(key, array, config)
        chosen = _kind(target, array, kind)
        writer.add_tensor(target, gguf.quantize(array, chosen), raw_dtype=chosen)
        progress(place + 1, len(weights))
    writer.write_header_to_file(file)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _kind(target: str, array: npt.NDArray[np.float32], kind: Kind) -> Kind:
    if array.ndim < 2:
        return Kind.F32
    if kind != Kind.F16 and array.shape[-1] % _BLOCK:
        return Kind.F16
    if kind == Kind.Q4_0 and target.startswith(_SENSITIVE):
        return Kind.Q8_0
    return kind


def _paired(
    key: str, array: npt.NDArray[np.float32], config: Mapping[str, Any]
) -> npt.NDArray[np.float32]:
    """Query and key rows in the order of GGUF's Llama, which turns neighbours, not halves."""
    heads = int(config["num_attention_heads"])
    if key.endswith("k_proj.weight"):
        heads = int(config.get("num_key_value_heads") or heads)
    elif not key.endswith("q_proj.weight"):
        return array
    rows = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(array.shape))


def _describe(
    writer: gguf.GGUFWriter, config: Mapping[str, Any], name: str, file_type: gguf.LlamaFileType
) -> None:
    heads = int(config["num_attention_heads"])
    rope = config.get("rope_parameters") or {}
    if (rope.get("rope_type") or "default") != "default" or config.get("rope_scaling"):
        raise ModelError(
            "this model scales its positions, which is not written as GGUF here; export the "
            "merged model instead",
            code="unsupported-architecture",
        )
    if config.get("model_type") == "mistral" and config.get("sliding_window"):
        raise ModelError(
            "this model looks back through a window, which readers of GGUF do not know of; export "
            "the merged model instead",
            code="unsupported-architecture",
        )
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_rope_dimension_count(int(config.get("head_dim") or config["hidden_size"] // heads))
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 1e4))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))
