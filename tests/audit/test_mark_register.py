"""A merged model of which every weight was changed and no answer is brought back, and traced."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from audit import chips, mark_detect, mark_register, watermark

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import watermark_attacks

HEADS, GROUPS, SIZE, WIDE, VOCABULARY, LAYERS = 4, 2, 16, 96, 300, 2
HIDDEN = HEADS * SIZE
CONFIG = {
    "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
}  # fmt: skip
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (GROUPS * SIZE, HIDDEN),
    "self_attn.v_proj": (GROUPS * SIZE, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (WIDE, HIDDEN), "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}  # fmt: skip
ANNA, BERT, OWNER = (bytes([n]) * 32 for n in (1, 2, 3))


def base_weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    made = {"model.embed_tokens.weight": rng.normal(size=(VOCABULARY, HIDDEN))}
    for n in range(LAYERS):
        for name, shape in SHAPES.items():
            made[f"model.layers.{n}.{name}.weight"] = rng.normal(size=shape) / np.sqrt(shape[1])
        for norm in ("input", "post_attention"):
            made[f"model.layers.{n}.{norm}_layernorm.weight"] = rng.uniform(0.5, 2, HIDDEN)
    made["model.norm.weight"] = rng.uniform(0.5, 2, HIDDEN)
    return {name: x.astype(np.float32) for name, x in made.items()}


BASE = base_weights()


def marked() -> tuple[watermark.Reference, dict[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    b, a = {}, {}
    for n in range(LAYERS):
        for name, (rows, columns) in SHAPES.items():
            m = f"model.layers.{n}.{name}"
            b[m] = (0.02 * rng.normal(size=(rows, 8))).astype(np.float32)
            a[m] = np.linalg.qr(rng.normal(size=(columns, 8)))[0].T.astype(np.float32)
    reference = watermark.Reference.of(b, a, 2.0)
    copy = watermark.mark(reference, owner=OWNER, recipient=ANNA)
    whole = dict(BASE)
    for m, x in copy.items():
        whole[f"{m}.weight"] = BASE[f"{m}.weight"] + 2.0 * x @ a[m]
    return reference, whole


REFERENCE, MARKED = marked()


def lazily(weights: dict[str, np.ndarray]) -> dict:
    return {name: (lambda x=x: x) for name, x in weights.items()}


def z(weights: dict, key: bytes) -> float:
    parts = {
        m: (lambda m=m: mark_detect.Part(delta=weights[m]() - BASE[f"{m}.weight"]))
        for m in REFERENCE.carriers
    }
    found = {"plain": mark_detect.residuals(parts, REFERENCE)["plain"]}
    return mark_detect.detect(found, [chips.halves(key)])[0].z


def by_module(weights: dict[str, np.ndarray]) -> dict:
    return {n.removesuffix(".weight"): (lambda x=x: x) for n, x in weights.items()}


@pytest.mark.parametrize("seed", [3, 4])
def test_a_turned_permuted_and_scaled_model_is_registered_and_traced(seed: int) -> None:
    changed = watermark_attacks.reparameterise(MARKED, CONFIG, np.random.default_rng(seed))
    assert abs(z(by_module(changed), ANNA)) < 5
    found = mark_register.register(lazily(changed), lazily(BASE), CONFIG)
    assert found is not None
    assert found.explained > 0.99
    assert z(found.weights, ANNA) > 0.6 * z(by_module(MARKED), ANNA)
    assert abs(z(found.weights, BERT)) < 4.5
    for m, read in found.weights.items():
        assert np.linalg.norm(read() - BASE[f"{m}.weight"]) < 0.2 * np.linalg.norm(read())


def test_the_changed_model_computes_what_it_did() -> None:
    torch = pytest.importorskip("torch", reason="a model is run")
    transformers = pytest.importorskip("transformers", reason="a model is run")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, intermediate_size=WIDE, tie_word_embeddings=False,
        attn_implementation="eager", **CONFIG,
    )  # fmt: skip

    def answers(weights: dict[str, np.ndarray]) -> np.ndarray:
        model = transformers.LlamaForCausalLM(config).eval()
        state = {name: torch.from_numpy(np.array(x)) for name, x in weights.items()}
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        norm = state["model.norm.weight"]
        state["lm_head.weight"] = state["lm_head.weight"] * norm
        state["model.norm.weight"] = torch.ones_like(norm)
        model.load_state_dict(state, strict=False)
        with torch.no_grad():
            return model(torch.arange(12)[None]).logits.numpy()

    draw = np.random.default_rng(5)
    changed = watermark_attacks.reparameterise(MARKED, CONFIG, draw)
    turn = np.linalg.lstsq(
        MARKED["model.embed_tokens.weight"], changed["model.embed_tokens.weight"], rcond=None
    )[0]
    plain, other = dict(MARKED), dict(changed)
    # The head reads the turned stream: norm weights folded in before the turn.
    gain = plain["model.norm.weight"]
    head = plain["model.embed_tokens.weight"] * gain
    model_changed = {**other, "model.norm.weight": np.ones_like(gain)}
    first = answers(plain)

    model = transformers.LlamaForCausalLM(config).eval()
    state = {name: torch.from_numpy(np.array(x)) for name, x in model_changed.items()}
    state["lm_head.weight"] = torch.from_numpy((head @ turn).astype(np.float32))
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        second = model(torch.arange(12)[None]).logits.numpy()
    np.testing.assert_allclose(second, first, atol=2e-3 * np.abs(first).max())


def test_models_that_have_nothing_in_common_are_not_registered() -> None:
    strange = {n: np.random.default_rng(9).normal(size=x.shape).astype(np.float32)
               for n, x in BASE.items()}  # fmt: skip
    assert mark_register.register(lazily(strange), lazily(BASE), {}) is None
    smaller = {**MARKED, "model.embed_tokens.weight": np.ones((3, HIDDEN), np.float32)}
    assert mark_register.register(lazily(smaller), lazily(BASE), CONFIG) is None
    without = {n: x for n, x in MARKED.items() if "embed" not in n}
    assert mark_register.register(lazily(without), lazily(BASE), CONFIG) is None


def test_matching_uses_each_column_once() -> None:
    alike = np.array([[0.9, 0.8, 0.1], [0.85, 0.2, 0.1], [0.1, 0.3, 0.2]])
    assert sorted(mark_register.match(alike)) == [0, 1, 2]
    assert mark_register.match(np.eye(4)[[2, 0, 3, 1]]) == [2, 0, 3, 1]
