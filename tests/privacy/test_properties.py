"""The promises of private training that its parts keep only together."""

from __future__ import annotations

import inspect
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from privacy import csprng, dpsgd, plan
from privacy.csprng import Csprng
from privacy.dpsgd import Settings
from privacy.errors import BudgetExhausted, RoundSpent
from privacy.ledger import Ledger
from privacy.plan import Mechanism

Note = tuple[float, ...]
Person = tuple[Note, ...]
QUIET = 1e-12


class Scores(nn.Module):
    """Two frozen-input linear layers of 6,000 trainable weights."""

    def __init__(self, width: int = 60) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(1)
        self.first = nn.Linear(3, width, bias=False)
        self.second = nn.Linear(width, 100 - 3, bias=False)
        for layer in (self.first, self.second):
            layer.weight.data = 0.2 * torch.randn(layer.weight.shape, generator=draws)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def _padded(notes: Sequence[Note]) -> tuple[Tensor, Tensor]:
    longest = max(1, *(len(note) for note in notes))
    x, mask = torch.zeros(len(notes), longest, 3), torch.zeros(len(notes), longest)
    for row, note in enumerate(notes):
        mask[row, : len(note)] = 1.0
        for place, value in enumerate(note):
            x[row, place] = torch.tensor([value, math.sin(place), 1.0])
    return x, mask


def person_mean(model: nn.Module, notes: Sequence[Note]) -> Tensor:
    x, mask = _padded(notes)
    each = (model(x) - 3.0).square().sum(-1) * mask
    return each.sum(1) / mask.sum(1).clamp(min=1.0)


def batch_mean(model: nn.Module, notes: Sequence[Note]) -> Tensor:
    """The loss of common training code: a mean over all tokens of the batch."""
    x, mask = _padded(notes)
    each = (model(x) - 3.0).square().sum(-1) * mask
    return each.sum(1) / mask.sum().clamp(min=1.0) * len(notes)


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([weight.detach().double().flatten() for weight in model.parameters()])


def _run(
    people: Sequence[Any],
    *,
    randomness: Csprng | None = None,
    loss: Any = person_mean,
    draw: Any = lambda person, _: person,
    **changes: Any,
) -> Tensor:
    """Return the sum of the noisy steps: with sgd at rate 1, minus the way the weights went."""
    numbers: dict[str, Any] = {
        "noise_multiplier": QUIET,
        "clip_norm": 1.0,
        "sample_rate": 1.0,
        "steps": 1,
        "learning_rate": 1.0,
        "optimizer": "sgd",
        "chunk_tokens": 64,
    } | changes
    model = Scores()
    before = _weights(model)
    dpsgd.train(
        model,
        people,
        draw=draw,
        loss=loss,
        size=len,
        settings=Settings(**numbers),
        randomness=randomness or Csprng(),
    )
    return (before - _weights(model)) * (len(people) * numbers["sample_rate"])


notes = st.lists(st.floats(-3, 3, width=32), max_size=8).map(tuple)


@settings(deadline=None, max_examples=15)
@given(
    people=st.lists(notes, min_size=2, max_size=8),
    odd=st.sampled_from([(), (0.0,) * 3, (2.5,) * 300, (1e4,), (math.nan, 1.0), (1e30,)]),
    clip=st.sampled_from([0.01, 0.5, 1.0]),
)
def test_removing_a_person_moves_the_clipped_sum_by_at_most_c(
    people: list[Note], odd: Note, clip: float
) -> None:
    with_them = _run([*people, odd, people[0]], clip_norm=clip)
    for gone in (odd, people[0]):
        rest = [*people, people[0], odd]
        rest.remove(gone)
        without = _run(rest, clip_norm=clip)
        # The weights are float32: what is read back from them is exact to their rounding.
        assert (with_them - without).norm().item() <= clip * (1 + 1e-6) + 2e-5


def test_a_loss_averaged_over_the_batch_would_move_it_by_more() -> None:
    """The measure can fail: this is what a mean over the batch's tokens does."""
    people: list[Note] = [(0.1,)] * 20
    long: Note = (0.1,) * 400

    def moved(loss: Any) -> float:
        big = 10_000
        with_them = _run([*people, long], loss=loss, clip_norm=8.0, chunk_tokens=big)
        return float((with_them - _run(people, loss=loss, clip_norm=8.0, chunk_tokens=big)).norm())

    assert moved(person_mean) <= 8.0 * (1 + 1e-5)
    assert moved(batch_mean) > 8.0 * 1.5


