from __future__ import annotations

import copy
import os
import pickle
import random

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from privacy.csprng import Csprng
from privacy.errors import PlanInvalid


def _scale_fits(draws: npt.NDArray[np.float64], std: float) -> bool:
    """5.2 standard errors of a sample standard deviation: a false alarm in 2e-7 of all runs."""
    return bool(abs(draws.std() / std - 1) < 5.2 / np.sqrt(2 * draws.size))


@pytest.mark.parametrize(("claimed", "fits"), [(1.7, True), (1.7 / 2, False), (1.7 * 1.03, False)])
def test_noise_has_the_promised_scale(claimed: float, fits: bool) -> None:
    assert _scale_fits(Csprng().normal((200, 500), 1.7), claimed) is fits


def test_noise_is_normal_and_uniforms_are_uniform() -> None:
    source = Csprng()
    assert stats.kstest(source.normal((50_000,), 1.0), "norm").pvalue > 5e-7
    assert stats.kstest(source.uniform(50_000), "uniform").pvalue > 5e-7
    assert stats.kstest(source.normal((50_000,), 1.15), "norm").pvalue < 5e-7  # it can fail


def test_noise_does_not_repeat_or_correlate_within_or_between_streams() -> None:
    first, second = Csprng(), Csprng()
    n = 40_000
    draws = [first.normal((n,), 1.0), first.normal((n,), 1.0), second.normal((n,), 1.0)]
    everything = np.concatenate(draws)
    assert np.unique(everything).size == everything.size
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(draws[a], draws[b])[0, 1]) < 5.4 / np.sqrt(n)
    for lag in (1, 2, n // 2):  # six comparisons at 5.4 standard errors: 4e-7
        assert abs(np.corrcoef(draws[0][:-lag], draws[0][lag:])[0, 1]) < 5.4 / np.sqrt(n - lag)


def test_a_single_draw_is_made_of_four_gaussians() -> None:
    """Cosine and sine of one pair would sum to one Gaussian; here the words show four pairs."""
    source = Csprng()
    counts: list[int] = []
    inner = source.uniform

    class Counting(Csprng):
        def uniform(self, count: int) -> npt.NDArray[np.float64]:
            counts.append(count)
            return inner(count)

    Counting().normal((3, 5), 1.0)
    assert counts == [60, 60]


def test_global_seeds_do_not_reach_any_draw() -> None:
    torch = pytest.importorskip("torch")
    seen = []
    for _ in range(2):
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
        source = Csprng()
        seen.append(
            (
                source.normal((8,), 1.0).tobytes(),
                source.poisson_sample(200, 0.5).tobytes(),
                tuple(source.choice(1000) for _ in range(8)),
            )
        )
    assert all(a != b for a, b in zip(*seen, strict=True))
    with pytest.raises(TypeError):
        Csprng(7)  # type: ignore[call-arg]


def test_key_and_counter_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    urandom = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or urandom(size))
    Csprng()
    assert asked == [32, 16]


def test_a_stream_cannot_be_copied_or_pickled() -> None:
    source = Csprng()
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="copied or pickled"):
            duplicate(source)


def test_a_fork_does_not_repeat_its_parents_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Csprng()
    key = source._stream
    source.uniform(1)
    assert source._stream is key
    monkeypatch.setattr(os, "getpid", lambda: 1)
    source.uniform(1)
    assert source._stream is not key


class _Edge(Csprng):
    """A source whose words are all zeros or all ones."""

    def __init__(self, word: int) -> None:
        super().__init__()
        self.word = word

    def _words(self, count: int) -> npt.NDArray[np.uint64]:
        return np.full(count, self.word, dtype=np.uint64)


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_uniforms_never_touch_zero_or_one(word: int) -> None:
    assert 0.0 < _Edge(word).uniform(1)[0] < 1.0
    assert np.isfinite(_Edge(word).normal((2,), 1.0)).all()


def test_poisson_sampling_includes_everybody_alike_and_independently() -> None:
    source, people, rate, trials = Csprng(), 40, 0.3, 4000
    members = np.zeros((trials, people))
    for trial in range(trials):
        members[trial, source.poisson_sample(people, rate)] = 1
    each = members.sum(axis=0)
    scores = (each - trials * rate) ** 2 / (trials * rate * (1 - rate))
    assert stats.chi2.sf(scores.sum(), people) > 3e-7
    sizes = members.sum(axis=1)  # a fixed-size or shuffled sampler has less variance
    ratio = sizes.var() / (people * rate * (1 - rate))
    assert abs(ratio - 1) < 5.2 * np.sqrt(2 / trials)  # 2e-7
    correlation = np.corrcoef(members.T) - np.eye(people)
    assert np.abs(correlation).max() < 6.4 / np.sqrt(trials)  # 780 pairs: 1e-7


def test_poisson_sampling_at_rate_one_takes_everybody_and_may_take_nobody() -> None:
    source = Csprng()
    assert source.poisson_sample(50, 1.0).tolist() == list(range(50))
    assert source.poisson_sample(50, 1e-9).size == 0
    assert source.poisson_sample(0, 0.5).dtype == np.int64


def test_choice_is_uniform_and_in_range() -> None:
    source = Csprng()
    counts = np.bincount([source.choice(7) for _ in range(14_000)], minlength=7)
    assert counts.size == 7
    assert stats.chisquare(counts).pvalue > 1e-6
    assert source.choice(1) == 0


def test_impossible_requests_are_refused() -> None:
    source = Csprng()
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(PlanInvalid):
            source.normal((1,), bad)
    for rate in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(PlanInvalid):
            source.poisson_sample(3, rate)
    with pytest.raises(PlanInvalid):
        source.choice(0)
