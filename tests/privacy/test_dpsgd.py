from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from privacy import dpsgd, trainable
from privacy.csprng import Csprng
from privacy.dpsgd import Settings, Trained
from privacy.errors import PlanInvalid, UnsupportedModel

Note = tuple[float, ...]
QUIET = 1e-12  # noise multiplier of a test that looks at the clipped sums alone


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter beside it, as PEFT lays one out."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(3)
        self.base = nn.Linear(4, 6, bias=False)
        self.a = nn.Linear(4, 2, bias=False)
        self.b = nn.Linear(2, 6, bias=False)
        for layer in (self.base, self.a):
            layer.weight.data = torch.randn(layer.weight.shape, generator=draws)
            layer.weight.requires_grad_(False)
        self.b.weight.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


def _loss(model: nn.Module, notes: Sequence[Note]) -> Tensor:
    """Mean over each note's own tokens; token i of a note is (value, i, 1, value squared)."""
    longest = max(len(note) for note in notes)
    x = torch.zeros(len(notes), longest, 4)
    mask = torch.zeros(len(notes), longest)
    for row, note in enumerate(notes):
        for place, value in enumerate(note):
            x[row, place] = torch.tensor([value, place / 10, 1.0, value**2])
            mask[row, place] = 1.0
    per_token = (model(x) - 1.0).square().mean(-1)
    return (per_token * mask).sum(1) / mask.sum(1).clamp(min=1.0)


def _people(count: int, seed: int = 5) -> list[Note]:
    draws = np.random.default_rng(seed)
    return [tuple(draws.normal(size=int(draws.integers(1, 9)))) for _ in range(count)]


def _train(
    model: nn.Module, people: Sequence[Any], *, randomness: Csprng | None = None, **changes: Any
) -> Trained:
    rest = {
        name: changes.pop(name) for name in ("state", "on_step", "loss", "draw") if name in changes
    }
    numbers: dict[str, Any] = {
        "noise_multiplier": QUIET,
        "clip_norm": 1.0,
        "sample_rate": 1.0,
        "steps": 1,
        "learning_rate": 1.0,
        "optimizer": "sgd",
    }
    arguments: dict[str, Any] = {"draw": lambda person, _: person, "loss": _loss} | rest
    return dpsgd.train(
        model,
        people,
        size=len,
        settings=Settings(**(numbers | changes)),
        randomness=randomness or Csprng(),
        **arguments,
    )


def _moved(people: Sequence[Any], **changes: Any) -> Tensor:
    """The step's noisy sum times -1, from one plain gradient step of rate 1."""
    model = Adapted()
    _train(model, people, **changes)
    return model.b.weight.detach().double() * (len(people) * changes.get("sample_rate", 1.0))


def _alone(note: Note) -> Tensor:
    """The gradient of one person by plain autograd."""
    model = Adapted()
    _loss(model, [note]).sum().backward()
    assert model.b.weight.grad is not None
    return model.b.weight.grad.double()


def test_the_step_is_the_sum_of_gradients_clipped_one_at_a_time() -> None:
    people = _people(17)
    wanted = torch.zeros(6, 2, dtype=torch.float64)
    for note in people:
        gradient = _alone(note)
        wanted -= gradient * min(1.0, 0.7 / float(gradient.norm()))
    assert torch.allclose(_moved(people, clip_norm=0.7), wanted, atol=1e-5)
    assert not torch.allclose(_moved(people, clip_norm=0.8), wanted, atol=1e-2)


def test_the_chunk_size_does_not_change_the_step() -> None:
    people = _people(30)
    whole = _moved(people, chunk_tokens=10_000)
    for tokens in (1, 9, 40):
        assert torch.allclose(_moved(people, chunk_tokens=tokens), whole, atol=1e-5)


