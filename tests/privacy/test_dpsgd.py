from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from privacy import dpsgd
from privacy.csprng import Csprng
from tests.privacy.adapted import Adapted, Note, mean_loss, moved, people, traces, train


def _alone(note: Note) -> Tensor:
    """The gradient of one person by plain autograd."""
    model = Adapted()
    mean_loss(model, [note]).sum().backward()
    assert model.b.weight.grad is not None
    return model.b.weight.grad.double()


@pytest.mark.parametrize("clipping", ["flat", "auto"])
def test_the_step_is_the_sum_of_gradients_clipped_one_at_a_time(clipping: str) -> None:
    everyone = people(17)
    bound = 0.7 * (1 - dpsgd.ALLOWANCE)
    wanted = torch.zeros(6, 2, dtype=torch.float64)
    for note in everyone:
        gradient = _alone(note)
        norm = float(gradient.norm())
        wanted -= gradient * (
            min(1.0, bound / norm) if clipping == "flat" else bound / (norm + 0.01)
        )
    assert torch.allclose(moved(everyone, clip_norm=0.7, clipping=clipping), wanted, atol=1e-5)
    for other in ({"clip_norm": 0.8, "clipping": clipping}, {"clip_norm": 0.7 / (1 - 1e-3)}):
        assert not torch.allclose(moved(everyone, **other), wanted, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    note=st.lists(st.floats(-1e4, 1e4, width=32), max_size=5).map(tuple),
    clip=st.floats(1e-3, 10.0),
    clipping=st.sampled_from(["flat", "auto"]),
)
def test_nobody_contributes_more_than_the_bound_less_the_allowance(
    note: Note, clip: float, clipping: str
) -> None:
    norm = float(moved([note], clip_norm=clip, clipping=clipping).norm())
    assert norm <= clip * (1 - dpsgd.ALLOWANCE) * (1 + 1e-6)


def test_auto_clipping_gives_large_gradients_the_same_length_and_a_zero_gradient_none() -> None:
    def flat(model: nn.Module, scales: Sequence[float], width: int) -> Tensor:
        return torch.tensor(scales) * model(torch.ones(len(scales), 1, 4)).sum((1, 2))

    def norm(scale: float) -> float:
        model = Adapted()
        train(model, [scale], loss=flat, size=lambda _: 1, clipping="auto", clip_norm=2.0)
        return float(model.b.weight.detach().norm())

    full = 2.0 * (1 - dpsgd.ALLOWANCE)
    assert norm(0.0) == pytest.approx(0.0, abs=1e-9)
    assert norm(1e6) == pytest.approx(full, rel=1e-6)
    assert norm(50.0) == pytest.approx(full, rel=1e-3)
    assert 0.1 * full < norm(1e-3) < 0.9 * full
    assert norm(1e38) == 0.0 or norm(1e38) == pytest.approx(full, rel=1e-6)


def test_the_chunk_size_does_not_change_the_step() -> None:
    everyone = people(30)
    whole = moved(everyone, chunk_tokens=10_000)
    for tokens in (1, 9, 40):
        assert torch.allclose(moved(everyone, chunk_tokens=tokens), whole, atol=1e-5)


