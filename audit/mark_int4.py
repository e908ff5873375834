"""Reads 4-bit matrices as bitsandbytes saves them in safetensors, without bitsandbytes.

A matrix `W` in nf4 or fp4 is stored as packed halves of bytes under its own name, with beside it
`W.absmax` (a scale for each block), `W.quant_map` (the 16 values) and, as JSON in bytes, block size
and shape in `W.quant_state.bitsandbytes__nf4`. With double quantisation the scales are 8-bit
indices into `W.nested_quant_map`, times `W.nested_absmax` by block, plus an offset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audit.errors import AuditError

Float32 = npt.NDArray[np.float32]
Read = Callable[[], Float32]

_STATE = ".quant_state.bitsandbytes__"
_BESIDE = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_MOST_VALUES = 1 << 31


def beside(name: str) -> bool:
    """Whether a tensor only describes another one that is stored in 4 bits."""
    return name.endswith(_BESIDE) or _STATE in name


def reader(path: Path, name: str, found: Mapping[str, Read]) -> Read | None:
    """How to read the matrix `name`; None if it is not stored so.

    Args:
        path: the file, for messages.
        name: of a tensor of bytes.
        found: name -> its values as float32, of every tensor in the file.

    Raises:
        AuditError: when it is read: parts are missing or do not fit each other.
    """
    states = [other for other in found if other.startswith(name + _STATE)]
    if not states:
        return None

    def read() -> Float32:
        try:
            state = json.loads(found[states[0]]().astype(np.uint8).tobytes())
            return _values(name, state, found)
        except (KeyError, TypeError, ValueError, IndexError):
            raise AuditError(
                f"{path} holds a 4-bit matrix whose parts do not fit each other "
                f"({name[:80]!r}); fetch it again",
                code="bad-int4",
            ) from None

    return read


def _values(name: str, state: Mapping[str, Any], found: Mapping[str, Read]) -> Float32:
    shape = tuple(int(n) for n in state["shape"])
    count, block = int(np.prod(shape)), int(state["blocksize"])
    packed = found[name]().reshape(-1).astype(np.uint8)
    if not (0 < count <= _MOST_VALUES and block > 0 and packed.size == (count + 1) // 2):
        raise ValueError
    scale = found[f"{name}.absmax"]().reshape(-1)
    if f"{name}.nested_absmax" in found:
        inner = int(state["nested_blocksize"])
        outer = np.repeat(found[f"{name}.nested_absmax"]().reshape(-1), inner)[: scale.size]
        steps = found[f"{name}.nested_quant_map"]().reshape(-1)[scale.astype(np.int64)]
        scale = steps * outer + np.float32(state["nested_offset"])
    halves = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[:count]
    values = found[f"{name}.quant_map"]().reshape(-1)[halves]
    wide = values * np.repeat(scale, block)[:count]
    return np.asarray(wide.reshape(shape), dtype=np.float32)