def test_clipping_is_over_all_weights_together() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return 50.0 * (self.left(x) - self.right(x))

    def loss(model: nn.Module, notes: Sequence[Note]) -> Tensor:
        return model(torch.tensor(notes)).square().sum(-1)

    model = Two()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    _train(model, [(1.0, 2.0)], clip_norm=0.5, loss=loss)
    moves = [(weight - before[name]).norm() for name, weight in model.named_parameters()]
    assert torch.stack(moves).norm().item() == pytest.approx(0.5, rel=1e-4)


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
    trained = _train(
        Adapted(),
        _people(3),
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
    _train(model, _people(3), randomness=Scripted([[]]), noise_multiplier=1.0)
    assert (model.b.weight != 0).all()


def test_the_sum_is_divided_by_the_expected_not_the_true_number() -> None:
    people = _people(8)

    def moved(script: list[int]) -> Tensor:
        model = Adapted()
        _train(model, people, randomness=Scripted([script]), sample_rate=0.25)
        return model.b.weight.detach().double()

    few, more = moved([0]), moved([0, 1, 2, 3, 4])
    rest = moved([1, 2, 3, 4])
    assert torch.allclose(few + rest, more, atol=1e-6)
    gradient = _alone(people[0])
    wanted = -gradient / max(1.0, float(gradient.norm())) / (8 * 0.25)
    assert torch.allclose(few, wanted, atol=1e-6)


def test_a_person_without_a_finite_gradient_contributes_nothing() -> None:
    people = _people(6)
    for poison in (math.nan, math.inf, 1e30):
        poisoned = [*people, (1.0, poison)]
        assert torch.allclose(_moved(poisoned), _moved(people), atol=1e-5)


def test_optimizer_state_is_carried_by_name_and_survives_safetensors() -> None:
    people = _people(5)

    def run(split: Sequence[int]) -> Tensor:
        model, state = Adapted(), None
        for steps in split:
            trained = _train(
                model, people, steps=steps, optimizer="adamw", learning_rate=0.01, state=state
            )
            state = load(save(trained.state))
            assert set(state) == {f"b.weight.{key}" for key in ("step", "exp_avg", "exp_avg_sq")}
        return model.b.weight.detach()

    assert torch.allclose(run([6]), run([2, 4]), atol=1e-6)
    model = Adapted()
    _train(model, people, steps=2, optimizer="adamw", learning_rate=0.01)
    _train(model, people, steps=4, optimizer="adamw", learning_rate=0.01)
    assert not torch.allclose(run([6]), model.b.weight, atol=1e-6)


def test_foreign_optimizer_state_is_refused() -> None:
    good = _train(Adapted(), _people(3), optimizer="adamw").state
    nan = {**good, "b.weight.exp_avg": torch.full((6, 2), math.nan)}
    short = {**good, "b.weight.exp_avg": torch.zeros(3, 2)}
    missing = {name: value for name, value in good.items() if not name.endswith("step")}
    for bad in (nan, short, missing, {**good, "more": torch.zeros(1)}):
        with pytest.raises(PlanInvalid):
            _train(Adapted(), _people(3), optimizer="adamw", state=bad)
    with pytest.raises(PlanInvalid):
        _train(Adapted(), _people(3), optimizer="sgd", state=good)


def test_weight_decay_is_off() -> None:
    model = Adapted()
    model.b.weight.data.fill_(1.0)
    _train(
        model,
        [(0.0,)],
        loss=lambda model, notes: model(torch.zeros(1, 1, 4)).sum((1, 2)) * 0.0,
        optimizer="adamw",
        learning_rate=0.1,
        noise_multiplier=1e-30,
    )
    assert torch.allclose(model.b.weight, torch.ones(6, 2), atol=1e-6)


def _traces(model: nn.Module) -> list[str]:
    found = [f"{name}: hook" for name, m in model.named_modules() if m._forward_hooks]
    found += [f"{name}: hook" for name, m in model.named_modules() if m._backward_hooks]
    for name, module in model.named_modules():
        found += [f"{name}: {a}" for a in ("activations", "max_batch_len") if hasattr(module, a)]
    for name, weight in model.named_parameters():
        found += [f"{name}: {a}" for a in ("grad_sample", "summed_grad") if hasattr(weight, a)]
        found += [f"{name}: grad"] if weight.grad is not None else []
    return found


@pytest.mark.parametrize("failing", ["loss", "backward", "draw", "on_step", None])
def test_nothing_of_a_person_stays_behind_also_after_a_failure(failing: str | None) -> None:
    model = Adapted()
    model.base.train()
    model.a.eval()
    modes = {name: module.training for name, module in model.named_modules()}

    def fail(*_: Any) -> Any:
        raise KeyboardInterrupt

    def broken_backward(model: nn.Module, notes: Sequence[Note]) -> Tensor:
        losses = _loss(model, notes)
        losses.register_hook(fail)
        return losses

    def broken_loss(model: nn.Module, notes: Sequence[Note]) -> Tensor:
        _loss(model, notes)
        return fail()  # type: ignore[no-any-return]

    arguments: dict[str, Callable[..., Any]] = {
        "loss": broken_loss,
        "backward": broken_backward,
        "draw": fail,
        "on_step": fail,
    }
    if failing is None:
        _train(model, _people(4))
    else:
        name = "loss" if failing == "backward" else failing
        with pytest.raises(KeyboardInterrupt):
            _train(model, _people(4), **{name: arguments[failing]})
    assert _traces(model) == []
    assert {name: module.training for name, module in model.named_modules()} == modes
    _train(model, _people(4))  # and it can be trained again


def test_a_loss_that_is_not_one_number_per_person_is_refused() -> None:
    def wrong(shape: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Sequence[Note]], Tensor]:
        return lambda model, notes: shape(_loss(model, notes))

    for shape in (lambda x: x.mean(), lambda x: x[:, None], lambda x: x[:1], lambda x: x.mean(0)):
        with pytest.raises(UnsupportedModel, match="one loss each"):
            _train(Adapted(), _people(4), loss=wrong(shape))


