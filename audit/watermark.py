"""A keyed mark in the product ΔW = scale · B · A, embedded through B alone.

A copy's mark is spread over every coordinate of ΔW in the row space of A, with chips that only the
key determines. It therefore survives any re-factorisation (B R, R⁻¹ A), and detection needs no
assumption about the suspect: if the key was fixed before the suspect existed and is independent of
it, the score z is a weighted sum of independent chips, whatever was done to the weights.

Marking reads the adapter and keys only, never data: it is post-processing of what was aggregated.
It does not survive distillation into another model, needs the suspect's weights, and cannot by
itself show that the coordinator did not leak a copy, since the coordinator knows every copy.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from audit import canonical, chips, digests
from audit.errors import AuditError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

OWNER_ENERGY = 0.16  # share of the mark's energy; the recipient's mark has the rest
STRENGTH = 0.05
_LOUD_SHARE = 4  # of so many directions of a module, the one a loss reacts to most is spared
_LOUD_KEPT = 0.125  # what is left of the mark there: not nothing, or a thief would keep only those
# Share of ΔW's energy in those directions above which they are not spared: an even spread is 0.25.
_LOUD_MOST = 0.35
_WORST_CONDITION = 1e5  # beyond it, the basis of A would depend on the LAPACK at hand
_DETECTOR = ("chips.py", "mark_detect.py", "mark_register.py", "watermark.py")


@dataclass(frozen=True, slots=True)
class Carrier:
    """One module in mark coordinates: scale · B · A = g · vᵀ and A = r · vᵀ."""

    name: str  # of B, as given
    b: Float32  # (out, rank)
    a: Float32  # (rank, in)
    g: Float64  # (out, rank)
    v: Float64  # (in, rank), orthonormal columns
    r: Float64  # (rank, rank)
    amplitude: float  # root mean square of g: the chips' unit


@dataclass(frozen=True, slots=True)
class Reference:
    """An unmarked adapter, prepared once for marking and detecting any number of copies."""

    scale: float
    carriers: Mapping[str, Carrier]

    @classmethod
    def of(cls, b: Mapping[str, Float32], a: Mapping[str, Float32], scale: float) -> Reference:
        """Prepare an adapter.

        Args:
            b: module -> B, shape (out, rank). A trailing `.B` of a name is not part of the module.
            a: module -> A, shape (rank, in), full row rank.
            scale: the adapter's factor, lora_alpha / rank.

        Raises:
            AuditError: names or shapes of A and B differ, a value is not finite, or A is rank
                deficient.
        """
        if not (np.isfinite(scale) and scale != 0.0):
            raise AuditError(
                f"adapter scale {scale} is not a finite non-zero number",
                code="bad-scale",
                exit_code=2,
            )
        rows = by_module(a, "A")
        carriers = {}
        for module, (name, factor) in by_module(b, "B").items():
            if module not in rows:
                raise AuditError(
                    f"module {module} has a B and no A; check the adapter", code="bad-shape"
                )
            carriers[module] = _carrier(module, name, factor, rows[module][1], scale)
        return cls(scale, carriers)

    @property
    def dimensions(self) -> int:
        """Coordinates that can carry a mark."""
        return sum(c.g.size for c in self.carriers.values() if c.amplitude > 0.0)

    @property
    def markable(self) -> bool:
        """Whether any module differs from zero."""
        return self.dimensions > 0


def mark(
    reference: Reference,
    *,
    owner: bytes,
    recipient: bytes,
    strength: float = STRENGTH,
    sensitivity: Mapping[str, npt.NDArray[np.floating]] | None = None,
) -> dict[str, Float32]:
    """Return B with the owner's and the recipient's mark; A is not changed by marking.

    Args:
        reference: the unmarked adapter.
        owner: 32-byte subkey common to all copies.
        recipient: 32-byte subkey of this copy.
        strength: norm of the mark over the norm of ΔW, per module; a public constant. Tuning it
            on private data would cost privacy.
        sensitivity: module -> second moments (rank, rank) of the gradient of a loss on *public*
            records by B. The quarter of each module's directions to which that loss reacts most
            then carries an eighth of the amplitude and the others carry more, so that a copy's
            loss moves less; but not where ΔW itself lies in those directions, since whoever cuts
            its rank would keep no others. Detection needs none of this: the chips are the same.

    Guarantees: names, shapes and dtype of B, in C order; ‖ΔW' - ΔW‖ is about strength · ‖ΔW‖ in
        each module; modules of zero norm are returned as they are; equal input, equal bits.

    Raises:
        AuditError: a key has the wrong length, there is no module to mark, or `sensitivity` is not
            finite or does not fit.
    """
    if not 0.0 < strength <= 1.0:
        raise AuditError(
            f"watermark strength {strength} is not in (0, 1]; use {STRENGTH}",
            code="bad-strength",
            exit_code=2,
        )
    common, own = chips.halves(owner), chips.halves(recipient)
    if not reference.markable:
        raise AuditError(
            "every module of the adapter is zero, so nothing can carry a mark; train it first",
            code="nothing-to-mark",
        )
    marked: dict[str, Float32] = {}
    for module, carrier in reference.carriers.items():
        first = chips.draw(common, module, carrier.g.shape)
        second = chips.draw(own, module, carrier.g.shape)
        if not carrier.amplitude > 0.0 or first is None or second is None:
            marked[carrier.name] = carrier.b.copy()
            continue
        chip = np.multiply(first, np.float32(sqrt(OWNER_ENERGY)))
        chip += np.multiply(second, np.float32(sqrt(1.0 - OWNER_ENERGY)))
        # B' = B + (amplitude / scale) · chips · R⁻¹, so that B' A moves by chips · Vᵀ.
        turn = np.linalg.inv(carrier.r) * (strength * carrier.amplitude / reference.scale)
        if sensitivity is not None and module in sensitivity:
            turn = _sparing(carrier, sensitivity[module]) @ turn
        # In C order: safetensors writes memory as it lies.
        marked[carrier.name] = np.ascontiguousarray(
            carrier.b + chip.astype(np.float64) @ turn, dtype=np.float32
        )
    return marked


def basis_digest(a: Mapping[str, Float32]) -> str:
    """Digest of the A arrays, which determine the coordinates that carry the mark."""
    return digests.arrays_digest({module: rows for module, (_, rows) in by_module(a, "A").items()})


def half_digests(b: Mapping[str, Float32], a: Mapping[str, Float32]) -> list[str]:
    """Digests of the even and of the odd modules' unmarked B and A, for an arbiter to check."""
    return [digests.arrays_digest(half_arrays(b, a, half)) for half in chips.HALVES]


