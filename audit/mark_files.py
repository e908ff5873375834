"""Reads what may be a stolen copy, without any ML library: adapters, merged models, single tensors.

safetensors (float64 to bfloat16, 8-bit integers with their scales, 4 bits of bitsandbytes) is read
in place, tensor by tensor; GGUF (Q8_0, Q4_0, Q4_1 and what else the package `gguf` knows) through
that package, and ONNX through `onnx`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit import mark_int4, mark_onnx
from audit.errors import AuditError, unreadable
from audit.watermark import Float32

ADAPTER_FILE = "adapter_model.safetensors"
_PREFIXES = ("base_model.model.", "module.")
_MOST_HEADER = 100 << 20
_WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}
# llama.cpp's names of a block's matrices.
_GGUF = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_GGUF_ROOT = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

Tensors = Mapping[str, Callable[[], Float32]]


def adapter(
    path: Path,
) -> tuple[dict[str, Float32], dict[str, Float32], int]:
    """Read a PEFT adapter without PEFT: module -> B, module -> A, and how many other tensors.

    Half-precision tensors (float16, bfloat16) are widened to float32.

    Raises:
        AuditError: the file is missing, is not safetensors, or holds no complete LoRA factors.
    """
    file = path / ADAPTER_FILE if path.is_dir() else path
    b, a, others = factors(tensors(file))
    if not b or b.keys() != a.keys():
        raise AuditError(
            f"{file} holds no complete LoRA factors; give a PEFT adapter folder", code="not-lora"
        )
    return b, a, len(others)


def factors(
    found: Tensors,
) -> tuple[dict[str, Float32], dict[str, Float32], dict[str, Callable[[], Float32]]]:
    """Split tensors into B and A by module, and the rest."""
    sides: dict[str, dict[str, Float32]] = {"lora_A": {}, "lora_B": {}}
    others = {}
    for name, read in found.items():
        module, dot, tail = plain(name).rpartition(".lora_")
        factor, _, ending = f"lora_{tail}".partition(".")
        if dot and factor in sides and ending in ("weight", "default.weight"):
            sides[factor][module] = read()
        else:
            others[name] = read
    return sides["lora_B"], sides["lora_A"], others


def tensors(path: Path) -> Tensors:
    """Every tensor of a file, or of all weight files in a folder; each is read when called.

    Raises:
        AuditError: nothing is there, or a file is damaged or of another kind.
    """
    files = [path]
    if path.is_dir():
        kinds = ("*.safetensors", "*.gguf", "*.onnx")
        files = next((held for kind in kinds if (held := sorted(path.glob(kind)))), [])
        if not files:
            raise AuditError(
                f"{path} holds no .safetensors, .gguf or .onnx file; check the path",
                code="unreadable",
                exit_code=2,
            )
    found: dict[str, Callable[[], Float32]] = {}
    for file in files:
        found |= _READERS.get(file.suffix, _safetensors)(file)
    return found


def config(path: Path) -> dict[str, Any]:
    """config.json beside a model's weights; empty if there is none.

    Raises:
        AuditError: it is not JSON.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_bytes())
    except ValueError:
        raise AuditError(f"{file} is not JSON; fetch the model again", code="bad-config") from None
    return value if isinstance(value, dict) else {}


