"""Tiny models of every supported architecture, with random weights and byte-level tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from model import base as base_module
from model import catalog
from model.base import Base

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

DEFAULT_SYSTEM = "You are a tiny model called Default."
CHATML = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The shape of a reasoning model's: system text bare after the first token, earlier thoughts are
# dropped, and the answer starts inside an open thought.
THINKING = (
    "<s>{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}<|User|>{{ m['content'] }}"
    "{% else %}<|Assistant|>{{ m['content'].split('</think>')[-1] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
NO_SYSTEM = (
    "<s>{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
BRACKETS = (
    "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)
DATED = (
    "<s><|im_start|>system\nToday: {{ date_string if date_string is defined else "
    "strftime_now('%c') }}<|im_end|>{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "llama": CHATML,
    "qwen2": THINKING,
    "qwen3": DATED,
    "mistral": BRACKETS,
    "gemma": NO_SYSTEM,
    "gemma2": NO_SYSTEM,
    "gpt2": None,
}
KINDS = tuple(TEMPLATES)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|User|>", "<|Assistant|>"]


def make_tokenizer(template: str | None) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = template
    return tokenizer


def make_model(kind: str) -> Any:
    torch.manual_seed(7)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=264, n_embd=32, n_layer=2, n_head=4, n_positions=512
        )
        return transformers.GPT2LMHeadModel(config)
    shape: dict[str, Any] = {
        "vocab_size": 264,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "pad_token_id": None,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "tie_word_embeddings": kind != "mistral",
    }
    name = {"qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma", "gemma2": "Gemma2"}.get(
        kind, kind.capitalize()
    )
    if kind == "gemma2":  # small enough that the soft cap on the logits bites
        shape |= {"final_logit_softcapping": 0.5, "query_pre_attn_scalar": 8}
    if kind == "qwen2":
        shape.pop("head_dim")
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**shape)
    )
    with torch.no_grad():  # at the usual scale of 0.02 nothing depends on anything
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model folder for every kind, as a user would have it: no manifest."""
    root = tmp_path_factory.mktemp("models")
    for kind, template in TEMPLATES.items():
        make_model(kind).save_pretrained(str(root / f"tiny-{kind}"))
        make_tokenizer(template).save_pretrained(str(root / f"tiny-{kind}"))
    return {kind: root / f"tiny-{kind}" for kind in TEMPLATES}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A fresh PRIVITY_HOME, except where the real base model is wanted."""
    path = tmp_path / "home"
    if request.node.get_closest_marker("base") is None:
        monkeypatch.setenv("PRIVITY_HOME", str(path))
    return path


@pytest.fixture
def load(folders: dict[str, Path]) -> Callable[[str], Base]:
    return lambda kind: base_module.load(catalog.find(str(folders[kind])))


@pytest.fixture(params=KINDS)
def tiny(request: pytest.FixtureRequest, load: Callable[[str], Base]) -> Base:
    """A freshly loaded model of every kind in turn."""
    return load(request.param)


@pytest.fixture
def llama(load: Callable[[str], Base]) -> Base:
    return load("llama")


@pytest.fixture
def stir() -> Callable[[Any], None]:
    """Give the adapter's trained factor some values, so that it does something."""

    def fill(model: Any) -> None:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))

    return fill
