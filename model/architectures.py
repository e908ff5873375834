"""The model architectures that are known well enough to be trained, and what sets each apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model.errors import ModelError


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the adapter and the prompts need to know about a causal language model.

    Attributes:
        prefix: module path of the backbone inside the causal model, with its trailing dot.
        targets: last path components of the modules that an adapter is put on by default.
        transposed: weights are stored (in, out), as in GPT-2's `Conv1D`, not (out, in).
    """

    prefix: str = "model."
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    transposed: bool = False


# Keyed by the class name in config.json ("architectures"). Listed means tested: adapter, loss
# and label scoring of each are compared with the plain forward pass in tests/model.
ARCHITECTURES: Final[dict[str, Architecture]] = {
    "LlamaForCausalLM": Architecture(),
    "MistralForCausalLM": Architecture(),
    "Qwen2ForCausalLM": Architecture(),
    "Qwen3ForCausalLM": Architecture(),
    "GemmaForCausalLM": Architecture(),
    "Gemma2ForCausalLM": Architecture(),
    # One fused matrix holds query, key and value.
    "GPT2LMHeadModel": Architecture(prefix="transformer.", targets=("c_attn",), transposed=True),
}

# Matrices that are looked up or tied rather than multiplied; an adapter never goes on them.
NOT_LINEAR: Final = frozenset({"embed_tokens", "wte", "wpe", "lm_head"})


def of(name: str) -> Architecture:
    """Look up an architecture by the class name in a model's config.json.

    Raises:
        ModelError: the architecture is not supported.
    """
    known = ARCHITECTURES.get(name)
    if known is None:
        raise ModelError(
            f"the architecture {name} is not supported; use a model of one of these: "
            + ", ".join(sorted(ARCHITECTURES)),
            code="unsupported-architecture",
        )
    return known
