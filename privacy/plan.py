"""How much privacy a plan costs: privacy loss distributions of Poisson-sampled Gaussian steps.

The claim is (epsilon, delta) with respect to zeroing out everything that belongs to one person. The
whole plan is fixed before its first step: composition of privacy loss distributions holds for a
sequence of mechanisms that no output has influenced.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from privacy.errors import PlanInvalid

# Imported by the first accounting: half of the time to start a client, which must be back soon.
if TYPE_CHECKING:
    import dp_accounting
    from dp_accounting import pld

_INTERVAL = 1e-4
_COARSE = 1e-3  # only to find where to look
_HOPELESS = 100.0  # a loss past this is no privacy, and its distribution would need gigabytes
_GRID = 10_000  # `find_noise` answers in multiples of 1 / _GRID
_LARGEST = 10_000 * _GRID
_ORDERS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 256)

_Rows = tuple[tuple[float, float, int], ...]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """`steps` releases of a clipped sum over a Poisson sample, each with Gaussian noise.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm.
        sample_rate: chance of a person to be in one step's sample, within (0, 1].
        steps: number of noisy releases, at least 1.

    Raises:
        PlanInvalid: a number is out of its range, or is not a number.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0.0 < self.noise_multiplier < math.inf:
            raise PlanInvalid(
                f"noise_multiplier is {self.noise_multiplier}; give a finite number over 0"
            )
        if not 0.0 < self.sample_rate <= 1.0:
            raise PlanInvalid(f"sample_rate is {self.sample_rate}; give a number within (0, 1]")
        if type(self.steps) is not int or self.steps < 1:
            raise PlanInvalid(f"steps is {self.steps!r}; give a whole number of at least 1")


def epsilon(rows: Sequence[Mechanism], *, delta: float) -> float:
    """Compose `rows` and return the epsilon that holds at `delta`, for zeroing out one person.

    Guarantees: an upper bound (connect-the-dots discretisation, interval 1e-4); does not depend on
    the order of the rows or on how equal steps are split over them; 0.0 for no rows; `math.inf`
    where the loss is past any use (about 100 and more).

    Raises:
        PlanInvalid: `delta` is not within (0, 1).
    """
    check_delta(delta)
    return _epsilon(_merged(rows), float(delta), _INTERVAL)


def find_noise(
    *,
    epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    spent: Sequence[Mechanism] = (),
) -> float:
    """Find the smallest noise multiplier, a multiple of 0.0001, that keeps within `epsilon`.

    Args:
        epsilon: what may be spent in all, `spent` included.
        delta: the delta of the whole claim.
        sample_rate: chance of a person to be in one step's sample.
        steps: noisy steps of the new plan, over all of its rounds.
        spent: what the cohort spent or reserved before.

    Guarantees: `plan.epsilon([*spent, Mechanism(result, sample_rate, steps)]) <= epsilon`.

    Raises:
        PlanInvalid: a number is out of range, or no noise reaches the target, since `spent` alone
            uses it up.
    """
    check_delta(delta)
    if not 0.0 < epsilon <= _HOPELESS:
        raise PlanInvalid(f"epsilon is {epsilon}; give a number within (0, {_HOPELESS:g}]")
    Mechanism(1.0, sample_rate, steps)

    def excess(grid: int, interval: float) -> float:
        rows = [*spent, Mechanism(grid / _GRID, sample_rate, steps)]
        return _epsilon(_merged(rows), float(delta), interval) - epsilon

    def fits(grid: int) -> bool:
        bound = _renyi_bound(_merged([*spent, Mechanism(grid / _GRID, sample_rate, steps)]), delta)
        return bound <= epsilon or (bound <= 4.0 * epsilon + 2.0 and excess(grid, _COARSE) <= 0.0)

    low, high = 1, _LARGEST
    if not fits(high):
        raise PlanInvalid(
            f"no noise reaches epsilon {epsilon:g}: the cohort's {len(spent)} earlier plans leave "
            "too little; raise the target or take another cohort"
        )
    while high > 1.005 * low + 1.0:  # halve the ratio: noise spans eight orders of magnitude
        middle = math.isqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return _refine(lambda grid: excess(grid, _INTERVAL), low, high) / _GRID


