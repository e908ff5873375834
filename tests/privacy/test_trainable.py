from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from privacy import trainable
from privacy.errors import UnsupportedModel
from tests.privacy.adapted import Adapted, people, traces, train


class Special(nn.Linear):
    """Stands for a quantised layer: a Linear by name that computes something else."""


class Dressed(torch.Tensor):
    """Stands for a quantised tensor that says it is float32."""


class QuantisedLinear(nn.Linear):
    """Stands for a layer of a library for quantised weights."""

    __module__ = "bitsandbytes.nn.modules"


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
    elif kind == "half base":
        model.base.half()
    elif kind == "float64 base":
        model.base.double()
    elif kind == "integer base":
        model.base.weight = nn.Parameter(torch.ones(6, 4, dtype=torch.int8), requires_grad=False)
    elif kind == "dressed tensor":
        model.base.weight = nn.Parameter(torch.ones(6, 4).as_subclass(Dressed), requires_grad=False)
    elif kind == "quantised layer":
        model.base = QuantisedLinear(4, 6, bias=False).requires_grad_(False)
    return model


KINDS = "bias,frozen,half,subclass,batch norm,dropout,embedding,free parameter,tied,shared,"
KINDS += "half base,float64 base,integer base,dressed tensor,quantised layer"


@pytest.mark.parametrize("kind", KINDS.split(","))
def test_a_model_whose_people_cannot_be_told_apart_is_refused(kind: str) -> None:
    model = _broken(kind)
    with pytest.raises(UnsupportedModel):
        train(model, people(3))
    assert traces(model) == []


def test_a_frozen_base_may_be_bfloat16() -> None:
    model = Adapted()
    model.base.bfloat16()
    assert list(trainable.find(model)) == ["b.weight"]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"use_dora": True}, "lora_magnitude"),
        ({"target_modules": ["embed_tokens"]}, "lora_embedding"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
    ],
)
def test_adapters_that_are_more_than_linear_layers_are_refused(kind: Any, words: str) -> None:
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    options = {"r": 2, "target_modules": ["q_proj"]} | kind
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), peft.LoraConfig(**options))
    with pytest.raises(UnsupportedModel, match=words):
        trainable.find(model.eval())


def test_a_length_class_holds_the_length_and_wastes_a_token_or_an_eighth_at_most() -> None:
    classes = [trainable.width(size) for size in range(1, 5000)]
    assert all(
        size <= wide <= max(16, size + 1, size * 1.125)
        for size, wide in enumerate(classes, start=1)
    )
    assert classes == sorted(classes)
    assert all(trainable.width(wide) == wide for wide in classes)
    assert len({wide for wide in classes if wide <= 128}) == 9 + 8 + 8
    assert trainable.width(0) == min(classes) == 16


def test_a_class_costs_little_padding_on_average() -> None:
    waste = [trainable.width(size) / size - 1 for size in range(24, 513)]
    assert sum(waste) / len(waste) < 0.045


@settings(deadline=None)
@given(st.lists(st.integers(0, 90), max_size=60), st.integers(1, 300))
def test_chunks_keep_everybody_once_and_within_the_limit(sizes: list[int], limit: int) -> None:
    people = [(size, place) for place, size in enumerate(sizes)]
    split = trainable.chunks(people, size=lambda person: person[0], limit=limit)
    assert sorted(person for chunk in split for person in chunk.examples) == sorted(people)
    for chunk in split:
        assert len(chunk.examples) <= trainable.MOST_ROWS
        assert len(chunk.examples) * chunk.width <= max(limit, chunk.width)
        assert all(trainable.width(size) == chunk.width for size, _ in chunk.examples)


def test_nobody_is_one_empty_chunk() -> None:
    assert trainable.chunks([], size=len, limit=20) == [trainable.Chunk((), 16)]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=120), st.integers(1, 400), st.data())
def test_taking_one_person_away_changes_the_shape_of_one_chunk_at_most(
    sizes: list[int], limit: int, data: st.DataObject
) -> None:
    def shapes(people: list[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
        split = trainable.chunks(people, size=lambda person: person[0], limit=limit)
        return {p: (len(c.examples), c.width) for c in split for p in c.examples}

    people = [(size, place) for place, size in enumerate(sizes)]
    gone = data.draw(st.sampled_from(people))
    before, after = shapes(people), shapes([person for person in people if person != gone])
    other = [person for person in after if after[person] != before[person]]
    assert len({before[person][1] for person in other} - {trainable.width(gone[0])}) == 0
    assert len(other) < trainable.rows(trainable.width(gone[0]), limit=limit)