@pytest.mark.parametrize("clipping", ["flat", "auto"])
def test_clipping_is_over_all_weights_together(clipping: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return 50.0 * (self.left(x) - self.right(x))

    def loss(model: nn.Module, notes: Sequence[Note], width: int) -> Tensor:
        return model(torch.tensor(notes)).square().sum(-1)

    model = Two()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    train(model, [(1.0, 2.0)], clip_norm=0.5, loss=loss, clipping=clipping)
    moves = [(weight - before[name]).norm() for name, weight in model.named_parameters()]
    assert torch.stack(moves).norm().item() == pytest.approx(0.5, rel=2e-3)


class Scripted(Csprng):
    """A source that takes who is sampled from a script; everything else is real."""

    def __init__(self, script: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.script = iter(script)
        self.asked: list[tuple[int, float]] = []
        self.stds: list[float] = []

    def poisson_sample(self, count: int, rate: float) -> npt.NDArray[np.int64]:
        self.asked.append((count, rate))
        return np.array(next(self.script), dtype=np.int64)

    def normal(self, shape: tuple[int, ...], std: float) -> npt.NDArray[np.float64]:
        self.stds.append(std)
        return super().normal(shape, std)


def test_every_step_adds_noise_once_also_when_nobody_was_sampled() -> None:
    source, told = Scripted([[], [0, 1, 2], [], []]), []
    trained = train(
        Adapted(),
        people(3),
        randomness=source,
        steps=4,
        sample_rate=0.25,
        noise_multiplier=2.0,
        clip_norm=0.5,
        chunk_tokens=1,
        on_step=lambda done, total: told.append((done, total)),
    )
    assert source.stds == [1.0] * 4  # one weight, one draw a step, 2.0 * 0.5
    assert source.asked == [(3, 0.25)] * 4
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert trained.steps == 4


def test_an_empty_step_moves_the_weights_by_its_noise() -> None:
    model = Adapted()
    train(model, people(3), randomness=Scripted([[]]), noise_multiplier=1.0)
    assert (model.b.weight != 0).all()


def test_the_sum_is_divided_by_the_expected_not_the_true_number() -> None:
    everyone = people(8)

    def moved(script: list[int]) -> Tensor:
        model = Adapted()
        train(model, everyone, randomness=Scripted([script]), sample_rate=0.25)
        return model.b.weight.detach().double()

    few, more = moved([0]), moved([0, 1, 2, 3, 4])
    rest = moved([1, 2, 3, 4])
    assert torch.allclose(few + rest, more, atol=1e-6)
    gradient = _alone(everyone[0])
    bound = 1.0 - dpsgd.ALLOWANCE
    wanted = -gradient * min(1.0, bound / float(gradient.norm())) / (8 * 0.25)
    assert torch.allclose(few, wanted, atol=1e-6)


@pytest.mark.parametrize("clipping", ["flat", "auto"])
def test_a_person_without_a_finite_gradient_contributes_nothing(clipping: str) -> None:
    everyone = people(6)
    rest = moved(everyone, clipping=clipping)
    for poison in (math.nan, math.inf, 1e30):
        poisoned = [*everyone, (1.0, poison)]
        assert torch.allclose(moved(poisoned, clipping=clipping), rest, atol=1e-5)


@pytest.mark.parametrize("failing", ["loss", "backward", "draw", "on_step", None])
def test_nothing_of_a_person_stays_behind_also_after_a_failure(failing: str | None) -> None:
    model = Adapted()
    model.base.train()
    model.a.eval()
    modes = {name: module.training for name, module in model.named_modules()}

    def fail(*_: Any) -> Any:
        raise KeyboardInterrupt

    def broken_backward(model: nn.Module, notes: Sequence[Note], width: int) -> Tensor:
        losses = mean_loss(model, notes)
        losses.register_hook(fail)
        return losses

    def broken_loss(model: nn.Module, notes: Sequence[Note], width: int) -> Tensor:
        mean_loss(model, notes)
        return fail()  # type: ignore[no-any-return]

    arguments: dict[str, Callable[..., Any]] = {
        "loss": broken_loss,
        "backward": broken_backward,
        "draw": fail,
        "on_step": fail,
    }
    if failing is None:
        train(model, people(4))
    else:
        name = "loss" if failing == "backward" else failing
        with pytest.raises(KeyboardInterrupt):
            train(model, people(4), **{name: arguments[failing]})
    assert traces(model) == []
    assert {name: module.training for name, module in model.named_modules()} == modes
    train(model, people(4))  # and it can be trained again


def test_dropout_in_evaluation_mode_stays_off() -> None:
    class Dropping(Adapted):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.9)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.drop(x))

    class Functional(Adapted):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.dropout(x, 0.9, self.training))

    plain = Adapted()
    train(plain, people(6))
    for model in (Dropping().eval(), Functional().train()):
        train(model, people(6))
        assert torch.allclose(plain.b.weight, model.b.weight, atol=1e-7)


def test_gradients_flow_when_the_caller_has_switched_them_off() -> None:
    with torch.no_grad():
        assert moved(people(3)).norm() > 0.1


@pytest.fixture(scope="module")
def peft_model() -> Callable[[], nn.Module]:
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")

    def make() -> nn.Module:
        torch.manual_seed(11)
        config = transformers.LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            attention_dropout=0.3,
        )
        adapter = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
        model = peft.get_peft_model(transformers.LlamaForCausalLM(config), adapter)
        for name, weight in model.named_parameters():
            weight.requires_grad_("lora_B" in name)
            if "lora_B" in name:
                weight.data.normal_(std=0.05)
        return model.eval()

    return make


def _next_token_loss(model: nn.Module, notes: Sequence[tuple[int, ...]], width: int = 0) -> Tensor:
    longest = max(width, *map(len, notes), 0)
    ids = torch.tensor([[*note, *[0] * (longest - len(note))] for note in notes])
    mask = torch.tensor([[1] * len(note) + [0] * (longest - len(note)) for note in notes])
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    each = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return (each * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_language_model_with_a_peft_adapter_trains_as_one_person_at_a_time(
    peft_model: Callable[[], nn.Module],
) -> None:
    draws = np.random.default_rng(2)
    people = [tuple(int(t) for t in draws.integers(1, 40, draws.integers(2, 12))) for _ in range(7)]
    model = peft_model()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    wanted: dict[str, Tensor] = {}
    for note in people:
        model.zero_grad()
        _next_token_loss(model, [note]).sum().backward()
        alone = {n: w.grad.double() for n, w in model.named_parameters() if w.grad is not None}
        norm = torch.stack([gradient.norm() for gradient in alone.values()]).norm()
        for name, gradient in alone.items():
            share = gradient * min(1.0, 0.05 * (1 - dpsgd.ALLOWANCE) / float(norm)) / len(people)
            wanted[name] = wanted.get(name, torch.zeros(())) + share
    model.zero_grad()
    train(model, people, loss=_next_token_loss, clip_norm=0.05)
    after = dict(model.named_parameters())
    assert list(after) == list(before)  # no prefix was left on any name
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {name for name in after if "lora_B" in name}
    for name, gradient in wanted.items():
        assert torch.allclose(before[name] - after[name], gradient.float(), atol=1e-6), name
    assert traces(model) == []
