"""How strongly a suspect answers to a key: the half that needs no key, then the half that does.

Everything that is computed before the chips come in is computed without the key, so for a key that
is independent of the suspect each score is N(0, 1) whatever was done to the weights, and
P(score >= z) never exceeds exp(-z²/2). Each variant undoes one kind of damage:

plain         what the suspect has beyond the best multiple of the reference
reprojected   the same by direction of the suspect's own singular vectors: for a cut rank
erasure       exact zeros of the suspect are unknown, not zero: for pruning and dropped weights
registered    plain, after the suspect was brought into the public base model's coordinates
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import erfc, exp, sqrt
from typing import Literal

import numpy as np

from audit import chips
from audit.errors import AuditError
from audit.watermark import Carrier, Float32, Float64, Reference

Variant = Literal["plain", "reprojected", "erasure", "registered"]
_CLIP_SIGMAS = 3.0
_FLOOR = 0.01  # weaker than any mark in use, relative to ΔW
_MEDIAN_TO_SIGMA = 1.4826  # sigma of a normal over its median magnitude


@dataclass(frozen=True, slots=True)
class Part:
    """One module of a suspect: factors of ΔW, or ΔW itself.

    Attributes:
        left: (out, k) or None.
        right: (k, in) or None.
        delta: (out, in) or None; suspect minus base.
        known: where `delta` says something; None for everywhere.
    """

    left: Float32 | None = None
    right: Float32 | None = None
    delta: Float32 | None = None
    known: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of ΔW."""
        if self.delta is not None:
            return (self.delta.shape[0], self.delta.shape[1])
        if self.left is None or self.right is None:
            raise AuditError("a part of a suspect has no weights", code="bad-shape")
        return (self.left.shape[0], self.right.shape[1])


# Module -> its part, read when it is asked for: a merged model need not fit into memory.
Suspect = Mapping[str, Callable[[], Part]]
Residual = Mapping[str, Float32]


@dataclass(frozen=True, slots=True)
class Detection:
    """How strongly a suspect answers to one key.

    Attributes:
        z: the best score over the variants; each is N(0, 1) for a key independent of the suspect.
        p_value: P(N(0, 1) >= z).
        bound: exp(-z²/2), which P(score >= z) never exceeds for an independent key (1 for z <= 0).
        dimensions: coordinates that took part; an untouched copy scores about
            sqrt(share of the energy · dimensions).
        variant: which variant scored best.
    """

    z: float
    p_value: float
    bound: float
    dimensions: int
    variant: str = "plain"

    @classmethod
    def of(cls, z: float, dimensions: int, variant: str = "plain") -> Detection:
        """From a score."""
        bound = exp(-z * z / 2.0) if z > 0.0 else 1.0
        return cls(z, 0.5 * erfc(z / sqrt(2.0)), bound, dimensions, variant)


def factored(b: Mapping[str, Float32], a: Mapping[str, Float32]) -> Suspect:
    """A suspect adapter: module -> B (out, any rank) and A (any rank, in).

    Raises:
        AuditError: A and B do not fit each other, or a value is not finite.
    """
    from audit.watermark import by_module

    rows = by_module(a, "A")
    parts: dict[str, Callable[[], Part]] = {}
    for module, (_, left) in by_module(b, "B").items():
        if module not in rows or left.shape[1] != rows[module][1].shape[0]:
            raise AuditError(
                f"the suspect's A and B of {module} have different ranks; check the file",
                code="bad-shape",
            )
        part = Part(left=left, right=rows[module][1])
        parts[module] = lambda part=part: part  # type: ignore[misc]
    return parts


def residuals(suspect: Suspect, reference: Reference) -> dict[Variant, Residual]:
    """What the suspect has beyond the reference, by variant; needs no key.

    Each is module -> weighted, clipped difference, shape (out, rank), in the coordinates in which
    chips are embedded. The weight is the expected mark over the variance (a matched filter), with
    a floor under the variance, so that no one quiet module can drown the others.

    Guarantees: modules that the suspect lacks, or has in another shape, do not take part;
        unchanged by B R, R⁻¹ A and by scaling or negating any module; a variant that has nothing
        to add is left out.
    """
    found: dict[Variant, dict[str, Float32]] = {"plain": {}, "reprojected": {}, "erasure": {}}
    zeros = False
    for module, carrier in reference.carriers.items():
        if module not in suspect or not carrier.amplitude > 0.0:
            continue
        part = suspect[module]()
        if part.shape != (carrier.g.shape[0], carrier.v.shape[0]):
            continue
        product = _product(part, carrier)
        if not np.isfinite(product).all():
            raise AuditError(
                f"the suspect's {module} holds a value that is not finite; the file is damaged",
                code="not-finite",
            )
        plain = _beyond(product, carrier.g, carrier.amplitude)
        if plain is not None:
            found["plain"][module] = plain
        turned = _by_direction(product, carrier)
        if turned is not None:
            found["reprojected"][module] = turned
        known = _known(part, carrier, reference.scale)
        if known is not None:
            zeros = True
            other = _beyond(known[0], known[1], carrier.amplitude)
        else:
            other = plain
        if other is not None:
            found["erasure"][module] = other
    if not zeros:
        del found["erasure"]
    return {name: values for name, values in found.items() if values}