def test_a_persons_gradient_does_not_depend_on_their_batch_mates() -> None:
    draws = np.random.default_rng(4)
    people = [tuple(draws.normal(size=n)) for n in (1, 3, 7, 2, 30)]
    together = _run(people, clip_norm=1e6, chunk_tokens=10_000)
    alone = torch.stack([_run([note], clip_norm=1e6) for note in people]).sum(0)
    assert (together - alone).norm() <= 1e-5 * alone.norm()


class Nobody(Csprng):
    """Samples nobody; its noise is real."""

    def poisson_sample(self, count: int, rate: float) -> npt.NDArray[np.int64]:
        return np.empty(0, dtype=np.int64)


@pytest.mark.parametrize(("claimed", "fits"), [(1.3, True), (0.65, False), (1.38, False)])
def test_noise_on_the_weights_has_the_promised_scale(claimed: float, fits: bool) -> None:
    noise = torch.cat(
        [_run([()] * 4, randomness=Nobody(), noise_multiplier=1.3, clip_norm=0.5) for _ in range(4)]
    )
    spread = noise.std().item() / (claimed * 0.5) - 1
    assert (abs(spread) < 3.9 / math.sqrt(2 * noise.numel())) is fits


def test_noise_is_normal_and_independent_over_weights_steps_and_runs() -> None:
    taken: list[npt.NDArray[np.float64]] = []

    class Recording(Nobody):
        def normal(self, shape: tuple[int, ...], std: float) -> npt.NDArray[np.float64]:
            taken.append(super().normal(shape, std))
            return taken[-1]

    for _ in range(2):
        _run([()], randomness=Recording(), noise_multiplier=1.0, steps=3)
    assert len(taken) == 2 * 3 * 2  # runs, steps, weights
    steps = [taken[i + 1].ravel() for i in range(0, len(taken), 2)]
    everything = np.concatenate([part.ravel() for part in taken])
    assert np.unique(everything).size == everything.size
    assert stats.kstest(everything, "norm").pvalue > 1e-4
    for place, one in enumerate(steps):
        for other in steps[:place]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / math.sqrt(one.size)


def test_global_seeds_reproduce_neither_noise_nor_batches_nor_notes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a global generator was used")

    for name in ("normal", "randn", "randn_like", "rand", "randperm", "bernoulli", "multinomial"):
        monkeypatch.setattr(torch, name, forbidden)
    seen: list[tuple[bytes, tuple[Note, ...]]] = []
    people: list[Person] = [tuple((float(i), float(j)) for j in range(9)) for i in range(30)]
    for _ in range(2):
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        drawn: list[Note] = []

        def one_note(person: Person, source: Csprng, drawn: list[Note] = drawn) -> Note:
            drawn.append(person[source.choice(len(person))])
            return drawn[-1]

        global_state = torch.get_rng_state()
        with monkeypatch.context() as patch:
            patch.setattr(Scores, "__init__", _plain_scores)
            moved = _run(people, draw=one_note, noise_multiplier=1.0, sample_rate=0.5, steps=2)
        assert torch.equal(torch.get_rng_state(), global_state)
        seen.append((moved.numpy().tobytes(), tuple(drawn)))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def _plain_scores(self: Scores) -> None:
    """Build the model without drawing from any generator."""
    nn.Module.__init__(self)
    for name, shape in (("first", (8, 3)), ("second", (5, 8))):
        layer = nn.utils.skip_init(nn.Linear, shape[1], shape[0], bias=False)
        layer.weight.data = torch.linspace(-1, 1, shape[0] * shape[1]).view(shape)
        setattr(self, name, layer)


def test_no_seed_parameter_leads_to_the_noise() -> None:
    for called in (Csprng.__init__, dpsgd.train, Settings.__init__, Csprng.normal):
        assert not {"seed", "generator"} & set(inspect.signature(called).parameters)
    source = Path(inspect.getfile(csprng)).read_text() + Path(inspect.getfile(dpsgd)).read_text()
    assert not re.search(
        r"manual_seed|default_rng|torch\.normal|randn|np\.random|import random", source
    )


def test_draws_of_noise_equal_the_steps_that_are_accounted(tmp_path: Path) -> None:
    """Over rounds, with an interrupted one: the ledger charges at least what was drawn."""
    ledger = Ledger.create(tmp_path / "ledger.db")
    whole = Mechanism(30.0, 0.5, 12)
    ledger.reserve(
        cohort="ward",
        run="run",
        plan_digest="sha256:0",
        mechanism=whole,
        rounds=3,
        delta=1e-5,
        cap=2.0,
    )
    taken: list[tuple[int, ...]] = []

    class Counting(Csprng):
        def normal(self, shape: tuple[int, ...], std: float) -> npt.NDArray[np.float64]:
            taken.append(shape)
            return super().normal(shape, std)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def one_round(number: int, on_step: Any = None) -> None:
        ledger.begin_round("run", number, input_digest="sha256:0")
        model = Scores()
        trained = dpsgd.train(
            model,
            [(1.0,), (math.nan,), (2.0, 1.0)],
            draw=lambda person, _: person,
            loss=person_mean,
            size=len,
            settings=Settings(30.0, 1.0, 0.5, 4, 0.1),
            randomness=Counting(),
            on_step=on_step,
        )
        assert trained.steps == 4

    one_round(0)
    assert len(taken) == 2 * 4  # two weights
    with pytest.raises(KeyboardInterrupt):
        one_round(1, stop)
    with pytest.raises(RoundSpent):
        one_round(1)
    one_round(2)
    (row,) = ledger.rows("ward")
    charged = row.steps // row.rounds * row.rounds_begun
    assert len(taken) / 2 == 4 + 2 + 4 <= charged == 12


