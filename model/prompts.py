"""From an instruction and its response to tokens, and from tokens to one loss a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model import forward, template
from model.errors import ModelError

# Label positions whose logits are held at once; more are recomputed in the backward pass.
_HEAD_POSITIONS: Final = 1024


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence for training or scoring: a prompt and the response that follows it.

    Attributes:
        ids: tokens of prompt, response and end token; never shown.
        prompt_tokens: how many of them are prompt; the others are the labels, at least one.
    """

    ids: tuple[int, ...] = field(repr=False)
    prompt_tokens: int

    @property
    def tokens(self) -> int:
        """Length of the whole sequence."""
        return len(self.ids)


def encode(model: Any, instruction: str, response: str, *, max_tokens: int) -> Example:
    """Tokenise an instruction and its response in the model's own chat format.

    Args:
        model: a `Base` or its tokenizer.
        instruction: what is asked; its middle is cut out if the sequence would be too long.
        response: the answer to learn; cut at its end only if it is too long by itself.
        max_tokens: the sequence has at most this many.

    Guarantees: no system prompt that the user did not write; at least one label.

    Raises:
        ModelError: max_tokens has no room for the chat format and an answer.
    """
    tokenizer = _tokenizer(model)
    labels = answer(tokenizer, response)
    rigid = _rigid(tokenizer)
    labels = labels[: max(1, max_tokens - rigid)]
    asked = prompt(tokenizer, instruction, max_tokens=max_tokens - len(labels))
    return Example(ids=(*asked, *labels), prompt_tokens=len(asked))


def prompt(model: Any, instruction: str, *, max_tokens: int) -> tuple[int, ...]:
    """Tokens up to where the answer begins, with the instruction's middle cut out if need be.

    Raises:
        ModelError: max_tokens has no room for the chat format.
    """
    return conversation(model, [{"role": "user", "content": instruction}], max_tokens=max_tokens)


def answer(model: Any, response: str) -> tuple[int, ...]:
    """Tokens of a response, followed by the token that ends an answer."""
    tokenizer = _tokenizer(model)
    return (*template.tokens(tokenizer, response), end_token(tokenizer))


def end_token(model: Any) -> int:
    """The token that ends an answer."""
    return _frame(_tokenizer(model), ("user",)).end


def conversation(
    model: Any, messages: Sequence[Mapping[str, str]], *, max_tokens: int
) -> tuple[int, ...]:
    """Tokens of a conversation up to where the next answer begins.

    Args:
        model: a `Base` or its tokenizer.
        messages: `{"role", "content"}`; an optional `system` first, then `user` and
            `assistant` in turn, the last one `user`. A system message that the model's format
            has no place for is put before the first user message.
        max_tokens: the longest user message loses its middle until everything fits.

    Raises:
        ModelError: roles out of order, or no room.
    """
    tokenizer = _tokenizer(model)
    roles = tuple(str(message.get("role")) for message in messages)
    contents = [str(message.get("content") or "") for message in messages]
    turns = roles[1:] if roles[:1] == ("system",) else roles
    if len(turns) % 2 == 0 or turns != tuple(template.ROLES[1 + i % 2] for i in range(len(turns))):
        raise ModelError(
            "a conversation has an optional system message, then user and assistant in turn, and "
            "ends with the user; reorder its messages",
            code="bad-conversation",
        )
    if roles[0] == "system" and template.frame(tokenizer, roles) is None:
        roles, contents = roles[1:], [f"{contents[0]}\n\n{contents[1]}", *contents[2:]]
    frame = _frame(tokenizer, roles)
    texts = [template.tokens(tokenizer, content) for content in contents]
    excess = sum(map(len, [*frame.pieces, *texts])) - max_tokens
    if excess > 0:
        longest = max(range(len(texts)), key=lambda i: (roles[i] == "user", len(texts[i])))
        texts[longest] = _cut_middle(texts[longest], excess)
    ids = list(frame.pieces[0])
    for text, piece in zip(texts, frame.pieces[1:], strict=True):
        ids += [*text, *piece]
    return tuple(ids)


def loss(model: Any, examples: Sequence[Example]) -> Tensor:
    """Mean cross-entropy of each sequence over its own labels.

    One sequence's loss depends on no other sequence: not through averaging (each is divided by
    its own number of labels) and not through padding (it follows the last label, where a causal
    model does not look). Labels are told by position, never by token, since the padding token
    may be the end token.

    Args:
        model: causal language model, with or without an adapter.
        examples: at least one.

    Returns:
        Shape (len(examples),), in nats per label.
    """
    device = forward.device_of(model)
    ids = forward.pad([example.ids for example in examples], device=device)
    spans = [(row, at) for row, e in enumerate(examples) for at in range(e.prompt_tokens, e.tokens)]
    rows, labels = torch.tensor(spans, device=device).T
    hidden = forward.hidden_at(model, ids, rows, labels - 1)
    targets = ids[rows, labels]
    if len(spans) <= _HEAD_POSITIONS or not hidden.requires_grad:
        losses = _cross_entropy(model, hidden, targets)
    else:
        losses = torch.cat(
            [
                checkpoint(_cross_entropy, model, part, wanted, use_reentrant=False)
                for part, wanted in zip(
                    hidden.split(_HEAD_POSITIONS), targets.split(_HEAD_POSITIONS), strict=True
                )
            ]
        )
    counts = torch.bincount(rows, minlength=len(examples))
    return losses.new_zeros(len(examples)).index_add(0, rows, losses) / counts


def _cross_entropy(model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = forward.head(model, hidden).float()
    return functional.cross_entropy(logits, targets, reduction="none")


def _frame(tokenizer: Any, roles: tuple[str, ...]) -> template.Frame:
    frame = template.frame(tokenizer, roles)
    if frame is None:
        raise ModelError(
            "the model's chat template does not take a user's message; use another model or "
            "correct its chat_template",
            code="bad-template",
        )
    return frame


def _rigid(tokenizer: Any) -> int:
    return sum(map(len, _frame(tokenizer, ("user",)).pieces))


def _cut_middle(ids: tuple[int, ...], excess: int) -> tuple[int, ...]:
    keep = len(ids) - excess
    if keep < 0:
        raise ModelError(
            "the sequence limit has no room for the model's chat format and the other messages; "
            "raise max_tokens",
            code="too-few-tokens",
        )
    head = (keep + 1) // 2
    return ids[:head] + ids[len(ids) - (keep - head) :]


def _tokenizer(model: Any) -> Any:
    return getattr(model, "tokenizer", model)
