"""What people ask of a training set-up and is not offered, each with its reason.

docs/methods.md has more of each. A sentence here says why, and what to use instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

METHODS: Final[Mapping[str, str]] = {
    "bitfit": "biases make no product, in which our watermark lies, and Llama models have none",
    "prompt-tuning": "a prompt's vectors make no product, in which our watermark lies, and "
    "cannot be merged",
    "prefix-tuning": "a prefix's vectors make no product, in which our watermark lies, and "
    "cannot be merged",
    "full": "the noise grows with the number of weights, and drowns what all of them could learn; "
    "on public answers privity model distill trains all weights of a small model",
    "dora": "its magnitudes are no weights of a linear layer, where alone people are told apart",
    "ppo": "its samples and value model use the records again and again, outside one clipped "
    'gradient of a person; use "preference", or on public questions privity model reinforce',
}

_ACCUMULATION = (
    "a step's people are always computed a few at a time and summed; a site sets how many tokens "
    "with runtime.chunk_tokens"
)
_SCALING = (
    "a loss is scaled for float16, whose range is too short for gradients of one person; a site "
    "takes runtime.precision = bfloat16, whose range is float32's, and nothing is to be scaled"
)
_FISHER = (
    "a Fisher matrix of private records is not private, and one of public records has the size "
    "of the base's weights; training.weight_decay pulls towards the base with equal weights"
)
_EARLY = "only public records may end a run, since private ones cost epsilon; use [stopping]"
_SEED = "noise and sampling come from the operating system's randomness and can have no seed"
_DROPOUT = "the noise is far above what it could do, and rounds would no longer repeat"
_BATCH = "people are sampled one by one; set privacy.sample_rate"
_EPOCHS = "the number of noisy steps is what epsilon is paid for; set privacy.rounds and steps"

KEYS: Final[Mapping[str, str]] = {
    "gradient_accumulation_steps": _ACCUMULATION,
    "gradient_accumulation": _ACCUMULATION,
    "fp16": _SCALING,
    "mixed_precision": _SCALING,
    "loss_scale": _SCALING,
    "loss_scaling": _SCALING,
    "autocast": _SCALING,
    "ewc": _FISHER,
    "fisher": _FISHER,
    "early_stopping": _EARLY,
    "patience": _EARLY,
    "seed": _SEED,
    "dropout": _DROPOUT,
    "lora_dropout": _DROPOUT,
    "batch_size": _BATCH,
    "epochs": _EPOCHS,
    "num_train_epochs": _EPOCHS,
}


def method(value: Any) -> Any:
    """Return `value`, unless it names a method that is not offered.

    Raises:
        ValueError: it does; with the reason.
    """
    why = METHODS.get(value) if isinstance(value, str) else None
    if why is not None:
        raise ValueError(f"{value} is not offered: {why}")
    return value


def keys(table: Any) -> Any:
    """Return `table`, unless it has a key that is not offered.

    Raises:
        ValueError: it has; with the reason.
    """
    for key in table if isinstance(table, dict) else ():
        if key in KEYS:
            raise ValueError(f"{key} is not offered: {KEYS[key]}")
    return table
