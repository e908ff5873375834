"""What an attack showed: bounds with confidence for guesses, error rates and Gaussian shifts.

An attack that succeeds gives a lower bound on epsilon; one that fails gives nothing. So none of
these numbers supports a claim, each can only refute one. Knows no model and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from privacy.errors import PlanInvalid
from privacy.plan import Mechanism, attack_ceiling, check_delta

CONFIDENCE = 0.95
FPR = 0.01  # the false-positive rate that true-positive rates are compared at
_LARGEST = 50.0  # no bound is looked for beyond this epsilon
_HALVINGS = 60
_FAINTEST = 1e-9  # noise below it is none

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a canary moves a noisy output, in standard deviations of the noise.

    Attributes:
        estimate: difference of the means over the pooled standard deviation.
        bound: lower confidence bound of the mu for which the outputs are mu-Gaussian-private.
    """

    estimate: float
    bound: float


@dataclass(frozen=True, slots=True)
class Rate:
    """True-positive rate where the false-positive rate is at most a given one.

    Attributes:
        tpr: share of the members above the threshold.
        interval: its Clopper-Pearson interval.
        fpr_high: upper end of the Clopper-Pearson interval of the threshold's own false-positive
            rate, which few non-members tell only roughly.
    """

    tpr: float
    interval: Interval
    fpr_high: float


@dataclass(frozen=True, slots=True)
class Attack:
    """What one score per canary is worth to an attacker.

    Attributes:
        auc: chance that a member scores over a non-member, ties counted half.
        rate: true-positive rate at the false-positive rate `FPR`.
        guesses: how many canaries were guessed to be members, fixed beforehand.
        correct: how many of them are.
        epsilon_bound: lower confidence bound of epsilon by these guesses.
        curve: (false-positive rate, true-positive rate) of every threshold, ascending.
    """

    auc: float
    rate: Rate
    guesses: int
    correct: int
    epsilon_bound: float
    curve: tuple[tuple[float, float], ...]


