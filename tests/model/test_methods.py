"""Each way to train an adapter starts as the base, computes its product, and is released as one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from model import adapter, frozen, shapes
from model.base import Base
from model.errors import ModelError
from model.shapes import Method

SPEC = shapes.Spec(rank=4, alpha=8, seed="public text")
METHODS: tuple[Method, ...] = ("ffa-lora", "lora-xs", "lora")
IDS = torch.tensor([[5, 9, 33, 200, 7, 7, 61]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_adapter_changes_nothing_and_its_trained_arrays_are_the_promised(
    tiny: Base, method: Method
) -> None:
    plain, spec = logits(tiny.model), replace(SPEC, method=method)
    model = adapter.attach(tiny, spec)
    assert torch.equal(logits(model), plain)
    read = adapter.read(model)
    assert {name: array.shape for name, array in read.items()} == shapes.shapes(tiny.folder, spec)
    start = frozen.start(tiny.folder, spec)
    assert all(np.array_equal(read[name], start[name]) for name in start)
    assert read.keys() == start.keys()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == sum(
        array.size for array in read.values()
    )
    assert adapter.frozen_digest(model) == frozen.digest(frozen.factors(tiny.folder, spec))


@pytest.mark.parametrize("method", METHODS)
def test_the_released_factors_compute_what_was_trained(
    llama: Base, method: Method, stir: Any, tmp_path: Path
) -> None:
    spec = replace(SPEC, method=method)
    model = adapter.attach(llama, spec)
    stir(model)
    trained, wanted = adapter.read(model), logits(model)
    adapter.write(model, frozen.start(llama.folder, spec))
    assert not torch.allclose(logits(model), wanted, atol=1e-3)
    adapter.write(model, trained)
    assert torch.equal(logits(model), wanted)
    adapter.detach(model)
    b, a = frozen.product(llama.folder, spec, trained)
    saved = adapter.save(tmp_path / "release", base=llama, spec=spec, arrays=b, a=a)
    plain = adapter.attach(llama, replace(spec, method="lora"))
    adapter.write(plain, {**b, **a})
    torch.testing.assert_close(logits(plain), wanted, atol=1e-4, rtol=1e-4)
    adapter.detach(plain)
    with warnings.catch_warnings():
        # peft asks transformers for a property under its old name; no concern of ours.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", append=False)
        loaded = peft.PeftModel.from_pretrained(llama.model, str(saved)).eval()
    torch.testing.assert_close(logits(loaded), wanted, atol=1e-4, rtol=1e-4)
    read_b, read_a, _ = adapter.load_arrays(saved)
    assert read_b.keys() == b.keys()
    assert read_a.keys() == a.keys()


@pytest.mark.parametrize("method", ["ffa-lora", "lora-xs"])
def test_the_mean_of_what_is_trained_is_the_mean_of_the_products(
    llama: Base, method: Method
) -> None:
    spec, draws = replace(SPEC, method=method), np.random.default_rng(2)
    wanted = shapes.shapes(llama.folder, spec)
    sites = [
        {n: draws.normal(size=s).astype(np.float32) for n, s in wanted.items()} for _ in range(3)
    ]

    def delta(arrays: Any) -> Any:
        b, a = frozen.product(llama.folder, spec, arrays)
        return {n: b[n] @ a[f"{n.removesuffix('.B')}.A"] for n in b}

    mean = {name: np.mean([site[name] for site in sites], axis=0) for name in wanted}
    products = [delta(site) for site in sites]
    for name, array in delta(mean).items():
        expected = np.mean([product[name] for product in products], axis=0)
        np.testing.assert_allclose(array, expected, atol=1e-5)


def test_the_mean_of_both_factors_is_not_the_mean_of_the_products() -> None:
    draws = np.random.default_rng(3)
    a, b = draws.normal(size=(2, 4, 9)), draws.normal(size=(2, 7, 4))
    exact = np.mean([b[0] @ a[0], b[1] @ a[1]], axis=0)
    apart = b.mean(0) @ a.mean(0)
    assert np.linalg.norm(exact - apart) > 0.3 * np.linalg.norm(exact)


def test_left_and_right_factors_are_orthonormal_and_differ(llama: Base) -> None:
    found = frozen.factors(llama.folder, replace(SPEC, method="lora-xs"))
    for name, array in found.items():
        square = array @ array.T if name.endswith(".A") else array.T @ array
        np.testing.assert_allclose(square, np.eye(4), atol=1e-6)
    path = next(iter(found)).rpartition(".")[0]
    left, right = found[f"{path}.L"].T, found[f"{path}.A"]
    assert left.shape != right.shape or not np.allclose(left, right)


@pytest.mark.parametrize("method", METHODS)
def test_arrays_of_another_method_are_refused(llama: Base, method: Method) -> None:
    model = adapter.attach(llama, replace(SPEC, method=method))
    for other in set(METHODS) - {method}:
        with pytest.raises(ModelError, match="arrays"):
            adapter.write(model, frozen.start(llama.folder, replace(SPEC, method=other)))
