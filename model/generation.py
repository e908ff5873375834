"""Let the model answer a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model import forward, prompts
from model.errors import ModelError

# (logits of shape (vocabulary,), the answer's tokens so far) -> the next token.
Sampler = Callable[[npt.NDArray[np.float32], Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; its text is never shown in a log.

    Attributes:
        text: the answer without control tokens.
        prompt_tokens: tokens of the conversation and its format.
        completion_tokens: tokens that were generated, the end token included.
        finished: the model ended its answer by itself, rather than at the limit.
    """

    text: str = field(repr=False)
    prompt_tokens: int
    completion_tokens: int
    finished: bool


@torch.inference_mode()
def chat(
    model: Any,
    base: Any,
    messages: Sequence[Mapping[str, str]],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    sampler: Sampler | None = None,
) -> Reply:
    """Generate the next answer of a conversation.

    Args:
        model: the model, with or without an adapter.
        base: the `Base` whose tokenizer and chat format are used.
        messages: see `prompts.conversation`.
        max_new_tokens: the answer has at most this many tokens, at least 1.
        temperature: 0 takes the likeliest token each time; up to 2 samples ever more freely.
        top_p: sample among the likeliest tokens that together have this probability.
        sampler: draws each token in place of the model's own sampling; it does temperature and
            top-p itself. Not used at temperature 0, where there is nothing to draw.

    Raises:
        ModelError: a setting out of range, roles out of order, or a conversation that with its
            answer exceeds what the model can read.
    """
    if not (max_new_tokens >= 1 and 0 <= temperature <= 2 and 0 < top_p <= 1):
        raise ModelError(
            "the answer needs max_new_tokens of at least 1, a temperature of 0 to 2 and a top_p "
            "above 0 and up to 1; correct the setting",
            code="bad-setting",
        )
    # Not shortened: an answer to half a conversation would look like an answer to all of it.
    asked = prompts.conversation(base, messages, max_tokens=1 << 30)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and not len(asked) + max_new_tokens <= limit:
        raise ModelError(
            f"the conversation has {len(asked)} tokens and with {max_new_tokens} more exceeds the "
            f"{limit} that the model reads; shorten it or lower max_new_tokens",
            code="too-long",
        )
    end = prompts.end_token(base)
    ids = forward.pad([asked], device=forward.device_of(model))
    settings: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        settings = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    if temperature > 0 and sampler is not None:
        settings = {"do_sample": False, "logits_processor": [_Drawn(sampler, len(asked))]}
    ends = sorted({end, base.tokenizer.eos_token_id or end})
    was_training = model.training
    model.eval()
    try:
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=end,
            **settings,
        )
    finally:
        model.train(was_training)
    answer = output[0, len(asked) :].tolist()
    return Reply(
        text=base.tokenizer.decode(answer, skip_special_tokens=True).strip(),
        prompt_tokens=len(asked),
        completion_tokens=len(answer),
        finished=bool(answer) and answer[-1] in ends,
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Leaves the likeliest-token search one choice: what the sampler drew from the plain logits."""

    sampler: Sampler
    asked: int

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        only = torch.full_like(scores, float("-inf"))
        for row, ids in enumerate(input_ids[:, self.asked :].tolist()):
            only[row, self.sampler(scores[row].float().cpu().numpy(), ids)] = 0.0
        return only
