from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from privacy import plan
from privacy.errors import PlanInvalid
from privacy.plan import Mechanism

DELTA = 1e-5


def _gaussian_epsilon(noise: float, steps: int, delta: float) -> float:
    """Exact epsilon of `steps` unsampled Gaussian releases (Balle & Wang 2018, theorem 8)."""
    mu = math.sqrt(steps) / noise

    def excess(eps: float) -> float:
        lose = stats.norm.cdf(-eps / mu + mu / 2) - math.exp(eps) * stats.norm.cdf(
            -eps / mu - mu / 2
        )
        return float(lose - delta)

    return float(optimize.brentq(excess, 0.0, 60.0, xtol=1e-9))


@pytest.mark.parametrize(("noise", "steps"), [(20.0, 50), (5.0, 1), (30.0, 400), (2.0, 3)])
def test_unsampled_epsilon_equals_the_closed_form_and_is_not_below_it(
    noise: float, steps: int
) -> None:
    exact = _gaussian_epsilon(noise, steps, DELTA)
    ours = plan.epsilon([Mechanism(noise, 1.0, steps)], delta=DELTA)
    assert exact - 1e-9 <= ours <= exact + 1e-3
    assert abs(plan.epsilon([Mechanism(noise / 2, 1.0, steps)], delta=DELTA) - exact) > 0.1


# Reference values composed once with dp-accounting 0.6 at interval 1e-4.
@pytest.mark.parametrize(
    ("noise", "rate", "steps", "reference"),
    [(2.508, 0.128, 78, 2.000), (2.276, 0.1024, 98, 1.998), (0.745, 0.0064, 469, 1.997)],
)
def test_epsilon_of_sampled_plans_has_its_published_value(
    noise: float, rate: float, steps: int, reference: float
) -> None:
    assert plan.epsilon([Mechanism(noise, rate, steps)], delta=DELTA) == pytest.approx(
        reference, abs=1.5e-3
    )


@pytest.mark.parametrize(
    "rows",
    [
        [Mechanism(2.2478, 0.1, 100)],
        [Mechanism(4.0, 0.05, 200), Mechanism(2.0, 0.02, 50)],
        [Mechanism(20.0, 1.0, 50)],
    ],
)
def test_a_second_accountant_agrees_within_two_hundredths(rows: list[Mechanism]) -> None:
    dpsgd = pytest.importorskip("privacy.dpsgd")
    assert abs(dpsgd.prv_epsilon(rows, delta=DELTA) - plan.epsilon(rows, delta=DELTA)) <= 0.02
    halved = [Mechanism(row.noise_multiplier / 2, row.sample_rate, row.steps) for row in rows]
    assert abs(dpsgd.prv_epsilon(halved, delta=DELTA) - plan.epsilon(rows, delta=DELTA)) > 0.2


def test_nothing_run_costs_nothing() -> None:
    assert plan.epsilon([], delta=DELTA) == 0.0
    assert plan.attack_ceiling([], delta=DELTA, fpr=0.01) == 0.01


@settings(deadline=None, max_examples=15)
@given(
    split=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    noise=st.floats(2.0, 20.0),
    rate=st.floats(0.01, 1.0),
)
def test_epsilon_does_not_depend_on_how_steps_are_split_into_rounds(
    split: list[int], noise: float, rate: float
) -> None:
    rounds = [Mechanism(noise, rate, steps) for steps in split]
    whole = Mechanism(noise, rate, sum(split))
    assert plan.epsilon(rounds, delta=DELTA) == plan.epsilon([whole], delta=DELTA)


def test_epsilon_grows_with_steps_and_rate_and_shrinks_with_noise_and_delta() -> None:
    def cost(noise: float = 3.0, rate: float = 0.1, steps: int = 50, delta: float = 1e-5) -> float:
        return plan.epsilon([Mechanism(noise, rate, steps)], delta=delta)

    for series in (
        [cost(steps=n) for n in (1, 10, 50, 200)],
        [cost(rate=q) for q in (0.01, 0.1, 0.5, 1.0)],
        [cost(noise=s) for s in (9.0, 3.0, 1.5, 1.0)],
        [cost(delta=d) for d in (1e-3, 1e-5, 1e-8)],
    ):
        assert all(a < b for a, b in pairwise(series))


def test_adding_a_plan_never_lowers_epsilon_and_order_does_not_matter() -> None:
    a, b = Mechanism(3.0, 0.1, 100), Mechanism(5.0, 0.05, 40)
    assert plan.epsilon([a, b], delta=DELTA) == plan.epsilon([b, a], delta=DELTA)
    assert plan.epsilon([a, b], delta=DELTA) > plan.epsilon([a], delta=DELTA)


