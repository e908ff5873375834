"""How much memory a run's training needs, and which processors have it: from shapes alone.

Nothing here was measured on a GPU. Sizes follow from the model's matrices, the adapter and
`chunk_tokens`; what is kept of a token was calibrated once on a processor (1.5 MB for
SmolLM2-135M in float32). Times take a published peak and a quarter of it as reached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from model.manifest import ModelFolder
from privacy import trainable

_BYTES: Final = {"float32": 4, "bfloat16": 2}
_PACKED: Final = {"int8": 1.0, "nf4": 0.5625}  # bytes of a matrix's weight, scales included
_KEPT: Final = 1.25  # values kept of a token, over the widths of all matrices
_LABELS: Final = 64  # rows of a block of logits
_REACHED: Final = 0.25
_OWN: Final = 1.0e9  # what a process and its libraries take


@dataclass(frozen=True, slots=True)
class Device:
    """A class of GPU: gigabytes, and 1e12 operations a second in float32 and in bfloat16.

    bfloat16 is dense, on matrix units; without them it is 0, and the class is left out.
    """

    gigabytes: float
    float32: float
    bfloat16: float


# Makers' published peaks.
DEVICES: Final[Mapping[str, Device]] = {
    "T4 16 GB": Device(16, 8.1, 0.0),
    "L4 24 GB": Device(24, 30.3, 121.0),
    "RTX 4090 24 GB": Device(24, 82.6, 165.0),
    "A100 40 GB": Device(40, 19.5, 312.0),
    "A100 80 GB": Device(80, 19.5, 312.0),
    "H100 80 GB": Device(80, 67.0, 989.0),
}


def parameters(found: ModelFolder) -> int:
    """Numbers in the model's matrices, the largest of them, its vocabulary's, included."""
    values = json.loads((found.path / "config.json").read_text("utf-8"))
    wide = int(values.get("hidden_size") or values.get("n_embd") or 0)
    tables = 1 if values.get("tie_word_embeddings", True) else 2
    table = int(values.get("vocab_size", 0)) * wide
    return sum(out * into for out, into in found.linear.values()) + tables * table


def gigabytes(
    found: ModelFolder, *, trained: int, longest: int, chunk_tokens: int, precision: str
) -> float:
    """What training holds at its peak, in 1e9 bytes.

    Args:
        found: the base model.
        trained: numbers in the trained arrays.
        longest: most tokens of a sequence.
        chunk_tokens: padded tokens in a pass; of a longer one layers are computed again.
        precision: "float32" or "bfloat16", of the base; "int8" or "nf4", of its layers' matrices,
            which are multiplied out one at a time. The adapter is float32 always.
    """
    width = _BYTES.get(precision, 4)
    values = json.loads((found.path / "config.json").read_text("utf-8"))
    tokens = max(chunk_tokens, min(longest, chunk_tokens * 2))
    people = trainable.rows(trainable.width(1), limit=chunk_tokens)
    kept = _KEPT * tokens * sum(map(sum, found.linear.values())) * width
    logits = 3.0 * _LABELS * int(values.get("vocab_size", 0)) * 4
    # A gradient a person, once more in float64 for the largest array; weights, sum and two moments.
    adapter = trained * 4.0 * (1.5 * people + 6)
    weights = float(parameters(found) * width)
    if precision in _PACKED:
        sizes = [out * into for out, into in found.linear.values()]
        weights += sum(sizes) * (_PACKED[precision] - width) + 3.0 * max(sizes) * width
    return (weights + kept + logits + adapter + _OWN) / 1e9


def by_device(found: ModelFolder, *, needed: Mapping[str, float], tokens: float) -> dict[str, str]:
    """For each class of GPU, whether it holds the run, in which precision, and how long it takes.

    Args:
        found: the base model.
        needed: from `gigabytes`, by precision.
        tokens: of all passes of the run; 0 if unknown.
    """
    result = {}
    for name, device in DEVICES.items():
        said = []
        for precision, size in needed.items():
            peak = device.bfloat16 if precision == "bfloat16" else device.float32
            if not peak > 0.0:
                continue
            if not size <= 0.9 * device.gigabytes:
                said.append(f"{precision} needs {size:.1f} GB, too much")
                continue
            minutes = tokens * 4 * parameters(found) / (peak * 1e12 * _REACHED) / 60
            took = f", about {minutes:.2g} min" if tokens else ""
            said.append(f"{precision} fits ({size:.1f} GB{took})")
        result[name] = "; ".join(said)
    return result
