"""Updates become the next adapter: validated one by one, averaged exactly, or by a robust rule.

An update may have fewer columns than the adapter: a small machine trains the first c of r columns
of each B and leaves the others where they are. Each column is averaged over the sites that trained
it; a column that nobody trained stays. That is exact: with A frozen and shared, B A is the sum over
its columns of (column of B)(row of A), so a column's mean is that part's mean.

Every function reads one array of one update at a time (`median` and `trimmed` one array of each),
so memory does not grow with the number of sites times the size of an update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from configs.run import AggregationTable
from server.errors import ServerError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Arrays = Mapping[str, Float32]


def combine(start: Arrays, updates: Sequence[Arrays], how: AggregationTable) -> dict[str, Float32]:
    """The adapter `start` plus what the rule `how` makes of `updates`.

    Args:
        start: the round's adapter, (out, rank) by name.
        updates: in the order of the sites' names, so that the result is the same bits each time;
            each may read its arrays from disk when asked.
        how: the plan's rule.

    Raises:
        ServerError: there is no update, or fewer than the rule needs.
    """
    check_count(len(updates), how)
    if how.method == "mean":
        return mean(start, updates)
    if how.method == "krum":
        return mean(start, [updates[krum(updates, how.faulty)]])
    cut = how.faulty if how.method == "trimmed-mean" else None
    return _by_column(start, updates, lambda stack: _middle(stack, cut))


def check_count(count: int, how: AggregationTable) -> None:
    """Check that a round with `count` updates can be combined.

    Raises:
        ServerError: it cannot.
    """
    if not count >= 1:
        raise ServerError("no update was accepted; there is nothing to average", code="no-update")
    if not count >= how.least:
        raise ServerError(
            f"{how.method} against {how.faulty} faulty sites needs {how.least} updates and has "
            f"{count}; lower aggregation.faulty or raise the quorum",
            code="too-few-updates",
            exit_code=3,
        )


def mean(start: Arrays, updates: Sequence[Arrays]) -> dict[str, Float32]:
    """The adapter `start` plus the uniform mean of `updates`, each column over who trained it.

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
        trained = np.zeros(start[name].shape[1:], dtype=np.float64)
        for update in updates:
            array = update[name]
            columns = array.shape[1]
            total[:, :columns] += array
            trained[:columns] += 1
        result[name] = (start[name] + total / np.maximum(trained, 1)).astype(np.float32)
    return result


def krum(updates: Sequence[Arrays], faulty: int) -> int:
    """Which update is closest to its n - f - 2 nearest others (Blanchard et al. 2017).

    Distances are over the columns that all sites trained; ties go to the first.
    """
    count = len(updates)
    square = np.zeros((count, count), dtype=np.float64)
    for name in sorted(updates[0]):
        arrays = [update[name] for update in updates]
        common = min(array.shape[1] for array in arrays)
        for i in range(count):
            for j in range(i):
                apart = np.subtract(arrays[i][:, :common], arrays[j][:, :common], dtype=np.float64)
                square[i, j] += float(np.square(apart).sum())
    square += square.T
    nearest = max(1, count - faulty - 2)
    others = np.sort(square, axis=1)[:, 1 : nearest + 1]  # the first is the distance to itself
    return int(np.argmin(others.sum(axis=1)))


def _middle(stack: Float64, cut: int | None) -> Float64:
    """Median along the first axis, or the mean without the `cut` lowest and highest values."""
    count = stack.shape[0]
    if cut is None:
        return np.asarray(np.median(stack, axis=0))
    if not count > 2 * cut:  # too few sites trained these columns to tell who is wrong
        return np.zeros(stack.shape[1:], dtype=np.float64)
    kept = np.sort(stack, axis=0)[cut : count - cut]
    return np.asarray(kept.mean(axis=0))


def _by_column(
    start: Arrays, updates: Sequence[Arrays], rule: Callable[[Float64], Float64]
) -> dict[str, Float32]:
    """Apply a rule for single numbers to each stretch of columns that the same sites trained."""
    result = {}
    for name in sorted(start):
        arrays = [update[name] for update in updates]
        change = np.zeros(start[name].shape, dtype=np.float64)
        low = 0
        for high in sorted({array.shape[1] for array in arrays}):
            stack = np.stack([a[:, low:high] for a in arrays if a.shape[1] >= high])
            change[:, low:high] = rule(stack.astype(np.float64))
            low = high
        result[name] = (start[name] + change).astype(np.float32)
    return result
