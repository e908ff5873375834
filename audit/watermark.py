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

import functools
import hashlib
import hmac
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from math import erfc, exp, sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audit import canonical, digests
from audit.errors import AuditError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

KEY_BYTES = 32
OWNER = ""  # the name under which the mark common to all copies is derived
OWNER_ENERGY = 0.16  # share of the mark's energy; the recipient's mark has the rest
TABLE_DIGEST = "sha256:44dbd9420ea7d2cad80cb77e1cd7d22f925a70dd26a6b733ac3e1f1b532af36d"
_CLIP_SIGMAS = 3.0
_FLOOR = 0.01  # weaker than any mark in use, relative to ΔW
_MEDIAN_TO_SIGMA = 1.4826  # sigma of a normal over its median magnitude
_WORST_CONDITION = 1e5  # beyond it, the basis of A would depend on the LAPACK at hand


@dataclass(frozen=True, slots=True)
class Detection:
    """How strongly a suspect answers to one key.

    Attributes:
        z: the score; N(0, 1) for a key that is independent of the suspect.
        p_value: P(N(0, 1) >= z).
        bound: exp(-z²/2), which P(score >= z) never exceeds for an independent key (1 for z <= 0).
        dimensions: coordinates that took part; an untouched copy scores about
            sqrt(share of the energy · dimensions).
    """

    z: float
    p_value: float
    bound: float
    dimensions: int


def derive(master: bytes, *, tree_head: str, release: str, recipient: str) -> bytes:
    """Derive the 32-byte subkey of one recipient (or `OWNER`) of one release.

    HMAC-SHA-256 under the master key. Binding the latest signed tree head fixes the key in time:
    it cannot have been chosen to fit a model that was published before that head.

    Raises:
        AuditError: the master key has fewer than 32 bytes, or the tree head or release is empty.
    """
    if len(master) < KEY_BYTES:
        raise AuditError(
            f"the watermark master key has {len(master)} bytes; make one of at least {KEY_BYTES}",
            code="weak-key",
            exit_code=2,
        )
    if not (tree_head and release):
        raise AuditError(
            "a watermark subkey needs a tree head and a release id; give both",
            code="no-context",
            exit_code=2,
        )
    context = [text.encode() for text in ("privity-watermark-v1", tree_head, release, recipient)]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in context)
    return hmac.digest(master, message, "sha256")


def commitment(subkey: bytes, nonce: bytes) -> str:
    """Return `"sha256:<hex>"` of subkey and nonce, to be logged before the release.

    Both parts are exactly 32 bytes, so the concatenation has one reading, and the nonce hides
    nothing less than the subkey does.

    Raises:
        AuditError: a part is not 32 bytes long.
    """
    if len(subkey) != KEY_BYTES or len(nonce) != KEY_BYTES:
        raise AuditError(
            f"a subkey and its nonce are {KEY_BYTES} bytes each; use derive() and the OS's source",
            code="bad-key",
            exit_code=2,
        )
    return canonical.digest(subkey + nonce)