def interval(hits: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Clopper-Pearson interval of a probability: never covers less often than it says.

    Raises:
        PlanInvalid: not 0 <= hits <= trials, or no trial.
    """
    if not (trials >= 1 and 0 <= hits <= trials):
        raise PlanInvalid(f"{hits} of {trials} is no share; count at least one trial")
    error = (1.0 - confidence) / 2.0
    low = _root(lambda p: _tail(trials, p, hits) - error) if hits else 0.0
    high = _root(lambda p: error - (1.0 - _tail(trials, p, hits + 1))) if hits < trials else 1.0
    return Interval(low, high)


def shift(absent: Float64, present: Float64, *, reach: float) -> Shift:
    """Compare the outputs of a noisy step without and with a canary.

    Args:
        absent: outputs along the canary without it, shape (n,), independent.
        present: outputs with it, shape (m,), independent.
        reach: how far the canary may move an output; the threshold is half of it, fixed
            beforehand, which is the best one for a Gaussian of any width.

    Guarantees: with probability 0.95 at least, `bound` is at most the true mu: two Clopper-Pearson
        bounds of half the error each, and mu = Phi^-1(1 - FPR) - Phi^-1(FNR) (Nasr et al., 2023).
    """
    if not (len(absent) >= 2 and len(present) >= 2 and reach > 0.0):
        raise PlanInvalid("the audit has too few draws to compare; raise --draws")
    false_alarms = interval(int((absent > reach / 2.0).sum()), len(absent))
    misses = interval(int((present <= reach / 2.0).sum()), len(present))
    pooled = math.sqrt((float(absent.var(ddof=1)) + float(present.var(ddof=1))) / 2.0)
    moved = float(present.mean() - absent.mean())
    estimate = moved / max(pooled, _FAINTEST * abs(moved), _FAINTEST)
    bound = _quantile(1.0 - false_alarms.high) - _quantile(misses.high)
    return Shift(estimate, max(0.0, bound))


def one_run_bound(
    correct: int, *, guesses: int, canaries: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Bound epsilon from below by the guesses about one run (Steinke, Nasr & Jagielski, 2023).

    Args:
        correct: guesses that were right.
        guesses: how many were made; fixed before the scores are seen.
        canaries: all of them, each included by its own fair coin.
        delta: the delta of the claim.
        confidence: of the bound.

    Returns:
        The largest epsilon that the guesses refute at this delta; 0.0 if they refute none.

    Raises:
        PlanInvalid: counts that no run can have.
    """
    check_delta(delta)
    if not (1 <= guesses <= canaries and 0 <= correct <= guesses):
        raise PlanInvalid(f"{correct} right of {guesses} guesses about {canaries} canaries is none")
    ways = np.arange(1, correct + 1)

    def chance(epsilon: float) -> float:
        pmf = np.exp(_log_pmf(guesses, 1.0 / (1.0 + math.exp(-epsilon))))
        below = np.concatenate([[0.0], np.cumsum(pmf)])  # below[k] = P[fewer than k]
        near = (below[correct] - below[correct - ways]) / ways
        spare = 2.0 * canaries * delta * float(near.max(initial=0.0))
        return float(pmf[correct:].sum()) + spare

    error = 1.0 - confidence
    if not chance(0.0) < error:
        return 0.0
    return _root(lambda epsilon: chance(epsilon) - error, high=_LARGEST)


def rate_at(absent: Float64, present: Float64, *, fpr: float = FPR) -> Rate:
    """True-positive rate at the lowest threshold that at most `fpr` of the absent exceed."""
    allowed = math.floor(fpr * len(absent) + 1e-9)
    threshold = float(np.sort(absent)[::-1][allowed])
    alarms, hits = int((absent > threshold).sum()), int((present > threshold).sum())
    return Rate(
        hits / len(present), interval(hits, len(present)), interval(alarms, len(absent)).high
    )


def evaluate(scores: Float64, included: Bools, *, guesses: int, delta: float) -> Attack:
    """Judge an attack that gave every canary a score; a member's should be higher.

    The `guesses` highest scores are guessed to be members and nothing is guessed about the others:
    a member that no step sampled looks like a non-member, so guessing "not a member" is weak.

    Args:
        scores: shape (m,); what is not finite counts as the lowest.
        included: shape (m,); the coins.
        guesses: fixed beforehand.
        delta: the delta of the claim.
    """
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    absent, present = scores[~included], scores[included]
    if not (len(absent) and len(present)):
        raise PlanInvalid("all canaries fell on one side of the coin; take more canaries")
    chosen = np.argsort(-scores, kind="stable")[:guesses]
    correct = int(included[chosen].sum())
    cuts = np.unique(scores)[::-1]
    curve = [(0.0, 0.0)]
    curve += [(float((absent >= cut).mean()), float((present >= cut).mean())) for cut in cuts]
    over = (present[:, None] > absent[None, :]).mean()
    level = (present[:, None] == absent[None, :]).mean()
    return Attack(
        auc=float(over + level / 2.0),
        rate=rate_at(absent, present),
        guesses=guesses,
        correct=correct,
        epsilon_bound=one_run_bound(correct, guesses=guesses, canaries=len(scores), delta=delta),
        curve=tuple(curve),
    )


def ceiling_curve(
    rows: Sequence[Mechanism], *, delta: float, rates: Sequence[float]
) -> tuple[tuple[float, float], ...]:
    """The most that any attack on `rows` can reach: (false-positive, true-positive rate)."""
    return tuple((rate, attack_ceiling(rows, delta=delta, fpr=rate)) for rate in rates)


def _quantile(share: float) -> float:
    """Standard normal quantile, with its limits."""
    if share <= 0.0 or share >= 1.0:
        return math.copysign(math.inf, share - 0.5)
    return NormalDist().inv_cdf(share)


def _tail(trials: int, chance: float, least: int) -> float:
    """P[Bin(trials, chance) >= least]."""
    return float(np.exp(_log_pmf(trials, chance)[least:]).sum())


def _log_pmf(trials: int, chance: float) -> Float64:
    if not 0.0 < chance < 1.0:
        certain = np.full(trials + 1, -np.inf)
        certain[trials if chance >= 1.0 else 0] = 0.0
        return certain
    hits = np.arange(trials + 1)
    odds = hits * math.log(chance) + (trials - hits) * math.log1p(-chance)
    result: Float64 = _log_choices(trials) + odds
    return result


@lru_cache(maxsize=64)
def _log_choices(trials: int) -> Float64:
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    result: Float64 = factorials[-1] - factorials - factorials[::-1]
    return result


def _root(rising: Callable[[float], float], *, low: float = 0.0, high: float = 1.0) -> float:
    """Where a rising function crosses zero, from below."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if rising(middle) >= 0.0 else (middle, high)
    return low
