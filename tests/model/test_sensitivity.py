"""What a public loss reacts to is measured exactly, and a mark that spares it moves it less."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from audit import watermark
from model import adapter, frozen, prompts, sensitivity, shapes
from model.base import Base
from model.labels import Labels

TEXTS = ("cards", "loans", "savings and more")


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    draws = random.Random(seed)
    words = ("please", "help", "me", "with", "the", "new", "form", "today", "account", "ward")
    return [(" ".join(draws.choices(words, k=8)), draws.choice(TEXTS)) for _ in range(count)]


@pytest.mark.parametrize("labelled", [True, False])
def test_second_moments_are_those_of_the_gradients_and_change_no_weight(
    tiny: Base, stir: Any, labelled: bool
) -> None:
    model = adapter.attach(tiny, shapes.Spec(rank=4, seed="s"))
    stir(model)
    before = adapter.read(model)
    labels = Labels.of(tiny, TEXTS) if labelled else None
    found = sensitivity.second_moments(model, tiny, rows(3, 1), labels=labels, max_tokens=90)
    expected = {path: np.zeros((4, 4)) for path in found}
    for asked, answer in rows(3, 1):
        model.zero_grad()
        example = prompts.encode(tiny, asked, answer, max_tokens=90)
        prompts.loss(model, [example], labels=labels).sum().backward()
        for path, layer in adapter._layers(model):
            gradient = layer.lora_B["default"].weight.grad.double().numpy()
            expected[path] += gradient.T @ gradient
    assert any(x.any() for x in expected.values())
    for path, moment in found.items():
        np.testing.assert_allclose(moment, expected[path], rtol=1e-3, atol=1e-9)
    for name, x in adapter.read(model).items():
        np.testing.assert_array_equal(x, before[name])


def test_a_mark_that_spares_them_moves_the_loss_on_other_records_less(
    llama: Base, stir: Any
) -> None:
    spec = shapes.Spec(rank=8, seed="s")
    model = adapter.attach(llama, spec)
    stir(model)
    plain, labels = adapter.read(model), Labels.of(llama, TEXTS)
    moments = sensitivity.second_moments(model, llama, rows(16, 1), labels=labels, max_tokens=90)
    reference = watermark.Reference.of(plain, frozen.factors(llama.folder, spec), spec.scale)
    held = [prompts.encode(llama, a, b, max_tokens=90) for a, b in rows(16, 2)]

    def loss(b: Any) -> float:
        adapter.write(model, b)
        with torch.no_grad():
            return float(prompts.loss(model, held, labels=labels).double().mean())

    def moved(spared: Any) -> float:
        keys = [bytes([number]) * 32 for number in range(12)]
        copies = [
            watermark.mark(reference, owner=b"o" * 32, recipient=key, sensitivity=spared)
            for key in keys
        ]
        return float(np.sqrt(np.mean([(loss(copy) - loss(plain)) ** 2 for copy in copies])))

    assert moved(moments) < 0.8 * moved(None)