def test_people_that_are_not_in_the_first_dimension_are_refused() -> None:
    class Flat(Adapted):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(0, 1)).view(*x.shape[:2], -1)

    with pytest.raises(UnsupportedModel, match="first dimension"):
        _train(Flat(), [(1.0, 2.0), (0.5, 1.0)])


def test_a_layer_that_the_loss_does_not_use_is_refused() -> None:
    model = Adapted()
    model.extra = nn.Linear(2, 2, bias=False)
    with pytest.raises(UnsupportedModel, match=r"extra\.weight"):
        _train(model, _people(3))
    assert _traces(model) == []  # the other layer had its raw gradient by then


def test_autocast_is_refused() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UnsupportedModel, match="autocast"):
        _train(Adapted(), _people(3))


class Special(nn.Linear):
    """Stands for a quantised layer: a Linear by name that computes something else."""


def _broken(kind: str) -> nn.Module:
    model = Adapted()
    if kind == "bias":
        model.b = nn.Linear(2, 6)
    elif kind == "frozen":
        model.b.weight.requires_grad_(False)
    elif kind == "half":
        model.b.weight.data = model.b.weight.data.to(torch.bfloat16)
    elif kind == "subclass":
        model.b = Special(2, 6, bias=False)
    elif kind == "batch norm":
        model.norm = nn.BatchNorm1d(4).requires_grad_(False)
    elif kind == "dropout":
        model.drop = nn.Dropout(0.1)
    elif kind == "embedding":
        model.words = nn.Embedding(5, 4)
    elif kind == "free parameter":
        model.scale = nn.Parameter(torch.ones(1))
    elif kind == "tied":
        model.c = nn.Linear(2, 6, bias=False)
        model.c.weight = model.b.weight
    elif kind == "shared":
        model.c = model.b
    return model


KINDS = "bias,frozen,half,subclass,batch norm,dropout,embedding,free parameter,tied,shared"


@pytest.mark.parametrize("kind", KINDS.split(","))
def test_a_model_whose_people_cannot_be_told_apart_is_refused(kind: str) -> None:
    model = _broken(kind)
    with pytest.raises(UnsupportedModel):
        _train(model, _people(3))
    assert _traces(model) == []


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
    _train(plain, _people(6))
    for model in (Dropping().eval(), Functional().train()):
        _train(model, _people(6))
        assert torch.allclose(plain.b.weight, model.b.weight, atol=1e-7)


def test_gradients_flow_when_the_caller_has_switched_them_off() -> None:
    with torch.no_grad():
        assert _moved(_people(3)).norm() > 0.1


@pytest.mark.parametrize(
    "change",
    [
        *({"noise_multiplier": v} for v in (0.0, -1.0, math.nan, math.inf)),
        *({"clip_norm": v} for v in (0.0, -1.0, math.nan, math.inf)),
        *({"sample_rate": v} for v in (0.0, 1.1, math.nan)),
        *({"steps": v} for v in (0, -1, 1.5, True)),
        *({"learning_rate": v} for v in (0.0, math.nan, math.inf)),
        *({"chunk_tokens": v} for v in (0, math.nan)),
        {"optimizer": "adam"},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PlanInvalid):
        _train(Adapted(), _people(3), **change)


def test_training_on_nobody_is_refused() -> None:
    with pytest.raises(PlanInvalid, match="nobody"):
        _train(Adapted(), [])


def test_chunks_keep_everybody_once_and_within_the_limit() -> None:
    people = _people(40)
    split = trainable.chunks(people, size=len, limit=20)
    assert sorted(note for chunk in split for note in chunk) == sorted(people)
    assert all(len(chunk) * max(map(len, chunk)) <= 20 for chunk in split)
    assert [len(chunk) for chunk in trainable.chunks(people, size=len, limit=1)] == [1] * 40
    assert trainable.chunks([], size=len, limit=20) == [[]]


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


def _next_token_loss(model: nn.Module, notes: Sequence[tuple[int, ...]]) -> Tensor:
    longest = max(map(len, notes))
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
            share = gradient * min(1.0, 0.05 / float(norm)) / len(people)
            wanted[name] = wanted.get(name, torch.zeros(())) + share
    model.zero_grad()
    _train(model, people, loss=_next_token_loss, clip_norm=0.05)
    after = dict(model.named_parameters())
    assert list(after) == list(before)  # no prefix was left on any name
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {name for name in after if "lora_B" in name}
    for name, gradient in wanted.items():
        assert torch.allclose(before[name] - after[name], gradient.float(), atol=1e-6), name
    assert _traces(model) == []