def test_a_hopeless_loss_is_infinite_and_answered_at_once() -> None:
    assert plan.epsilon([Mechanism(0.01, 1.0, 10**6)], delta=DELTA) == math.inf
    assert plan.attack_ceiling([Mechanism(0.01, 1.0, 10**6)], delta=DELTA, fpr=0.01) == 1.0


@pytest.mark.parametrize(
    ("target", "rate", "steps", "spent"),
    [
        (2.0, 0.1, 100, ()),
        (0.5, 0.1, 100, ()),
        (2.0, 1.0, 50, ()),
        (2.0, 0.1, 60, (Mechanism(4.0, 0.1, 100),)),
    ],
)
def test_found_noise_is_the_smallest_that_keeps_the_target(
    target: float, rate: float, steps: int, spent: tuple[Mechanism, ...]
) -> None:
    noise = plan.find_noise(epsilon=target, delta=DELTA, sample_rate=rate, steps=steps, spent=spent)
    assert round(noise, 4) == noise
    assert plan.epsilon([*spent, Mechanism(noise, rate, steps)], delta=DELTA) <= target
    less = Mechanism(round(noise - 1e-4, 4), rate, steps)
    assert plan.epsilon([*spent, less], delta=DELTA) > target


def test_found_noise_for_the_default_plan_is_known() -> None:
    noise = plan.find_noise(epsilon=2.0, delta=DELTA, sample_rate=0.1, steps=100)
    assert noise == pytest.approx(2.2478, abs=2e-4)


def test_no_noise_helps_once_the_target_is_spent() -> None:
    with pytest.raises(PlanInvalid, match="leave too little"):
        plan.find_noise(
            epsilon=1.0, delta=DELTA, sample_rate=0.1, steps=10, spent=[Mechanism(2.2, 0.1, 100)]
        )


def test_attack_ceiling_has_its_known_value_and_lies_under_the_generic_bound() -> None:
    rows = [Mechanism(2.2478, 0.1, 100)]
    ceiling = plan.attack_ceiling(rows, delta=DELTA, fpr=0.01)
    assert ceiling == pytest.approx(0.0325, abs=3e-4)
    assert 0.01 < ceiling < math.exp(plan.epsilon(rows, delta=DELTA)) * 0.01
    more = plan.attack_ceiling([Mechanism(1.2, 0.1, 100)], delta=DELTA, fpr=0.01)
    assert ceiling < more < 1.0


def test_attack_ceiling_of_one_gaussian_is_its_trade_off_curve() -> None:
    noise, fpr = 2.0, 0.05
    exact = stats.norm.cdf(stats.norm.ppf(fpr) + 1 / noise)
    ceiling = plan.attack_ceiling([Mechanism(noise, 1.0, 1)], delta=1e-6, fpr=fpr)
    assert exact - 1e-9 <= ceiling <= exact + 2e-3


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [
        (0.0, 0.1, 1),
        (-1.0, 0.1, 1),
        (NAN, 0.1, 1),
        (INF, 0.1, 1),
        (1.0, 0.0, 1),
        (1.0, 1.01, 1),
        (1.0, NAN, 1),
        (1.0, 0.1, 0),
        (1.0, 0.1, -3),
        (1.0, 0.1, 1.5),
        (1.0, 0.1, True),
    ],
)
def test_impossible_mechanisms_are_refused(noise: float, rate: float, steps: int) -> None:
    with pytest.raises(PlanInvalid):
        Mechanism(noise, rate, steps)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, NAN])
def test_impossible_deltas_are_refused(delta: float) -> None:
    with pytest.raises(PlanInvalid):
        plan.epsilon([], delta=delta)
    with pytest.raises(PlanInvalid):
        plan.find_noise(epsilon=1.0, delta=delta, sample_rate=0.1, steps=1)


@pytest.mark.parametrize("target", [0.0, -1.0, NAN, INF])
def test_impossible_targets_are_refused(target: float) -> None:
    with pytest.raises(PlanInvalid):
        plan.find_noise(epsilon=target, delta=DELTA, sample_rate=0.1, steps=1)


@pytest.mark.parametrize("fpr", [0.0, 1.0, NAN])
def test_impossible_false_positive_rates_are_refused(fpr: float) -> None:
    with pytest.raises(PlanInvalid):
        plan.attack_ceiling([Mechanism(2.0, 0.1, 1)], delta=DELTA, fpr=fpr)


def test_accounting_needs_no_machine_learning_library() -> None:
    code = (
        "import sys, privacy.plan, privacy.ledger, privacy.csprng\n"
        "sys.exit(bool({'torch', 'opacus', 'transformers', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
