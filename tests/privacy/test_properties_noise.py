"""The noise that reaches the weights, the sample that it is for, and where both come from.

Every tolerance is set so that a correct program fails its test at most once in a million runs;
the probability stands beside it. The mutation suite shows that each can fail.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from privacy.csprng import Csprng
from tests.privacy.toy import Note, Recording, Scores, Scripted, sums

ROOT = Path(__file__).parents[2]


class OneWeight(nn.Module):
    """One number, for tests that need many steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.skip_init(nn.Linear, 1, 1, bias=False)
        self.layer.weight.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _pull(model: nn.Module, people: Sequence[float], width: int | None = None) -> Tensor:
    """A loss whose gradient is nine times the person's number, whatever the weight."""
    del width
    return 9.0 * model(torch.tensor(people)[:, None, None]).sum((1, 2))


# -- noise ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty_steps() -> Tensor:
    """The sums of 4 calls of 17 steps that sampled nobody, over noise of 1.3 * 0.5: 408,000."""
    nobody: dict[str, Any] = {"noise_multiplier": 1.3, "clip_norm": 0.5, "steps": 17}
    return torch.cat([sums([()] * 4, randomness=Scripted([]), **nobody) for _ in range(4)])


@pytest.mark.parametrize(("claimed", "fits"), [(1.3, True), (0.65, False), (1.316, False)])
def test_noise_on_the_weights_has_the_promised_scale(
    empty_steps: Tensor, claimed: float, fits: bool
) -> None:
    # 0.58 % is 5.2 standard errors of a standard deviation over 408,000: 2e-7.
    # A scale that is wrong by 1.2 % is taken for right with the same small probability.
    assert (abs(empty_steps.std().item() / (claimed * 0.5) - 1) < 0.0058) is fits
    assert abs(empty_steps.mean().item()) < 5.2 * 0.65 / math.sqrt(empty_steps.numel())


def test_noise_on_the_weights_is_normal(empty_steps: Tensor) -> None:
    draws = empty_steps.flatten()[:100_000].numpy() / 0.65
    assert stats.kstest(draws, "norm").pvalue > 1e-6
    assert stats.kstest(draws * 1.1, "norm").pvalue < 1e-6


