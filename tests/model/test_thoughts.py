"""A thought before an answer is out of the loss, or in it, by choice."""

from __future__ import annotations

from typing import Any

import pytest

from model import prompts, thoughts
from model.base import Base

THINKING = "<think>Fever and cough, so the clinic.</think>\n\nClinic"


def shown(base: Any, ids: Any) -> str:
    return str(base.tokenizer.decode(list(ids)))


def test_a_thought_is_left_out_unless_it_is_to_be_learnt(tiny: Base) -> None:
    dropped = thoughts.encode(tiny, "Where to?", THINKING, max_tokens=200)
    assert dropped == prompts.encode(tiny, "Where to?", "Clinic", max_tokens=200)
    assert "Fever" not in shown(tiny, dropped.ids)


def test_a_learnt_thought_is_a_label_behind_an_open_thought(tiny: Base) -> None:
    item = thoughts.encode(tiny, "Where to?", THINKING, max_tokens=200, learn=True)
    asked = shown(tiny, item.ids[: item.prompt_tokens])
    told = shown(tiny, item.ids[item.prompt_tokens :])
    assert asked.endswith("<think>\n")
    assert asked.count("<think>") == 1
    assert "</think>" not in asked
    assert told.startswith("Fever and cough, so the clinic.\n</think>\n\nClinic")
    assert item.ids[-1] == prompts.end_token(tiny)


@pytest.mark.parametrize("response", ["Clinic", "<think></think>Clinic", "<think> </think>Clinic"])
def test_without_a_thought_both_choices_are_the_same(llama: Base, response: str) -> None:
    for learn in (False, True):
        item = thoughts.encode(llama, "Where to?", response, max_tokens=200, learn=learn)
        assert item == prompts.encode(llama, "Where to?", "Clinic", max_tokens=200)


@pytest.mark.parametrize("limit", [64, 90, 128])
def test_a_long_thought_loses_its_middle_and_the_answer_stays(llama: Base, limit: int) -> None:
    long = f"<think>begin {'and so on ' * 99}end</think>Clinic"
    item = thoughts.encode(llama, "Where to? " * 40, long, max_tokens=limit, learn=True)
    told = shown(llama, item.ids[item.prompt_tokens :])
    assert item.tokens <= limit
    assert "</think>\n\nClinic" in told


def test_a_thought_in_the_middle_is_text(llama: Base) -> None:
    assert thoughts.split("Clinic <think>no</think>") == ("", "Clinic <think>no</think>")
