"""The bounds hold as often as they say, agree with other computations, and can be wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from privacy import attack
from privacy.errors import PlanInvalid
from privacy.plan import Mechanism, attack_ceiling


@pytest.mark.parametrize(
    ("hits", "trials"), [(0, 10), (3, 10), (10, 10), (1, 1), (400, 1000), (41_000, 100_000)]
)
def test_the_interval_is_that_of_clopper_and_pearson(hits: int, trials: int) -> None:
    found = attack.interval(hits, trials)
    wanted = stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
    assert found.low == pytest.approx(wanted.low, abs=1e-9)
    assert found.high == pytest.approx(wanted.high, abs=1e-9)


@pytest.mark.parametrize(("hits", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_has_no_interval(hits: int, trials: int) -> None:
    with pytest.raises(PlanInvalid):
        attack.interval(hits, trials)


@pytest.mark.parametrize(
    ("guesses", "most"), [(10, 1.05), (20, 1.82), (27, 2.14), (30, 2.25), (50, 2.78), (100, 3.49)]
)
def test_perfect_guesses_refute_so_much_and_no_more(guesses: int, most: float) -> None:
    found = attack.one_run_bound(guesses, guesses=guesses, canaries=guesses, delta=1e-12)
    # All right with probability (e^epsilon / (1 + e^epsilon)) ** guesses at most.
    chance = 0.05 ** (1.0 / guesses)
    assert found == pytest.approx(math.log(chance / (1.0 - chance)), abs=1e-6)
    assert found == pytest.approx(most, abs=0.006)


def test_the_one_run_bound_grows_with_what_was_right_and_shrinks_with_delta() -> None:
    def bound(correct: int, delta: float = 1e-5) -> float:
        return attack.one_run_bound(correct, guesses=100, canaries=500, delta=delta)

    found = [bound(correct) for correct in range(101)]
    assert found == sorted(found)
    assert found[50] == found[58] == 0.0
    assert 0.0 < found[60] < 0.2
    assert bound(90, 1e-3) < bound(90, 1e-5) < bound(90, 1e-9)


@pytest.mark.parametrize(("epsilon", "often"), [(2.0, 0.05), (1.0, 1.0)])
def test_the_one_run_bound_is_over_the_truth_in_one_run_of_twenty_at_most(
    epsilon: float, often: float
) -> None:
    """Guesses as good as randomised response allows; against a smaller claim they must fail it."""
    draws = np.random.default_rng(11)
    right = draws.binomial(100, 1.0 / (1.0 + math.exp(-2.0)), size=2000)
    bounds = {c: attack.one_run_bound(c, guesses=100, canaries=100, delta=1e-9)
              for c in set(right.tolist())}  # fmt: skip
    share = float(np.mean([bounds[c] > epsilon for c in right.tolist()]))
    assert share <= 0.05 if often < 1.0 else share > 0.3


@pytest.mark.parametrize("counts", [(5, 4, 10), (1, 11, 10), (-1, 4, 10), (0, 0, 10)])
def test_impossible_counts_have_no_bound(counts: tuple[int, int, int]) -> None:
    correct, guesses, canaries = counts
    with pytest.raises(PlanInvalid):
        attack.one_run_bound(correct, guesses=guesses, canaries=canaries, delta=1e-5)


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_a_gaussian_shift_is_estimated_and_bounded_from_below(mu: float) -> None:
    draws = np.random.default_rng(3)
    absent, present = draws.normal(size=40_000), mu + draws.normal(size=40_000)
    found = attack.shift(absent, present, reach=mu)
    assert found.estimate == pytest.approx(mu, rel=0.04)
    assert mu * 0.9 < found.bound < mu
    narrow = attack.shift(absent / 2, (present - mu) / 2 + mu, reach=mu)
    assert narrow.bound > mu
    assert narrow.estimate == pytest.approx(2 * mu, rel=0.04)


def test_outputs_without_any_noise_have_a_finite_shift() -> None:
    found = attack.shift(np.zeros(50), np.ones(50), reach=1.0)
    assert 1e6 < found.estimate < math.inf
    assert 2.0 < found.bound < math.inf


def test_the_rate_is_taken_where_few_enough_absent_canaries_score_higher() -> None:
    absent, present = np.arange(200.0), np.arange(100.0) + 150.5
    found = attack.rate_at(absent, present)  # two of 200 may be over the threshold of 197
    assert found.tpr == (present > 197).mean()
    assert found.fpr_high == attack.interval(2, 200).high
    assert attack.rate_at(absent[:50], present).tpr == 1.0
    level = np.zeros(50)
    assert attack.rate_at(level, level).tpr == 0.0


def test_an_attack_that_knows_the_coins_is_perfect_and_one_that_guesses_is_worth_nothing() -> None:
    draws = np.random.default_rng(5)
    coins = draws.random(500) < 0.5
    knows = attack.evaluate(coins + draws.random(500) / 2, coins, guesses=100, delta=1e-5)
    assert (knows.auc, knows.correct, knows.rate.tpr) == (1.0, 100, 1.0)
    assert knows.epsilon_bound > 3.4
    blind = attack.evaluate(draws.random(500), coins, guesses=100, delta=1e-5)
    assert 0.4 < blind.auc < 0.6
    assert blind.epsilon_bound < 0.6
    assert blind.curve[0] == (0.0, 0.0)
    assert blind.curve[-1] == (1.0, 1.0)
    assert list(blind.curve) == sorted(blind.curve)


def test_the_area_is_that_of_mann_and_whitney_with_ties_counted_half() -> None:
    draws = np.random.default_rng(7)
    scores, coins = draws.integers(0, 9, 80).astype(float), draws.random(80) < 0.5
    found = attack.evaluate(scores, coins, guesses=10, delta=1e-5).auc
    test = stats.mannwhitneyu(scores[coins], scores[~coins])
    assert found == pytest.approx(test.statistic / (coins.sum() * (~coins).sum()))


def test_a_score_that_is_not_finite_is_no_reason_to_guess() -> None:
    coins = np.array([True, False] * 10)
    scores = np.where(coins, np.nan, 1.0)
    assert attack.evaluate(scores, coins, guesses=10, delta=1e-5).correct == 0


def test_coins_that_all_fell_on_one_side_are_refused() -> None:
    with pytest.raises(PlanInvalid, match="one side"):
        attack.evaluate(np.zeros(5), np.ones(5, dtype=np.bool_), guesses=2, delta=1e-5)


def test_the_ceiling_curve_is_the_ceiling_at_every_rate() -> None:
    rows = [Mechanism(2.0, 0.1, 5)]
    curve = attack.ceiling_curve(rows, delta=1e-5, rates=(0.01, 0.1))
    assert curve == tuple((r, attack_ceiling(rows, delta=1e-5, fpr=r)) for r in (0.01, 0.1))