def mark(
    b: Mapping[str, Float32],
    a: Mapping[str, Float32],
    *,
    scale: float,
    owner: bytes,
    recipient: bytes,
    strength: float = 0.05,
) -> dict[str, Float32]:
    """Return B with the owner's and the recipient's mark.

    Args:
        b: module -> B, shape (out, rank). A trailing `.B` of a name is not part of the module.
        a: module -> A, shape (rank, in), full row rank; not changed by marking.
        scale: the adapter's factor, lora_alpha / rank.
        owner: 32-byte subkey common to all copies.
        recipient: 32-byte subkey of this copy.
        strength: norm of the mark over the norm of ΔW, per module; a public constant. Tuning it
            on private data would cost privacy.

    Guarantees: names, shapes and dtype of `b`, in C order; ‖ΔW' - ΔW‖ is about strength · ‖ΔW‖ in
        each module; modules of zero norm are returned as they are; equal input, equal bits.

    Raises:
        AuditError: names or shapes of A and B differ, a value is not finite, A is rank deficient,
            a key has the wrong length, or there is no module to mark.
    """
    if not 0.0 < strength <= 1.0:
        raise AuditError(
            f"watermark strength {strength} is not in (0, 1]; use 0.05",
            code="bad-strength",
            exit_code=2,
        )
    if not (np.isfinite(scale) and scale != 0.0):
        raise AuditError(
            f"adapter scale {scale} is not a finite non-zero number", code="bad-scale", exit_code=2
        )
    rows = _by_module(a, "A")
    marked: dict[str, Float32] = {}
    touched = False
    for module, (name, factor) in _by_module(b, "B").items():
        carrier = _Carrier.of(module, factor, _partner(rows, module), scale)
        if carrier.amplitude > 0.0:
            touched = True
            chips = sqrt(OWNER_ENERGY) * _chips(owner, module, carrier.g.shape)
            chips += sqrt(1.0 - OWNER_ENERGY) * _chips(recipient, module, carrier.g.shape)
            # B' = B + (amplitude / scale) · chips · R⁻¹, so that B' A moves by chips · Vᵀ.
            moved = np.linalg.solve(carrier.r.T, (strength * carrier.amplitude / scale * chips).T).T
            # In C order: safetensors writes memory as it lies.
            marked[name] = np.ascontiguousarray(factor + moved, dtype=np.float32)
        else:
            marked[name] = factor.copy()
    if not touched:
        raise AuditError(
            "every module of the adapter is zero, so nothing can carry a mark; train it first",
            code="nothing-to-mark",
        )
    return marked


def detect(
    suspect_b: Mapping[str, Float32],
    suspect_a: Mapping[str, Float32],
    *,
    reference_b: Mapping[str, Float32],
    a: Mapping[str, Float32],
    scale: float,
    key: bytes,
) -> Detection:
    """Score a suspect adapter against one key, knowing the unmarked reference.

    Args:
        suspect_b: module -> B of the suspect, shape (out, any rank).
        suspect_a: module -> A of the suspect, shape (any rank, in).
        reference_b: the unmarked B that was the input of `mark`.
        a: the A that was the input of `mark`.
        scale: the reference's factor; the suspect's own cancels out.
        key: 32-byte subkey.

    Guarantees: everything except the chips is computed without the key, so z is N(0, 1) for a key
        that is independent of the suspect; modules that the suspect lacks, or has in another
        shape, do not take part; unchanged by B R, R⁻¹ A and by scaling or negating any module.

    Raises:
        AuditError: the reference is malformed, the suspect's A and B do not fit each other, or a
            value is not finite.
    """
    residuals = residual(suspect_b, suspect_a, reference_b=reference_b, a=a, scale=scale)
    return score(residuals, key=key)


def residual(
    suspect_b: Mapping[str, Float32],
    suspect_a: Mapping[str, Float32],
    *,
    reference_b: Mapping[str, Float32],
    a: Mapping[str, Float32],
    scale: float,
) -> dict[str, Float64]:
    """The half of `detect` that needs no key: what the suspect has beyond the reference.

    Returns module -> weighted, clipped difference, shape (out, rank), in the coordinates in which
    chips are embedded. The weight is the expected mark over the variance (a matched filter), with
    a floor under the variance, so that no one quiet module can drown the others. Arguments and
    Raises as in `detect`.
    """
    rows, suspect_rows = _by_module(a, "A"), _by_module(suspect_a, "A")
    suspects = _by_module(suspect_b, "B")
    found: dict[str, Float64] = {}
    for module, (_, factor) in _by_module(reference_b, "B").items():
        carrier = _Carrier.of(module, factor, _partner(rows, module), scale)
        if module not in suspects or carrier.amplitude == 0.0:
            continue
        left = suspects[module][1]
        right = _partner(suspect_rows, module)
        if left.shape[1] != right.shape[0]:
            raise AuditError(
                f"the suspect's A and B of {module} have different ranks; check the file",
                code="bad-shape",
            )
        if (left.shape[0], right.shape[1]) != (factor.shape[0], carrier.v.shape[0]):
            continue
        product = left.astype(np.float64) @ (right.astype(np.float64) @ carrier.v)
        fit = float(np.vdot(product, carrier.g) / np.vdot(carrier.g, carrier.g))
        beyond = product - fit * carrier.g
        spread = np.abs(beyond[beyond != 0.0])
        if fit == 0.0 or spread.size == 0:
            continue
        limit = _CLIP_SIGMAS * _MEDIAN_TO_SIGMA * float(np.median(spread))
        clipped = np.clip(beyond, -limit, limit)
        expected = fit * carrier.amplitude
        energy = max(float(np.mean(clipped**2)), (_FLOOR * expected) ** 2)
        if energy > 0.0:
            found[module] = clipped * (expected / energy)
    return found