def scores(
    found: Mapping[Variant, Residual], keys: Sequence[Mapping[int, bytes]]
) -> tuple[Float64, tuple[Variant, ...], int]:
    """Correlate residuals with the chips of every key.

    Args:
        found: from `residuals`, perhaps with a registered variant beside it.
        keys: the halves of each subkey; a key with one half is scored on that half's modules.

    Returns:
        z of shape (keys, variants); the variants' names; the coordinates that took part.

    Raises:
        AuditError: a half is not 32 bytes long.
    """
    names = tuple(found)
    inner = np.zeros((len(keys), len(names)))
    norm = np.zeros((len(keys), len(names)))
    dimensions = 0
    for key in keys:
        if any(len(half) != chips.KEY_BYTES for half in key.values()):
            raise AuditError(
                f"half of a subkey has {chips.KEY_BYTES} bytes", code="bad-key", exit_code=2
            )
    for module in sorted({module for values in found.values() for module in values}):
        rows = [values.get(module) for values in found.values()]
        shape = next(row.shape for row in rows if row is not None)
        flat = np.stack(
            [np.zeros(shape, np.float32).ravel() if row is None else row.ravel() for row in rows]
        )
        energy = np.einsum("vd,vd->v", flat, flat, dtype=np.float64)
        taken = False
        for at, key in enumerate(keys):
            drawn = chips.draw(key, module, shape)
            if drawn is not None:
                inner[at] += flat @ drawn.ravel()
                norm[at] += energy
                taken = True
        dimensions += flat.shape[1] if taken else 0
    z = np.divide(inner, np.sqrt(norm), out=np.zeros_like(inner), where=norm > 0.0)
    return z, names, dimensions


def detect(
    found: Mapping[Variant, Residual], keys: Sequence[Mapping[int, bytes]]
) -> list[Detection]:
    """The best variant's score of every key; nothing to test scores z = 0.

    A best of several is a maximum: whoever states its probability multiplies by their number.
    """
    z, names, dimensions = scores(found, keys)
    if not names:
        return [Detection.of(0.0, 0)] * len(keys)
    best = np.argmax(z, axis=1)
    return [
        Detection.of(float(row[at]), dimensions, names[at]) for row, at in zip(z, best, strict=True)
    ]


def _product(part: Part, carrier: Carrier) -> Float64:
    """ΔW · V."""
    if part.delta is not None:
        known = part.delta if part.known is None else np.where(part.known, part.delta, 0.0)
        # In the suspect's own precision: a whole model would double in memory otherwise.
        return (known @ carrier.v.astype(np.float32)).astype(np.float64)
    if part.left is None or part.right is None:
        raise AuditError("a part of a suspect has no weights", code="bad-shape")
    product: Float64 = part.left.astype(np.float64) @ (part.right.astype(np.float64) @ carrier.v)
    return product


def _beyond(product: Float64, g: Float64, amplitude: float) -> Float32 | None:
    """Matched filter on product minus the best multiple of g; None if there is nothing."""
    fit = float(np.vdot(product, g) / max(float(np.vdot(g, g)), 1e-300))
    beyond = product - fit * g
    size = np.abs(beyond)
    spread = float(np.median(size[size > 0.0])) if (size > 0.0).any() else 0.0
    if fit == 0.0 or not spread > 0.0:
        return None
    limit = _CLIP_SIGMAS * _MEDIAN_TO_SIGMA * spread
    clipped = np.clip(beyond, -limit, limit)
    expected = fit * amplitude
    energy = max(float(np.mean(clipped**2)), (_FLOOR * expected) ** 2)
    weighted = clipped * (expected / energy) if energy > 0.0 else clipped
    return np.asarray(weighted, dtype=np.float32)


def _by_direction(product: Float64, carrier: Carrier) -> Float32 | None:
    """The same in each right singular direction of the product by itself.

    A direction that was cut off fits the reference with a factor near 0 and so weighs nothing.
    """
    _, directions = np.linalg.eigh(product.T @ product)
    turned, wanted = product @ directions, carrier.g @ directions
    size = np.maximum(np.einsum("ij,ij->j", wanted, wanted), 1e-300)
    fit = np.einsum("ij,ij->j", turned, wanted) / size
    beyond = turned - wanted * fit
    limit = _CLIP_SIGMAS * _MEDIAN_TO_SIGMA * np.median(np.abs(beyond), axis=0)
    clipped = np.clip(beyond, -limit, limit)
    expected = fit * carrier.amplitude
    energy = np.maximum(np.mean(clipped**2, axis=0), (_FLOOR * expected) ** 2)
    weight = np.divide(expected, energy, out=np.zeros_like(energy), where=energy > 0.0)
    if not np.isfinite(weight).all() or not weight.any():
        return None
    return np.asarray((clipped * weight) @ directions.T, dtype=np.float32)


def _known(part: Part, carrier: Carrier, scale: float) -> tuple[Float64, Float64] | None:
    """Suspect and reference, both without what the suspect has as exact zeros."""
    if part.delta is not None:
        if part.known is None or part.known.all():
            return None
        whole = carrier.g.astype(np.float32) @ carrier.v.astype(np.float32).T
        whole *= part.known
        return _product(part, carrier), (whole @ carrier.v.astype(np.float32)).astype(np.float64)
    left, right = part.left, part.right
    if left is None or right is None:
        return None
    if left.shape != carrier.b.shape or (left.all() and right.all()):
        return None
    b = np.where(left == 0.0, 0.0, carrier.b.astype(np.float64))
    a = np.where(right == 0.0, 0.0, carrier.a.astype(np.float64))
    return _product(part, carrier), scale * (b @ (a @ carrier.v))
