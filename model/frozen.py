"""The adapter's public factors: orthonormal rows that everyone derives from a seed.

Every institution must hold the same A to the last bit, or averaging B would not be exact
(FFA-LoRA, arXiv:2403.12313); LoRA-XS (arXiv:2405.17604) has a second such factor, L. Its authors
take both from a singular value decomposition of the base, which no two linear algebra libraries
compute to the same bits; ours are of the seed. Hence no library that may round differently
elsewhere: entries are integers taken from SHAKE-256, and Gram-Schmidt uses only products,
quotients, square roots (which IEEE 754 rounds in one way) and `math.fsum`, which rounds a whole
sum once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model.manifest import ModelFolder
from model.shapes import Spec, shapes, targets_for

_BYTES = 8


def factors(folder: ModelFolder, spec: Spec) -> dict[str, npt.NDArray[np.float32]]:
    """Derive the factors of an adapter that are public: frozen, or with "lora" where A starts.

    Returns:
        "<module path>.A" -> shape (rank, in), rows orthonormal to float32 precision; with "lora-xs"
        also "<module path>.L" -> shape (out, rank), columns orthonormal.

    Guarantees: bit for bit the same on every machine.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    found = {}
    for path in targets_for(folder, spec):
        out, wide = folder.linear[path]
        found[f"{path}.A"] = factor(spec.seed, path, rank=spec.rank, width=wide)
        if spec.method == "lora-xs":  # no module's path has a space: these are other directions
            left = factor(spec.seed, f"{path} left", rank=spec.rank, width=out)
            found[f"{path}.L"] = np.ascontiguousarray(left.T)
    return found


def start(folder: ModelFolder, spec: Spec) -> dict[str, npt.NDArray[np.float32]]:
    """What training starts from: the trained arrays of an adapter that changes nothing.

    Returns:
        Zeros by wire name; with "lora", the factor A of the seed.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    wanted = shapes(folder, spec)
    fixed = factors(folder, spec) if spec.method == "lora" else {}
    zero = {name: np.zeros(shape, dtype=np.float32) for name, shape in wanted.items()}
    return zero | fixed


def product(
    folder: ModelFolder, spec: Spec, arrays: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, npt.NDArray[np.float32]]]:
    """Write a trained adapter as the two factors of a plain LoRA, which is what is released.

    Args:
        folder: the base model.
        spec: the adapter.
        arrays: the trained arrays, as `shapes` names them.

    Returns:
        "<module path>.B" -> (out, rank) and "<module path>.A" -> (rank, in), whose product is the
        adapter's; with "lora-xs", B = L R, rounded once.
    """
    fixed = factors(folder, spec) if spec.method != "lora" else arrays
    a = {name: fixed[name] for name in sorted(fixed) if name.endswith(".A")}
    if spec.method != "lora-xs":
        return {name: arrays[name] for name in sorted(arrays) if name.endswith(".B")}, a
    return {
        f"{path}.B": (fixed[f"{path}.L"].astype(np.float64) @ arrays[f"{path}.R"]).astype(
            np.float32
        )
        for path in targets_for(folder, spec)
    }, a


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