def attack_ceiling(rows: Sequence[Mechanism], *, delta: float, fpr: float) -> float:
    """Bound the true-positive rate of any membership attack that has false-positive rate `fpr`.

    Uses the curve epsilon -> delta(epsilon) of the composed rows up to the epsilon at `delta`, in
    both directions of the test (Kairouz, Oh & Viswanath, 2015, theorem 2.1), which is far tighter
    than `exp(epsilon) * fpr`. Covers an attacker who sees every noisy step.

    Returns:
        A rate within [fpr, 1].

    Raises:
        PlanInvalid: `fpr` is not within (0, 1) or `delta` is not.
    """
    if not 0.0 < fpr < 1.0:
        raise PlanInvalid(f"the false-positive rate is {fpr}; give a number within (0, 1)")
    check_delta(delta)
    ceiling = 1.0
    for point, failure in _profile(_merged(rows), float(delta)):
        above = math.exp(point) * fpr + failure
        below = 1.0 - math.exp(-point) * (1.0 - fpr - failure)
        ceiling = min(ceiling, above, below)
    return max(ceiling, fpr)


def check_delta(delta: float) -> None:
    """Refuse a delta that is not within (0, 1)."""
    if not 0.0 < delta < 1.0:
        raise PlanInvalid(f"delta is {delta}; give a number within (0, 1)")


def _merged(rows: Iterable[Mechanism]) -> _Rows:
    """Sum the steps of equal mechanisms and sort: one key for one multiset of steps."""
    steps: Counter[tuple[float, float]] = Counter()
    for row in rows:
        steps[float(row.noise_multiplier), float(row.sample_rate)] += row.steps
    return tuple(sorted((noise, rate, count) for (noise, rate), count in steps.items()))


@lru_cache(maxsize=4096)
def _epsilon(rows: _Rows, delta: float, interval: float) -> float:
    if not rows:
        return 0.0
    if not _renyi_bound(rows, delta) <= _HOPELESS:
        return math.inf
    return max(0.0, float(_accountant(rows, interval).get_epsilon(delta)))


@lru_cache(maxsize=64)
def _profile(rows: _Rows, delta: float) -> tuple[tuple[float, float], ...]:
    """Points (epsilon, delta at it) from 0 to the epsilon at `delta`; none if that is past use."""
    largest = _epsilon(rows, delta, _INTERVAL)
    if not largest < math.inf:
        return ()
    accountant = _accountant(rows, _INTERVAL)
    return tuple(
        (float(point), float(accountant.get_delta(point)))
        for point in np.linspace(0.0, largest, 128)
    )


def _accountant(rows: _Rows, interval: float) -> pld.PLDAccountant:
    from dp_accounting import NeighboringRelation, pld

    zero_out = NeighboringRelation.REPLACE_SPECIAL
    accountant = pld.PLDAccountant(zero_out, value_discretization_interval=interval)
    for noise, rate, steps in rows:
        accountant.compose(_event(noise, rate, steps))
    return accountant


def _event(noise: float, rate: float, steps: int) -> dp_accounting.DpEvent:
    import dp_accounting

    gaussian = dp_accounting.GaussianDpEvent(noise)
    step = dp_accounting.PoissonSampledDpEvent(rate, gaussian)
    return dp_accounting.SelfComposedDpEvent(step, steps)


def _renyi_bound(rows: _Rows, delta: float) -> float:
    """Bound epsilon from above in milliseconds; whole orders only, which need no series."""
    from dp_accounting import NeighboringRelation, rdp

    accountant = rdp.RdpAccountant(_ORDERS, NeighboringRelation.REPLACE_SPECIAL)
    for noise, rate, steps in rows:
        accountant.compose(_event(noise, rate, steps))
    return float(accountant.get_epsilon(delta))


def _refine(excess: Callable[[int], float], low: int, high: int) -> int:
    """Find the least grid point whose excess is at most 0, near a bracket that may be slightly off.

    Interpolates: each excess costs a composition at the fine interval, a fifth of a second.
    """
    above, below = excess(low), excess(high)
    stride = max(1, low // 100)
    while not below <= 0.0:
        low, above, high, stride = high, below, high + stride, 2 * stride
        below = excess(high)
    while above <= 0.0 and low > 1:
        high, below, low, stride = low, above, max(1, low - stride), 2 * stride
        above = excess(low)
    if above <= 0.0:
        return low
    while high - low > 1:
        share = above / (above - below) if above < math.inf else 0.5
        middle = min(max(low + math.ceil(share * (high - low)), low + 1), high - 1)
        value = excess(middle)
        low, above, high, below = (
            (low, above, middle, value) if value <= 0.0 else (middle, value, high, below)
        )
    return high
