"""Calibration, differences and agreement come out as by hand, and at their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import figures
from model.errors import ModelError


def test_a_model_that_is_as_right_as_it_is_sure_has_no_calibration_error() -> None:
    confidence = np.repeat([0.25, 0.75], 400)
    right = np.concatenate([np.arange(400) < 100, np.arange(400) < 300])
    assert figures.calibration_error(confidence, right) == pytest.approx(0.0)
    assert figures.calibration_error(confidence, ~right) == pytest.approx(0.5)
    assert figures.calibration_error(np.ones(4), np.array([True, False, False, False])) == 0.75


def test_abstaining_helps_only_whom_confidence_tells_apart() -> None:
    right = np.array([True] * 6 + [False] * 4)
    good = figures.risk_coverage(np.linspace(1, 0.1, 10), right)
    bad = figures.risk_coverage(np.linspace(0.1, 1, 10), right)
    assert good.risk_at(0.6) == 0.0
    assert good.risk_at(1.0) == bad.risk_at(1.0) == 0.4
    assert bad.risk_at(0.4) == 1.0
    assert good.area < bad.area


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_error_and_risk_are_shares(answers: list[tuple[float, bool]]) -> None:
    confidence = np.array([c for c, _ in answers])
    right = np.array([r for _, r in answers])
    assert 0 <= figures.calibration_error(confidence, right) <= 1
    curve = figures.risk_coverage(confidence, right)
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(1 - right.mean())


def test_a_difference_that_is_there_is_found_and_one_that_is_not_is_not() -> None:
    rng = np.random.default_rng(1)
    before = rng.random(200)
    better = figures.difference(before, before + 0.1 + 0.05 * rng.standard_normal(200), draws=800)
    assert better.low < 0.1 < better.high
    assert better.p < 0.01
    assert better.effect == pytest.approx(2.0, abs=0.4)
    chance = figures.difference(before, before + 0.05 * rng.standard_normal(200), draws=800)
    assert chance.low < 0 < chance.high
    assert chance.p > 0.05
    same = figures.difference(before, before, draws=50)
    assert (same.mean, same.effect, same.p) == (0.0, 0.0, 1.0)


def test_a_difference_is_the_same_for_everybody_who_computes_it() -> None:
    first, second = np.arange(20.0), np.arange(20.0)[::-1].copy()
    assert figures.difference(first, second) == figures.difference(first, second)


def test_kappa_is_that_of_the_textbook() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.70, expected 0.50.
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert figures.kappa(first, second) == pytest.approx(0.4)
    assert figures.kappa([1, 2, 3], [1, 2, 3]) == 1.0
    assert math.isnan(figures.kappa([3, 3], [3, 3]))


def test_weighted_kappa_minds_a_near_miss_less() -> None:
    first = [1, 2, 3, 4, 5]
    near, far = [2, 2, 3, 4, 5], [5, 2, 3, 4, 5]
    assert figures.kappa(first, near) == figures.kappa(first, far)
    near_, far_ = (figures.kappa(first, one, weighted=True) for one in (near, far))
    assert far_ < near_ < 1


def test_exposure_is_the_bits_of_the_rank() -> None:
    others = np.arange(1.0, 1024.0)
    assert figures.exposure(0.5, others) == 10.0
    assert figures.exposure(5000.0, others) == 0.0


def test_nothing_to_compare_is_refused() -> None:
    none = np.zeros(0)
    for call in (
        lambda: figures.calibration_error(none, none.astype(bool)),
        lambda: figures.risk_coverage(np.ones(2), np.ones(1, dtype=bool)),
        lambda: figures.difference(np.ones(1), np.ones(1)),
        lambda: figures.difference(np.ones(2), np.ones(3)),
        lambda: figures.kappa([1], []),
        lambda: figures.exposure(1.0, none),
    ):
        with pytest.raises(ModelError):
            call()
