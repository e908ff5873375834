"""Updates become the next adapter: validated one by one, averaged exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from server.errors import ServerError

Float32 = npt.NDArray[np.float32]
Arrays = Mapping[str, Float32]


def mean(start: Arrays, updates: Sequence[Arrays]) -> dict[str, Float32]:
    """The adapter `start` plus the uniform mean of `updates`.

    With A frozen and shared, the mean of the products B·A is the product of the mean of B with A,
    so nothing is lost in averaging (FFA-LoRA); nor is anything of R between frozen factors
    (LoRA-XS). Where both factors are trained there is one institution, whose update is the mean.
    Sums run in float64 and are rounded once.

    Raises:
        ServerError: there is no update.
    """
    if not updates:
        raise ServerError("no update was accepted; there is nothing to average", code="no-update")
    result = {}
    for name in sorted(start):
        total = np.zeros(start[name].shape, dtype=np.float64)
        for update in updates:
            total += update[name]
        result[name] = (start[name] + total / len(updates)).astype(np.float32)
    return result