def test_noise_is_independent_over_layers_steps_and_calls(empty_steps: Tensor) -> None:
    """Every pair of steps, of the same call and of others; both layers' first 180 weights."""
    steps, count = empty_steps.numpy(), empty_steps.shape[1]
    pairs = list(itertools.combinations(range(len(steps)), 2))
    # 2,278 pairs, and as many of their sizes without the sign, at 6.8 standard errors: below 1e-6.
    for values in (steps, np.abs(steps)):
        correlation = np.corrcoef(values)
        assert max(abs(correlation[a, b]) for a, b in pairs) < 6.8 / math.sqrt(count)
    first, second = steps[:, :180].ravel(), steps[:, 180:360].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 5.2 / math.sqrt(first.size)
    for lag in (1, 2, count // 2):  # three lags of 400,000: 6e-7
        flat = steps.ravel()
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 5.2 / math.sqrt(flat.size - lag)


def test_noise_reaches_every_layer_of_every_step(empty_steps: Tensor) -> None:
    for layer in empty_steps.split((180, 5820), dim=1):
        for step in layer:
            # 136 blocks of at least 180: a standard deviation off by 40 % has 7 standard errors.
            assert 0.6 < step.std().item() / 0.65 < 1.4


def test_noise_keeps_the_precision_of_its_draw_and_never_repeats() -> None:
    """Drawn in float64, added in float64, rounded once."""
    source = Recording()
    total = sums([()], randomness=source, noise_multiplier=1.0, steps=17)
    drawn = np.concatenate([part.ravel() for part in source.noise])
    # 102,000 doubles: two equal ones by chance, 3e-7.
    assert np.unique(drawn).size == drawn.size == 17 * 6000
    assert np.array_equal(total.numpy().ravel().astype(np.float32), drawn.astype(np.float32))
    assert {part.dtype for part in source.noise} == {np.dtype(np.float64)}


def test_sum_and_noise_are_added_before_either_is_rounded() -> None:
    """A sum of half a float32 step beside the noise: rounding the noise first would show."""
    small: dict[str, Any] = {"model": OneWeight(), "loss": _pull, "size": lambda _: 1}
    clipped = sums([3.3e-9], noise_multiplier=1e-30, **small).item()
    assert clipped == pytest.approx(-9 * 3.3e-9, rel=1e-6) or clipped == pytest.approx(9 * 3.3e-9)
    source = Recording()
    total = sums([3.3e-9], randomness=source, noise_multiplier=1.0, steps=200, **small)
    noise = np.concatenate([part.ravel() for part in source.noise])
    found = total.numpy().ravel()
    assert np.array_equal(found, (clipped + noise).astype(np.float32))
    apart = np.float32(clipped) + noise.astype(np.float32)
    assert (found != apart).sum() > 10  # a quarter of 200 differ


def test_every_step_adds_noise_once_also_when_nobody_is_sampled() -> None:
    source = Scripted([], [0, 1, 2], [], [2])
    total = sums(
        [(1.0,), (2.0,), (0.5,) * 70], randomness=source, steps=6, noise_multiplier=2.0,
        clip_norm=0.5, sample_rate=0.25, chunk_tokens=1,
    )  # fmt: skip
    assert source.stds == [1.0] * (6 * 2)  # two layers; 2.0 * 0.5 whatever was sampled
    assert len(total) == 6
    for empty in (0, 2):  # noise and nothing else: no stand-in for the missing people
        drawn = np.concatenate([part.ravel() for part in source.noise[2 * empty : 2 * empty + 2]])
        assert np.allclose(total[empty].numpy(), drawn, rtol=1e-6)
    drawn = np.concatenate([part.ravel() for part in source.noise[2:4]])
    assert not np.allclose(total[1].numpy(), drawn, rtol=1e-6)


def test_a_run_in_which_nobody_is_ever_sampled_completes() -> None:
    source = Recording()
    total = sums([(1.0,)] * 5, randomness=source, sample_rate=1e-9, steps=4, noise_multiplier=1.0)
    assert [len(sample) for sample in source.sampled] == [0] * 4
    assert len(total) == 4
    assert all(0.9 < step.std().item() < 1.1 for step in total)  # 10 standard errors


# -- who is sampled -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def members() -> npt.NDArray[np.float64]:
    """Who was really drawn in each of 1,200 steps over 40 people at rate 0.25: 0 or 1."""
    count, rate, steps = 40, 0.25, 1200
    drawn: list[set[int]] = [set()]
    used = 0

    def draw(person: int, _: Csprng) -> float:
        assert person not in drawn[-1], "a person is in a step once"
        drawn[-1].add(person)
        return float(person)

    def loss(model: nn.Module, people: Sequence[float], width: int | None = None) -> Tensor:
        nonlocal used
        used += len(people)
        return _pull(model, people, width)

    sums(
        range(count), draw=draw, loss=loss, size=lambda _: 1, model=OneWeight(), sample_rate=rate,
        steps=steps, noise_multiplier=1.0, on_step=lambda *_: drawn.append(set()),
    )  # fmt: skip
    members = np.array([[i in step for i in range(count)] for step in drawn[:steps]], float)
    assert members.sum() == used, "whoever is drawn is used, once"
    return members


def test_everybody_is_sampled_alike(members: npt.NDArray[np.float64]) -> None:
    steps, count = members.shape
    scores = (members.sum(0) - steps * 0.25) ** 2 / (steps * 0.25 * 0.75)
    # Both tails: too uneven, or as even as only taking turns can be. 1e-6.
    assert 5e-7 < stats.chi2.sf(scores.sum(), count) < 1 - 5e-7


def test_people_are_sampled_independently_of_each_other(members: npt.NDArray[np.float64]) -> None:
    steps, count = members.shape
    sizes = members.sum(1)
    # 5.2 standard errors of a variance over 1,200 steps; a fixed size would have none: 2e-7.
    spread = sizes.var() / (count * 0.25 * 0.75)
    assert abs(spread - 1) < 5.2 * math.sqrt(2 / steps)
    correlation = np.corrcoef(members.T)[np.triu_indices(count, 1)]
    assert np.abs(correlation).max() < 6.8 / math.sqrt(steps)  # 780 pairs, skewed: below 1e-6


def test_being_sampled_says_nothing_about_the_next_steps(members: npt.NDArray[np.float64]) -> None:
    """Where people take turns, one is in exactly one of every four steps."""
    steps, count = members.shape
    turns = members.reshape(steps // 4, 4, count).sum(1).ravel()
    expected = stats.binom.pmf(range(5), 4, 0.25) * turns.size
    found = np.bincount(turns.astype(int), minlength=5)
    assert stats.chi2.sf(((found - expected) ** 2 / expected).sum(), 4) > 1e-6
    for lag in range(1, 8):
        pair = np.corrcoef(members[:-lag].ravel(), members[lag:].ravel())[0, 1]
        assert abs(pair) < 5.6 / math.sqrt(count * (steps - lag))  # seven lags: 2e-7


def test_a_step_is_divided_by_the_expected_not_the_true_number() -> None:
    def step(*sampled: int) -> Tensor:
        return sums([(1.0,)] * 8, randomness=Scripted(sampled), sample_rate=0.25)

    assert torch.allclose(step(0) + step(1, 2, 3, 4), step(0, 1, 2, 3, 4), atol=1e-6)
    assert step(3).norm().item() == pytest.approx(1.0, rel=2e-3)  # its clipped norm


def test_the_sampler_is_asked_for_the_plans_rate_over_all_people() -> None:
    source = Recording()
    sums([(1.0,)] * 60, randomness=source, sample_rate=0.25, steps=5)
    assert source.asked == [(60, 0.25)] * 5


# -- seeds ----------------------------------------------------------------------------------------


def test_global_seeds_reproduce_neither_noise_nor_batches_nor_notes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [Scores(), Scores()]  # making a layer draws

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a global generator was used")

    for name in ("normal", "randn", "randn_like", "rand", "rand_like", "randint", "randperm",
                 "bernoulli", "multinomial"):  # fmt: skip
        monkeypatch.setattr(torch, name, forbidden)
    for name in ("normal_", "uniform_", "bernoulli_", "random_"):
        monkeypatch.setattr(torch.Tensor, name, forbidden)
    for name in ("normal", "uniform", "random", "permutation", "choice", "shuffle", "rand"):
        monkeypatch.setattr(np.random, name, forbidden)
    people = [tuple((float(i), float(j)) for j in range(9)) for i in range(30)]
    seen: list[tuple[Any, ...]] = []
    for model in models:
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        drawn: list[Note] = []

        def one_note(person: Any, source: Csprng, drawn: list[Note] = drawn) -> Note:
            drawn.append(person[source.choice(len(person))])
            return drawn[-1]

        state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        source = Recording()
        sums(people, randomness=source, draw=one_note, model=model, noise_multiplier=1.0,
             sample_rate=0.5)  # fmt: skip
        assert torch.equal(torch.get_rng_state(), state[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == state[1:]
        seen.append((source.noise[0].tobytes(), source.sampled[0].tobytes(), tuple(drawn)))
    # 30 people in or out, and 9 notes each: equal by chance below 1e-9.
    assert all(first != second for first, second in zip(*seen, strict=True))


_PATH = ("privacy/csprng.py", "privacy/dpsgd.py", "privacy/trainable.py", "client/train.py",
         "client/tasks.py", "client/trainer.py")  # fmt: skip
_SEEDED = {"seed", "manual_seed", "generator", "random_state", "default_rng", "Generator",
           "RandomState", "fork_rng", "set_rng_state", "noise_generator"}  # fmt: skip
_DRAWS = {"normal", "normal_", "randn", "randn_like", "rand", "rand_like", "randint", "randperm",
          "bernoulli", "multinomial", "shuffle", "permutation", "uniform_"}  # fmt: skip
_LIBRARIES = {"torch", "np", "numpy", "random", "secrets"}


def _foreign_randomness(text: str) -> list[str]:
    """Seeds given to a call or taken by a function, and draws from anything but a `Csprng`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            found += [name for name in (*names, getattr(node, "module", "")) if name == "random"]
        if isinstance(node, ast.arg) and node.arg in _SEEDED:
            found.append(node.arg)
        if isinstance(node, ast.Call):
            found += [word.arg for word in node.keywords if word.arg in _SEEDED]
            name = ast.unparse(node.func)
            owner, _, last = name.rpartition(".")
            library = owner.partition(".")[0] in _LIBRARIES
            if last in _SEEDED or (last in _DRAWS and library) or "nn.init" in owner:
                found.append(name)
    return [str(word) for word in found]


@pytest.mark.parametrize("path", _PATH)
def test_no_seed_leads_to_sampling_noise_or_the_choice_of_a_note(path: str) -> None:
    assert _foreign_randomness((ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    ["torch.manual_seed(1)", "torch.normal(0, s, n)", "f(generator=g)", "np.random.default_rng(3)",
     "import random", "def train(seed): ...", "np.random.normal(0, 1)", "nn.init.normal_(w)"],
)  # fmt: skip
def test_the_search_for_seeds_finds_them(text: str) -> None:
    assert _foreign_randomness(text)
    assert not _foreign_randomness("noise = self.randomness.normal(shape, std); Csprng()")


def test_the_source_of_randomness_takes_nothing_that_could_be_a_seed() -> None:
    assert list(inspect.signature(Csprng.__init__).parameters) == ["self"]
    assert list(inspect.signature(Csprng.normal).parameters) == ["self", "shape", "std"]
    assert list(inspect.signature(Csprng.poisson_sample).parameters) == ["self", "count", "rate"]
    assert list(inspect.signature(Csprng.choice).parameters) == ["self", "count"]


# -- all of it at once -----------------------------------------------------------------------------


def test_one_person_stands_out_of_the_noise_exactly_as_far_as_planned() -> None:
    """White box: a person whose gradient is C in one direction, present or absent, 1,000 steps."""
    trials = 1000

    def observed(pull: float) -> npt.NDArray[np.float64]:
        return sums(
            [pull], model=OneWeight(), loss=_pull, size=lambda _: 1, steps=trials,
            noise_multiplier=1.0,
        ).numpy()  # fmt: skip

    inside, outside = observed(1.0), observed(0.0)
    pooled = math.sqrt((inside.var() + outside.var()) / 2)
    apart = abs(float(inside.mean() - outside.mean())) / pooled
    # The distance has a standard error of sqrt(2.25 / 1,000): 5.2 of them are 2e-7, and a half, as
    # from half the clip or twice the noise, is 5.3 further.
    assert abs(apart - 1.0) < 5.2 * math.sqrt(2.25 / trials) < 0.25