def test_sampling_and_accounting_use_the_same_rate_and_number() -> None:
    asked: list[tuple[int, float]] = []

    class Asking(Csprng):
        def poisson_sample(self, count: int, rate: float) -> npt.NDArray[np.int64]:
            asked.append((count, rate))
            return super().poisson_sample(count, rate)

    people: list[Note] = [(1.0,)] * 400
    sizes: list[int] = []

    def counted(model: nn.Module, drawn: Sequence[Note]) -> Tensor:
        sizes.append(len(drawn))
        return person_mean(model, drawn)

    _run(people, randomness=Asking(), loss=counted, sample_rate=0.25, steps=30, chunk_tokens=10_000)
    assert set(asked) == {(400, 0.25)}
    assert abs(np.mean(sizes) - 100) < 4.5 * math.sqrt(400 * 0.25 * 0.75 / 30)
    assert len(set(sizes)) > 5  # a fixed batch size would not be the sampling that is accounted for


def test_the_weights_are_the_sum_of_the_recorded_noisy_steps() -> None:
    """Nothing un-noised slips into what is released."""
    model, steps = Scores(), []
    before = _weights(model)
    step = torch.optim.SGD.step

    def recording(self: Any, closure: Any = None) -> Any:
        steps.append(torch.cat([w.grad.double().flatten() for w in model.parameters()]))
        return step(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", recording)
        dpsgd.train(
            model,
            [(1.0,), (2.0, 0.5)],
            draw=lambda person, _: person,
            loss=person_mean,
            size=len,
            settings=Settings(1.0, 1.0, 0.6, 5, 0.5, optimizer="sgd"),
            randomness=Csprng(),
        )
    assert len(steps) == 5
    assert torch.allclose(before - 0.5 * torch.stack(steps).sum(0), _weights(model), atol=1e-5)


def test_a_mechanism_audit_finds_no_more_than_the_plan_allows_and_finds_halved_noise() -> None:
    """White box, one step: a person whose gradient is C in one direction, present or absent."""

    class OneWeight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False)
            self.layer.weight.data.zero_()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    def observed(present: bool, noise: float, trials: int) -> npt.NDArray[np.float64]:
        model, seen = OneWeight(), []
        dpsgd.train(
            model,
            [1.0 if present else 0.0],
            draw=lambda person, _: person,
            loss=lambda model, xs: -9.0 * model(torch.tensor(xs)[:, None, None]).sum((1, 2)),
            size=lambda _: 1,
            settings=Settings(noise, 1.0, 1.0, trials, 1.0, optimizer="sgd"),
            randomness=Csprng(),
            on_step=lambda *_: seen.append(model.layer.weight.item()),
        )
        return np.diff(np.array([0.0, *seen]))

    def separation(noise: float, trials: int = 1200) -> float:
        inside, outside = observed(True, noise, trials), observed(False, noise, trials)
        pooled = math.sqrt((inside.var() + outside.var()) / 2)
        return float((inside.mean() - outside.mean()) / pooled)

    noise = 2.0
    assert abs(separation(noise) - 1 / noise) < 4.5 * math.sqrt(2 / 1200)
    assert abs(separation(noise / 2) - 1 / noise) > 4.5 * math.sqrt(2 / 1200)


def test_rounds_accumulate_until_the_institution_refuses(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger.db")
    row, spent = Mechanism(8.0, 0.1, 100), 0.0
    for number in range(50):
        try:
            answer = Ledger.open(ledger.path).reserve(
                cohort="ward",
                run=f"run-{number}",
                plan_digest="sha256:0",
                mechanism=row,
                rounds=10,
                delta=1e-5,
                cap=1.0,
            )
        except BudgetExhausted:
            break
        assert spent < answer.epsilon_after <= 1.0
        spent = answer.epsilon_after
    assert plan.epsilon([row] * (number + 1), delta=1e-5) > 1.0
    assert spent == plan.epsilon([row] * number, delta=1e-5)
