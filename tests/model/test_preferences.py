"""The loss of a preference is the published one, of one person alone, against the base model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from model import adapter, preferences, shapes
from model.base import Base
from model.errors import ModelError
from model.preferences import Preference
from model.prompts import Example

SPEC = shapes.Spec(rank=4, alpha=8, seed="public text", targets=("v_proj", "o_proj"))


def pair(seed: int, ask: int, better: int, worse: int) -> Preference:
    draws = np.random.default_rng(seed)
    asked, one, other = (
        tuple(int(t) for t in draws.integers(0, 256, n)) for n in (ask, better, worse)
    )
    return Preference(Example((*asked, *one), ask), Example((*asked, *other), ask))


def plain(model: Any, example: Example) -> torch.Tensor:
    """Log-probability of the response, by the model's own forward pass on it alone."""
    ids = torch.tensor([example.ids])
    scores = model(ids, use_cache=False).logits[0].log_softmax(-1)
    places = range(example.prompt_tokens, example.tokens)
    return torch.stack([scores[at - 1, example.ids[at]] for at in places]).sum()


@pytest.mark.parametrize("sizes", [(3, 1, 1), (5, 9, 2), (1, 4, 30)])
def test_the_loss_is_that_of_the_paper(tiny: Base, stir: Any, sizes: tuple[int, int, int]) -> None:
    item = pair(1, *sizes)
    reference = [plain(tiny.model, one).item() for one in (item.chosen, item.rejected)]
    targets = ("c_attn",) if tiny.folder.architecture == "GPT2LMHeadModel" else SPEC.targets
    model = adapter.attach(tiny, shapes.Spec(rank=4, alpha=8, seed="s", targets=targets))
    item = preferences.refer(model, item)
    assert item.reference == pytest.approx(reference[0] - reference[1], rel=1e-4, abs=1e-3)
    fresh = preferences.loss(model, [item], beta=0.3)
    assert float(fresh.detach()[0]) == pytest.approx(float(np.log(2)), abs=1e-4)
    stir(model)
    margin = (plain(model, item.chosen) - reference[0]) - (
        plain(model, item.rejected) - reference[1]
    )
    wanted = -functional.logsigmoid(0.3 * margin)
    found = preferences.loss(model, [item], beta=0.3)[0]
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=1e-3)


def test_a_preferences_loss_depends_on_no_other(llama: Base, stir: Any) -> None:
    model = adapter.attach(llama, SPEC)
    stir(model)
    one, other = pair(1, 4, 3, 6), pair(2, 9, 20, 1)
    with torch.no_grad():
        alone = float(preferences.loss(model, [one], beta=0.1)[0])
        for width in (17, 40, 64):
            again = float(preferences.loss(model, [one], width, beta=0.1)[0])
            assert again == pytest.approx(alone, rel=1e-4)
        together = preferences.loss(model, [other, one, other], beta=0.1)
        assert float(together[1]) == pytest.approx(alone, rel=1e-4)
    with pytest.raises(ModelError, match="width"):
        preferences.loss(model, [one], 8, beta=0.1)


def test_the_reference_stays_out_of_sight() -> None:
    shown = repr(preferences.replace(pair(1, 2, 2, 2), reference=1.5))
    assert "1.5" not in shown


def test_both_answers_fit_the_limit_and_share_the_prompt(llama: Base) -> None:
    item = preferences.encode(llama, "why " * 90, "good " * 60, "bad", max_tokens=128)
    assert item.tokens <= 128
    assert item.chosen.tokens > item.rejected.tokens
    asked = item.chosen.prompt_tokens
    assert item.chosen.ids[:asked] == item.rejected.ids[: item.rejected.prompt_tokens]
    turned = preferences.encode(llama, "why " * 90, "bad", "good " * 60, max_tokens=128)
    assert (turned.chosen, turned.rejected) == (item.rejected, item.chosen)
    made = preferences.made_up(llama.model, tokens=11, number=3)
    assert made.tokens == 11
    assert made.chosen != made.rejected


def test_a_made_up_preference_is_where_the_loss_is_steep_however_long(llama: Base) -> None:
    """Far from its reference its gradient would vanish, and a sound machine be refused for it."""
    for tokens in (8, 60, 300):
        items = [preferences.made_up(llama.model, tokens=tokens, number=n) for n in range(3)]
        losses = preferences.loss(llama.model, items, beta=10.0)
        torch.testing.assert_close(losses, torch.full((3,), math.log(2)), atol=1e-2, rtol=0)
