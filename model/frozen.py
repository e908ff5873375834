"""The frozen factor A of the adapter: orthonormal rows that everyone derives from a public seed.

Every institution must hold the same A to the last bit, or averaging B would not be exact
(FFA-LoRA, arXiv:2403.12313). Hence no library that may round differently elsewhere: entries are
integers taken from SHAKE-256, and Gram-Schmidt uses only products, quotients, square roots (which
IEEE 754 rounds in one way) and `math.fsum`, which rounds a whole sum once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model.manifest import ModelFolder
from model.shapes import Spec, targets_for

_BYTES = 8


def factors(folder: ModelFolder, spec: Spec) -> dict[str, npt.NDArray[np.float32]]:
    """Derive the frozen factors of an adapter.

    Returns:
        "<module path>.A" -> shape (rank, in), rows orthonormal to float32 precision.

    Guarantees: bit for bit the same on every machine.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    return {
        f"{path}.A": factor(spec.seed, path, rank=spec.rank, width=folder.linear[path][1])
        for path in targets_for(folder, spec)
    }


def factor(seed: str, path: str, *, rank: int, width: int) -> npt.NDArray[np.float32]:
    """Derive one frozen factor.

    Args:
        seed: public text.
        path: module path; each module gets its own directions.
        rank: number of rows, at most `width`.
        width: input dimension of the module.

    Returns:
        Shape (rank, width), rows orthonormal to float32 precision.
    """
    domain = f"privity frozen factor v1\0{len(seed.encode())}\0{seed}\0{path}".encode()
    stream = hashlib.shake_256(domain).digest(rank * width * _BYTES)
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8)).reshape(rank, width, 8 * _BYTES)
    # 64 fair coins less their mean: close to a Gaussian of standard deviation 4, yet an integer.
    rows = bits.sum(axis=2, dtype=np.int64).astype(np.float64) - 4 * _BYTES
    for i in range(rank):
        for j in range(i):
            rows[i] -= math.fsum((rows[i] * rows[j]).tolist()) * rows[j]
        rows[i] /= math.sqrt(math.fsum((rows[i] * rows[i]).tolist()))
    return rows.astype(np.float32)


def digest(arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """Digest of frozen factors: "sha256:<hex>" over names, shapes and little-endian bytes, sorted.

    Names and shapes go in with their lengths, so that no two sets of arrays share an encoding.
    """
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        header = f"{len(name.encode())}:{name}<f4{array.shape}".encode()
        state.update(len(header).to_bytes(8, "big") + header + array.tobytes())
    return "sha256:" + state.hexdigest()