def half_arrays(
    b: Mapping[str, Float32], a: Mapping[str, Float32], half: int
) -> dict[str, Float32]:
    """`module.B` and `module.A` of the modules that one half of a subkey marks."""
    return {
        f"{module}.{side}": array
        for side, arrays in (("A", a), ("B", b))
        for module, (_, array) in by_module(arrays, side).items()
        if chips.half_of(module) == half
    }


def detector_digest() -> str:
    """Digest of the source files that mark and detect: the detector that a commitment speaks of."""
    files: dict[str, canonical.JSON] = {
        name: canonical.digest(importlib.resources.files("audit").joinpath(name).read_bytes())
        for name in _DETECTOR
    }
    return canonical.digest(canonical.encode(files))


def by_module(arrays: Mapping[str, Float32], factor: str) -> dict[str, tuple[str, Float32]]:
    """Return module -> (given name, array) in sorted order, checked.

    Raises:
        AuditError: an array is no finite float32 matrix, or two are of one module.
    """
    found: dict[str, tuple[str, Float32]] = {}
    for name in sorted(arrays):
        array, module = arrays[name], name.removesuffix(f".{factor}")
        if array.ndim != 2 or array.size == 0 or array.dtype != np.float32 or module in found:
            raise AuditError(
                f"{factor} of {module} is not one float32 matrix; check the adapter",
                code="bad-shape",
            )
        if not np.isfinite(array).all():
            raise AuditError(
                f"{factor} of {module} holds a value that is not finite; the adapter is damaged",
                code="not-finite",
            )
        found[module] = (name, array)
    return found


def _sparing(carrier: Carrier, moments: npt.NDArray[np.floating]) -> Float64:
    """What chips are multiplied by so that they spare the loud directions, at the same energy."""
    rank = carrier.r.shape[0]
    if moments.shape != (rank, rank) or not np.isfinite(moments).all():
        raise AuditError(
            f"the sensitivity of {carrier.name} is no finite matrix of its rank; measure it again",
            code="bad-sensitivity",
        )
    back = np.linalg.inv(carrier.r)  # a gradient by B, times R⁻ᵀ, is one by g
    _, directions = np.linalg.eigh(back @ moments.astype(np.float64) @ back.T)
    count = rank // _LOUD_SHARE
    loud = directions[:, rank - count :]
    if not np.sum((carrier.g @ loud) ** 2) <= _LOUD_MOST * np.sum(carrier.g**2):
        return np.eye(rank)
    left = np.eye(rank) - (1.0 - _LOUD_KEPT) * (loud @ loud.T)
    result: Float64 = left * sqrt(rank / (rank - count * (1.0 - _LOUD_KEPT**2)))
    return result


def _carrier(module: str, name: str, b: Float32, a: Float32, scale: float) -> Carrier:
    if b.shape[1] != a.shape[0] or a.shape[0] > a.shape[1]:
        raise AuditError(
            f"A and B of {module} do not multiply: {b.shape} and {a.shape}", code="bad-shape"
        )
    v, upper = np.linalg.qr(a.astype(np.float64).T)
    signs = np.where(np.diag(upper) < 0.0, -1.0, 1.0)  # makes the factorisation unique
    r = (upper * signs[:, None]).T
    if not np.linalg.cond(r) <= _WORST_CONDITION:
        raise AuditError(
            f"A of {module} has no full row rank, so it has no stable basis; use another seed",
            code="bad-basis",
        )
    g = scale * (b.astype(np.float64) @ r)
    return Carrier(name, b, a, g, v * signs, r, float(np.sqrt(np.mean(g**2))))