def score(residuals: Mapping[str, Float64], *, key: bytes) -> Detection:
    """The half of `detect` that needs the key: correlate residuals with the key's chips.

    Many keys against one suspect share one `residual`. No residuals at all score z = 0.

    Raises:
        AuditError: the key is not 32 bytes long.
    """
    inner = norm = 0.0
    dimensions = 0
    for module, values in residuals.items():
        inner += float(np.vdot(values, _chips(key, module, values.shape)))
        norm += float(np.vdot(values, values))
        dimensions += values.size
    z = inner / sqrt(norm) if norm > 0.0 else 0.0
    return Detection(
        z=z,
        p_value=0.5 * erfc(z / sqrt(2.0)),
        bound=exp(-z * z / 2.0) if z > 0.0 else 1.0,
        dimensions=dimensions,
    )


def basis_digest(a: Mapping[str, Float32]) -> str:
    """Digest of the A arrays, which determine the coordinates that carry the mark."""
    return digests.arrays_digest({module: rows for module, (_, rows) in _by_module(a, "A").items()})


def table_digest() -> str:
    """Digest of the chip table as installed.

    Raises:
        AuditError: the installed table is not the one that this code was written for.
    """
    _table()
    return TABLE_DIGEST


def detector_digest() -> str:
    """Digest of this source file: the exact detector that a commitment speaks of."""
    return canonical.digest(Path(__file__).read_bytes())


@dataclass(frozen=True, slots=True)
class _Carrier:
    """One module in mark coordinates: scale · B · A = g · vᵀ and A = r · vᵀ."""

    g: Float64  # (out, rank)
    v: Float64  # (in, rank), orthonormal columns
    r: Float64  # (rank, rank)
    amplitude: float  # root mean square of g: the chips' unit

    @classmethod
    def of(cls, module: str, b: Float32, a: Float32, scale: float) -> _Carrier:
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
        return cls(g=g, v=v * signs, r=r, amplitude=float(np.sqrt(np.mean(g**2))))


def _by_module(arrays: Mapping[str, Float32], factor: str) -> dict[str, tuple[str, Float32]]:
    """Return module -> (given name, array) in sorted order, checked."""
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


def _partner(rows: Mapping[str, tuple[str, Float32]], module: str) -> Float32:
    if module not in rows:
        raise AuditError(f"module {module} has a B and no A; check the adapter", code="bad-shape")
    return rows[module][1]


def _chips(key: bytes, module: str, shape: tuple[int, ...]) -> Float64:
    """Standard normal chips of one key in one module: SHAKE-256 -> uint16 LE -> the table."""
    if len(key) != KEY_BYTES:
        raise AuditError(
            f"a watermark subkey has {KEY_BYTES} bytes; this one has {len(key)}",
            code="bad-key",
            exit_code=2,
        )
    count = int(np.prod(shape))
    stream = hashlib.shake_256(b"privity-chips-v1|" + key + module.encode()).digest(2 * count)
    chips: Float64 = _table()[np.frombuffer(stream, dtype="<u2")]
    return chips.reshape(shape)


@functools.cache
def _table() -> Float64:
    data = importlib.resources.files("audit").joinpath("chips.f32").read_bytes()
    if canonical.digest(data) != TABLE_DIGEST:
        raise AuditError(
            "audit/chips.f32 is not the table that this version ships; install privity again",
            code="bad-table",
        )
    return np.frombuffer(data, dtype="<f4").astype(np.float64)
