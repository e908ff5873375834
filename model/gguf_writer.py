"""Write a merged model as GGUF: 16 bits, 8 bits (Q8_0) or 4 bits (Q4_0); the one door to gguf."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind

from model.errors import ModelError

Width = Literal["f16", "q8_0", "q4_0"]
_KINDS: Final[dict[Width, tuple[Kind, gguf.LlamaFileType]]] = {
    "f16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Kind.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
_ARCHITECTURES: Final = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
}
_BLOCK: Final = 32  # numbers that share a scale; a row that does not divide stays at 16 bits
# Looked up rather than multiplied, and the first to suffer: never under 8 bits.
_SENSITIVE: Final = ("token_embd", "output.")
# Readers split text before merging by rules that they know by name only.
_BYTE_LEVEL: Final = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS: Final = {"type": "Digits", "individual_digits": True}


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
            "GGUF is written for Llama and Qwen2 models; export the merged model instead",
            code="unsupported-architecture",
        )
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[arch])
    kind, file_type = _KINDS[width]
    _describe(writer, config, name, file_type)
    _tokens(writer, folder, int(config["vocab_size"]))
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


def _tokens(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    model = tokenizer["model"]
    if model["type"] != "BPE":
        raise ModelError("GGUF is written for BPE tokenizers", code="unsupported-tokenizer")
    words = {place: word for word, place in model["vocab"].items()}
    kinds = dict.fromkeys(words, gguf.TokenType.NORMAL)
    for added in tokenizer.get("added_tokens", ()):
        words[added["id"]] = added["content"]
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        kinds[added["id"]] = special
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split(tokenizer.get("pre_tokenizer") or {}))
    writer.add_token_list([words.get(place, f"[unused{place}]") for place in range(size)])
    unused = gguf.TokenType.UNUSED
    writer.add_token_types([int(kinds.get(place, unused)) for place in range(size)])
    merges = model["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    ids = {word: place for place, word in words.items()}
    for key, add in (("bos_token", writer.add_bos_token_id), ("eos_token", writer.add_eos_token_id),
                     ("pad_token", writer.add_pad_token_id)):  # fmt: skip
        token = settings.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if token in ids:
            add(ids[token])
    template = folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text("utf-8"))
    elif isinstance(settings.get("chat_template"), str):
        writer.add_chat_template(settings["chat_template"])


def _split(rule: Mapping[str, Any]) -> str:
    """The name by which readers know this way of splitting."""

    def like(given: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
        return all(given.get(key) == value for key, value in known.items())

    steps = rule.get("pretokenizers") if rule.get("type") == "Sequence" else [rule]
    if isinstance(steps, list):
        if len(steps) == 1 and like(steps[0], _BYTE_LEVEL):
            return "gpt-2"
        if len(steps) == 2 and like(steps[0], _DIGITS) and like(steps[1], _BYTE_LEVEL):
            return "smollm"
        split = steps[0].get("pattern", {}).get("Regex", "") if len(steps) == 2 else ""
        if "\\p{N}{1,3}" in split:
            return "llama-bpe"
        if "\\p{N}" in split:
            return "qwen2"
    raise ModelError(
        "this tokenizer splits text in a way that readers of GGUF have no name for; export the "
        "merged model instead",
        code="unsupported-tokenizer",
    )
