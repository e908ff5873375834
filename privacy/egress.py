"""The egress gate's arithmetic: an update becomes `Cleared`, or it does not leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privacy.errors import EgressDenied

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cleared:
    """Arrays that an institution has agreed to let go. Only `clear` makes one.

    Attributes:
        arrays: float32 arrays by wire name, exactly the plan's names and shapes.
        norm: their joint l2 norm.
        bytes: their size on the wire.
    """

    arrays: Mapping[str, Float32] = field(repr=False)
    norm: float
    bytes: int


def clear(
    arrays: Mapping[str, object], *, shapes: Mapping[str, tuple[int, ...]], max_norm: float
) -> Cleared:
    """Let `arrays` go if they are exactly what the plan names, and finite and bounded.

    Args:
        arrays: candidate arrays by wire name.
        shapes: the allow-list: every name that may leave, with its shape.
        max_norm: largest joint l2 norm, same unit as the arrays.

    Guarantees: the names are exactly those of `shapes`; every array is C-contiguous little-endian
        float32 of its shape; every entry is finite; the joint norm is at most `max_norm`.

    Raises:
        EgressDenied: any of these does not hold. NaN fails every comparison.
    """
    if not shapes or arrays.keys() != shapes.keys():
        raise EgressDenied("the update's array names are not those of the plan; nothing was sent")
    cleared: dict[str, Float32] = {}
    square = 0.0
    for name, shape in shapes.items():
        array = arrays[name]
        if not isinstance(array, np.ndarray) or array.dtype.str != "<f4":
            raise EgressDenied("an array of the update is not float32; nothing was sent")
        if array.shape != tuple(shape):
            raise EgressDenied("an array of the update has another shape; nothing was sent")
        copy = np.ascontiguousarray(array)
        if not bool(np.isfinite(copy).all()):
            raise EgressDenied("an array of the update is not finite; nothing was sent")
        square += float(np.square(copy, dtype=np.float64).sum())
        cleared[name] = copy
    norm = float(np.sqrt(square))
    if not norm <= max_norm:
        raise EgressDenied(
            f"the update's norm is over the limit {max_norm:.6g}; nothing was sent, "
            "raise policy.max_update_norm only if the plan calls for it"
        )
    return Cleared(cleared, norm, sum(array.nbytes for array in cleared.values()))
