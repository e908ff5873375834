"""Figures of merit that need no model: calibration, differences with their chance, agreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from model.errors import ModelError

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_BINS: Final = 10
# Evaluations are repeated by others and must come out the same; nothing here protects anybody.
_SEED: Final = 20_240_229


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What abstaining buys: answer only where the model is surest.

    Attributes:
        coverage: share answered, ascending, shape (n,).
        risk: share of wrong answers among those, shape (n,).
        area: mean risk over all coverages; 0 is best.
    """

    coverage: Float64 = field(repr=False)
    risk: Float64 = field(repr=False)
    area: float

    def risk_at(self, share: float) -> float:
        """Share of wrong answers when the surest `share` of all is answered."""
        place = math.ceil(share * len(self.coverage)) - 1
        return float(self.risk[max(0, place)])


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the second of two arms is on the same records.

    Attributes:
        mean: second less first.
        low: end of the 95 % interval, percentile bootstrap over records.
        high: its other end.
        p: two-sided chance of a mean as far from 0 if neither were better (sign flips).
        effect: mean over the standard deviation of the differences (Cohen's d_z); 0 if both agree
            on every record.
    """

    mean: float
    low: float
    high: float
    p: float
    effect: float


def calibration_error(confidence: Float64, right: Bools) -> float:
    """Expected calibration error over ten bins of equal width (Guo and others, 2017).

    Args:
        confidence: probability of the chosen answer, shape (n,), each within [0, 1].
        right: whether it was right, shape (n,).
    """
    _some(confidence, right)
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = [
        abs(float(confidence[bins == one].mean()) - float(right[bins == one].mean()))
        * float((bins == one).mean())
        for one in range(_BINS)
        if (bins == one).any()
    ]
    return sum(gaps)


def risk_coverage(confidence: Float64, right: Bools) -> RiskCoverage:
    """Order the answers by confidence and count the wrong ones from the surest on.

    Raises:
        ModelError: no answers, or not as many confidences as answers.
    """
    _some(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(right) + 1)
    risk = np.cumsum(~right[order]) / answered
    return RiskCoverage(answered / len(right), risk, float(risk.mean()))


def difference(first: Float64, second: Float64, *, draws: int = 5_000) -> Difference:
    """Compare two arms record by record.

    Args:
        first: one figure a record, shape (n,), n of at least 2.
        second: the other arm's, on the same records in the same order.
        draws: of the bootstrap and of the sign flips.

    Raises:
        ModelError: the arms are not about the same records, or there are fewer than two.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first) >= 2:
        raise ModelError("a difference needs the same two or more records in both arms")
    gaps = second - first
    mean = float(gaps.mean())
    rng = np.random.default_rng(_SEED)
    means = np.array([gaps[rng.integers(0, len(gaps), len(gaps))].mean() for _ in range(draws)])
    flips = np.array([(gaps * rng.choice((-1.0, 1.0), len(gaps))).mean() for _ in range(draws)])
    low, high = (float(end) for end in np.quantile(means, (0.025, 0.975)))
    # The observed one counts among the draws, so that p is never 0.
    p = (1 + int((np.abs(flips) >= abs(mean) - 1e-12).sum())) / (1 + draws)
    spread = float(gaps.std(ddof=1))
    return Difference(mean, low, high, min(1.0, p), mean / spread if spread > 0 else 0.0)


def kappa(first: Sequence[int], second: Sequence[int], *, weighted: bool = False) -> float:
    """Cohen's κ of two raters of the same items; quadratic weights for marks on a scale.

    Returns:
        1 for full agreement, 0 for what chance gives, NaN where chance leaves nothing to agree on.

    Raises:
        ModelError: no items, or not the same number.
    """
    if not first or len(first) != len(second):
        raise ModelError("agreement needs two raters of the same items")
    marks = sorted({*first, *second})
    index = {mark: place for place, mark in enumerate(marks)}
    seen = np.zeros((len(marks), len(marks)))
    for one, other in zip(first, second, strict=True):
        seen[index[one], index[other]] += 1
    seen /= seen.sum()
    chance = np.outer(seen.sum(axis=1), seen.sum(axis=0))
    values = np.array(marks, dtype=np.float64)
    apart = values[:, None] - values[None, :]
    cost = apart**2 if weighted else (apart != 0).astype(np.float64)
    expected = float((cost * chance).sum())
    return 1.0 - float((cost * seen).sum()) / expected if expected > 0 else math.nan


def exposure(secret: float, others: Float64) -> float:
    """Exposure of a planted secret, in bits (Carlini and others, 2019, definition 5).

    Args:
        secret: loss of the secret that was in the training records.
        others: losses of secrets of the same form that were not.

    Returns:
        log2 of all candidates less log2 of the secret's rank among them: 0 for the last, and
        log2(len(others) + 1) for the first.
    """
    if not len(others):
        raise ModelError("exposure needs secrets to compare with")
    rank = 1 + int((others < secret).sum())
    return math.log2(len(others) + 1) - math.log2(rank)


def _some(confidence: Float64, right: Bools) -> None:
    if not len(right) or confidence.shape != right.shape:
        raise ModelError("there must be one confidence for each of one or more answers")