def plain(name: str) -> str:
    """A tensor's name without what wrappers put before it."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _safetensors(path: Path) -> dict[str, Callable[[], Float32]]:
    try:
        whole = np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:  # an empty file cannot be mapped
        raise _not_safetensors(path) from None
    try:
        size = int.from_bytes(whole[:8].tobytes(), "little")
        if not 2 <= size <= min(whole.size - 8, _MOST_HEADER):
            raise ValueError
        header = json.loads(whole[8 : 8 + size].tobytes())
        header.pop("__metadata__", None)
        found = {name: _slice(path, whole[8 + size :], entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise _not_safetensors(path) from None
    result: dict[str, Callable[[], Float32]] = {}
    reads = {name: read for name, (_, read) in found.items()}
    for name, (kind, read) in found.items():
        if mark_int4.beside(name):
            continue
        if kind == "U8" and (four := mark_int4.reader(path, name, reads)) is not None:
            result[name] = four
        elif kind == "I8":
            result[name] = _scaled(path, name, read, found)
        elif kind != "U8" and not name.endswith((".SCB", "_scale", ".scale")):
            result[name] = read
    if not result:
        raise AuditError(
            f"{path} holds no tensors of float64 to bfloat16, int8 or nf4; convert it first",
            code="bad-dtype",
        )
    return result


def _slice(
    path: Path, data: np.ndarray, entry: Mapping[str, Any]
) -> tuple[str, Callable[[], Float32]]:
    kind, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
    start, end = (int(n) for n in entry["data_offsets"])
    width = _WIDTH.get(kind)
    if width is None:
        raise AuditError(
            f"{path} holds {kind} tensors; convert it to float16, bfloat16 or float32 first",
            code="bad-dtype",
        )
    if not (0 <= start <= end <= data.size and end - start == int(np.prod(shape)) * width):
        raise ValueError("a tensor lies outside the file")

    def read() -> Float32:
        raw = data[start:end].tobytes()
        if kind == "BF16":  # the upper half of a float32; numpy has no name for it
            wide = np.frombuffer(raw, dtype="<u2").astype("<u4") << 16
            return wide.view("<f4").reshape(shape)
        if kind in ("I8", "U8"):
            return np.frombuffer(raw, dtype=f"<{kind[0].lower()}1").reshape(shape).astype("<f4")
        with np.errstate(over="ignore"):  # what overflows becomes inf and is refused later
            return np.frombuffer(raw, dtype=f"<f{width}").astype("<f4").reshape(shape)

    return kind, read


def _scaled(
    path: Path,
    name: str,
    read: Callable[[], Float32],
    found: Mapping[str, tuple[str, Callable[[], Float32]]],
) -> Callable[[], Float32]:
    """An 8-bit matrix times its scale: bitsandbytes' SCB by row, or a factor weight_scale."""
    module = name.removesuffix(".weight")
    for other, share in ((f"{module}.SCB", 1.0 / 127.0), (f"{module}.weight_scale", 1.0)):
        if other in found:
            scale = found[other][1]
            return lambda: np.asarray(
                read() * (scale().reshape(-1, 1) * np.float32(share)), dtype=np.float32
            )
    raise AuditError(
        f"{path} holds 8-bit integers without a scale (SCB or weight_scale) for {module[:80]!r}",
        code="bad-dtype",
    )


def _gguf(path: Path) -> dict[str, Callable[[], Float32]]:
    try:
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ModuleNotFoundError:
        raise AuditError(
            "reading GGUF needs the package gguf; run: pip install gguf",
            code="no-gguf",
            exit_code=2,
        ) from None
    try:
        reader = GGUFReader(path)
        kind = str(reader.fields["general.architecture"].contents())
        heads = {
            "attn_q": _count(reader, f"{kind}.attention.head_count"),
            "attn_k": _count(reader, f"{kind}.attention.head_count_kv"),
        }
        items = list(reader.tensors)
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise AuditError(f"{path} is not a GGUF file; fetch it again", code="not-gguf") from None

    def reading(item: Any, count: int | None) -> Callable[[], Float32]:
        def read() -> Float32:
            shape = tuple(int(n) for n in reversed(item.shape))
            wide = np.asarray(dequantize(item.data, item.tensor_type), dtype=np.float32)
            return _unpermuted(wide.reshape(shape), count)

        return read

    # llama.cpp interleaves the rows of query and key of this one architecture.
    return {
        name: reading(item, heads.get(own) if kind == "llama" else None)
        for item in items
        for own, name in _gguf_names(str(item.name))
    }


def _count(reader: Any, name: str) -> int | None:
    found = reader.fields.get(name)
    return int(found.contents()) if found is not None else None


def _gguf_names(name: str) -> Iterator[tuple[str, str]]:
    stem = name.removesuffix(".weight")
    if stem.startswith("blk."):
        _, layer, own = stem.split(".", 2)
        if own in _GGUF:
            yield own, f"model.layers.{layer}.{_GGUF[own]}.weight"
    elif stem in _GGUF_ROOT:
        yield stem, f"{_GGUF_ROOT[stem]}.weight"


def _unpermuted(weight: Float32, heads: int | None) -> Float32:
    if heads is None or weight.ndim != 2:
        return weight
    half = weight.shape[0] // heads // 2
    split = weight.reshape(heads, half, 2, weight.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


_READERS = {".gguf": _gguf, ".onnx": mark_onnx.tensors}


def _not_safetensors(path: Path) -> AuditError:
    return AuditError(f"{path} is not a safetensors file; fetch it again", code="not-safetensors")
