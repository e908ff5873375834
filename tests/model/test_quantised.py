"""A base in 8 or 4 bits: close to the original, and one person's gradient stays one person's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model import adapter, base, catalog, frozen, prompts, quantised
from model.batching import Ask, Batch
from model.errors import ModelError
from model.quantised import QuantisedLinear
from model.shelf import Shelf
from privacy import arithmetic, dpsgd, trainable

FORMS = quantised.FORMS


def _weight(rows: int = 48, wide: int = 128) -> torch.Tensor:
    return torch.randn(rows, wide, generator=torch.Generator().manual_seed(5))


def _layer(form: Any, weight: torch.Tensor) -> QuantisedLinear:
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    plain.weight.data = weight.clone()
    return QuantisedLinear(plain, form)


@pytest.mark.parametrize(("form", "most", "bits"), [("int8", 0.01, 8.5), ("nf4", 0.1, 4.6)])
def test_a_matrix_is_kept_closely_in_few_bits(form: Any, most: float, bits: float) -> None:
    weight = _weight()
    layer = _layer(form, weight)
    error = float((layer.weight - weight).norm() / weight.norm())
    assert 0 < error < most
    held = sum(part.nbytes for part in (layer.store, layer.scale))
    assert held * 8 / weight.numel() <= bits
    assert not list(layer.parameters())


def test_the_levels_are_those_of_nf4() -> None:
    levels = quantised._levels()
    assert len(set(levels)) == 16
    assert (levels[0], levels[7], levels[15]) == (-1.0, 0.0, 1.0)
    # Of the paper's appendix, to five digits.
    assert levels[1] == pytest.approx(-0.69619, abs=1e-4)
    assert levels[8] == pytest.approx(0.07958, abs=1e-4)
    assert levels[14] == pytest.approx(0.72296, abs=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_every_weight_goes_to_the_nearest_value_it_could_have(form: Any) -> None:
    weight = _weight(4, 64)
    layer = _layer(form, weight)
    if form == "int8":
        step = layer.scale
        assert bool(((layer.weight - weight).abs() <= step / 2 * (1 + 1e-5)).all())
        return
    values = torch.tensor(quantised._levels())[None, None] * layer.scale[:, :1, None]
    best = (values - weight[..., None]).abs().amin(-1)
    torch.testing.assert_close((layer.weight - weight).abs(), best, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_zero_matrix_and_one_large_weight_are_kept(form: Any) -> None:
    weight = torch.zeros(3, 32)
    weight[1, 7] = -1e4
    assert torch.equal(_layer(form, weight).weight, weight)


@pytest.mark.parametrize("form", FORMS)
def test_forward_and_backward_are_those_of_the_multiplied_out_matrix(form: Any) -> None:
    layer = _layer(form, _weight())
    one, other = (torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(1)) for _ in "ab")
    one.requires_grad_(True)
    other.requires_grad_(True)
    found, wanted = layer(one), nn.functional.linear(other, layer.weight)
    assert torch.equal(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-5)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def pair(folders: dict[str, Path], form: Any) -> tuple[base.Base, base.Base]:
    """A quantised model, and a plain one with the same matrices multiplied out."""
    found = catalog.find(str(folders["qwen2"]))  # whose layers have biases
    small, plain = base.load(found, precision=form), base.load(found)
    modules = dict(plain.model.named_modules())
    with torch.no_grad():
        for path in found.linear:
            modules[path].weight.copy_(small.model.get_submodule(path).weight)
    return small, plain


def _gradients(loaded: base.Base, stir: Callable[[Any], None], count: int) -> torch.Tensor:
    model = adapter.attach(loaded, adapter.Spec(rank=2, seed="x"))
    stir(model)
    examples = [prompts.made_up(model, tokens=12 - n % 3, number=n) for n in range(count)]
    return dpsgd.gradients(model, examples, 12, prompts.loss)


def test_each_persons_gradient_is_that_over_the_multiplied_out_base(
    pair: tuple[base.Base, base.Base], stir: Callable[[Any], None]
) -> None:
    small, plain = (_gradients(one, stir, 5) for one in pair)
    assert small.shape[0] == 5
    assert float(small.norm()) > 0
    torch.testing.assert_close(small, plain, rtol=1e-4, atol=1e-6)


def test_a_persons_gradient_does_not_depend_on_who_is_beside_them(
    pair: tuple[base.Base, base.Base], stir: Callable[[Any], None]
) -> None:
    model = adapter.attach(pair[0], adapter.Spec(rank=2, seed="x"))
    stir(model)
    trained = trainable.find(model)  # also: the private core takes it
    assert trained
    rounding = arithmetic.measure(
        model,
        make=lambda tokens, number: prompts.made_up(model, tokens=tokens, number=number),
        loss=prompts.loss,
        longest=24,
        chunk_tokens=96,
    )
    arithmetic.check(rounding, people=1000)


def test_longer_notes_whose_layers_are_computed_twice_have_the_same_gradient(
    pair: tuple[base.Base, base.Base], stir: Callable[[Any], None]
) -> None:
    model = adapter.attach(pair[0], adapter.Spec(rank=2, seed="x"))
    stir(model)
    examples = [prompts.made_up(model, tokens=12, number=n) for n in range(2)]
    whole = dpsgd.gradients(model, examples, 12, prompts.loss)
    again = dpsgd.gradients(
        model, examples, 12, lambda *given: prompts.loss(*given, recompute=True)
    )
    torch.testing.assert_close(whole, again, rtol=1e-5, atol=1e-7)


def test_a_quantised_model_answers_nearly_as_the_original(
    folders: dict[str, Path], form: Any
) -> None:
    found = catalog.find(str(folders["llama"]))
    small, plain = base.load(found, precision=form), base.load(found)
    ids = torch.arange(40)[None] % 200
    with torch.inference_mode():
        one, other = (loaded.model(ids).logits for loaded in (small, plain))
    error = float((one - other).norm() / other.norm())
    assert 0 < error < (0.05 if form == "int8" else 0.6)


def test_a_release_is_served_over_it_as_over_the_multiplied_out_base(
    pair: tuple[base.Base, base.Base], stir: Callable[[Any], None]
) -> None:
    said = []
    for loaded in pair:
        model = adapter.attach(loaded, adapter.Spec(rank=2, seed="x"))
        stir(model)
        trained = adapter.read(model)
        adapter.detach(model)
        spec = adapter.Spec(rank=2, seed="x")
        shelf = Shelf(loaded.model)
        shelf.put("r", trained, frozen.factors(loaded.folder, spec), scale=8.0)
        batch = Batch(loaded.model, loaded, shelf=shelf)
        for key, name in (("with", "r"), ("without", None)):
            batch.admit(key, Ask(tuple(range(60, 80)), max_new_tokens=6, adapter=name))
        texts = {"with": "", "without": ""}
        while len(batch):
            for piece in batch.step():
                texts[str(piece.key)] += piece.text
        said.append(texts)
    assert said[0] == said[1]
    assert said[0]["with"] != said[0]["without"]


def test_what_is_no_linear_layer_or_has_no_groups_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="Conv1D"):
        base.load(catalog.find(str(folders["gpt2"])), precision="int8")
    with pytest.raises(ModelError, match="use int8"):
        _layer("nf4", torch.ones(2, 24))


def test_a_layer_of_another_library_is_still_refused_under_dp() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    stranger = type("Linear8bitLt", (nn.Linear,), {"__module__": "bitsandbytes.nn"})
    model.append(stranger(4, 4))
    with pytest.raises(trainable.UnsupportedModel, match="quantised"):
        trainable.find(model)
