"""From an instruction and its response to tokens, and from tokens to one loss a sequence."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model import forward, head, template
from model.errors import ModelError
from model.recompute import recomputed

if TYPE_CHECKING:
    from model.labels import Labels


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


@dataclass(frozen=True, slots=True)
class Pack:
    """Notes of one person in one sequence, none of which sees another.

    Attributes:
        notes: at least one; their order has no effect.
    """

    notes: tuple[Example, ...] = field(repr=False)

    @property
    def tokens(self) -> int:
        """Length of the whole sequence."""
        return sum(note.tokens for note in self.notes)


def pack(notes: Sequence[Example], *, max_tokens: int) -> Pack:
    """Pack the first note, and of the others in turn those that still fit.

    Args:
        notes: of one person, at least one, in an order that was drawn at random.
        max_tokens: the pack has at most this many, unless its first note alone has more.
    """
    kept, room = [notes[0]], max_tokens - notes[0].tokens
    for note in notes[1:]:
        if note.tokens <= room:
            kept.append(note)
            room -= note.tokens
    return Pack(tuple(kept))


def made_up(model: Any, *, tokens: int, number: int, labels: Labels | None = None) -> Example:
    """An example of this length with no meaning, out of the model's vocabulary; no record is used.

    Args:
        model: causal language model, with or without an adapter.
        tokens: length, at least 2.
        number: which one; others have other tokens and another response.
        labels: the response is one of these, the longest of which is shorter than `tokens`.
    """
    vocabulary = forward.bare(model).get_input_embeddings().num_embeddings
    draws = random.Random(number)  # noqa: S311 - for looks only
    ids = tuple(draws.randrange(vocabulary) for _ in range(tokens))
    if labels is None:
        return Example(ids, prompt_tokens=draws.randrange(1, tokens))
    answer = draws.choice(labels.answers)
    return Example((*ids[: tokens - len(answer)], *answer), tokens - len(answer))


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


def prompt(
    model: Any, instruction: str, *, max_tokens: int, thinking: bool = False
) -> tuple[int, ...]:
    """Tokens up to where the answer begins, with the instruction's middle cut out if need be.

    With `thinking`, up to where a thought begins.

    Raises:
        ModelError: max_tokens has no room for the chat format.
    """
    asked = [{"role": "user", "content": instruction}]
    return conversation(model, asked, max_tokens=max_tokens, thinking=thinking)


def answer(model: Any, response: str) -> tuple[int, ...]:
    """Tokens of a response, followed by the token that ends an answer."""
    tokenizer = _tokenizer(model)
    return (*template.tokens(tokenizer, response), end_token(tokenizer))


def end_token(model: Any) -> int:
    """The token that ends an answer."""
    return _frame(_tokenizer(model), ("user",)).end


def conversation(
    model: Any,
    messages: Sequence[Mapping[str, str]],
    *,
    max_tokens: int,
    thinking: bool = False,
) -> tuple[int, ...]:
    """Tokens of a conversation up to where the next answer begins.

    Args:
        model: a `Base` or its tokenizer.
        messages: `{"role", "content"}`; an optional `system` first, then `user` and
            `assistant` in turn, the last one `user`. A system message that the model's format
            has no place for is put before the first user message.
        max_tokens: the longest user message loses its middle until everything fits.
        thinking: end in an open thought.

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
    frame = _frame(tokenizer, roles, thinking=thinking)
    texts = [template.tokens(tokenizer, content) for content in contents]
    excess = sum(map(len, [*frame.pieces, *texts])) - max_tokens
    if excess > 0:
        longest = max(range(len(texts)), key=lambda i: (roles[i] == "user", len(texts[i])))
        texts[longest] = _cut_middle(texts[longest], excess)
    ids = list(frame.pieces[0])
    for text, piece in zip(texts, frame.pieces[1:], strict=True):
        ids += [*text, *piece]
    return tuple(ids)


def loss(
    model: Any,
    items: Sequence[Example | Pack],
    width: int | None = None,
    *,
    labels: Labels | None = None,
    smoothing: float = 0.0,
    recompute: bool = False,
) -> Tensor:
    """Mean cross-entropy of each item over its own labels; of a pack, the mean of its notes' means.

    One item's loss depends on no other item: not through averaging (each is divided by its own
    number of labels) and not through padding (it follows the last label, where a causal model does
    not look). Labels are told by position, never by token, since the padding token may be the end
    token. The arithmetic is that of `len(items)` and `width` alone: other items in the same number
    and width change no bit of an item's loss or gradient, as far as the machine treats the rows of
    a product alike.

    Args:
        model: causal language model, with or without an adapter.
        items: at least one; all examples or all packs, since packs are computed with a mask.
        width: what all are padded to; None is the longest.
        labels: every response is one of these, and a note's loss is minus the logarithm of its
            probability among them: the choice is learnt and not the words. None is any text.
        smoothing: share of a label's probability that is wanted evenly on all that could stand
            there: all tokens, or given `labels` those that go on to one of them.
        recompute: compute each layer again in the backward pass, which then must be
            `Tensor.backward`, to hold less in between.

    Returns:
        Shape (len(items),), in nats: per token of a response, or per response given `labels`.

    Raises:
        ModelError: an item is longer than `width`, or its response is none of `labels`.
    """
    longest = max(item.tokens for item in items)
    if width is None:
        width = longest
    if not longest <= width:
        raise ModelError(
            f"a sequence of {longest} tokens does not fit the width of {width}; raise the width",
            code="too-long",
        )
    groups = [item.notes if isinstance(item, Pack) else (item,) for item in items]
    spans = [span for row, notes in enumerate(groups) for span in _spans(row, notes, labels)]
    return summed(
        model, groups, spans, width, labels=labels, smoothing=smoothing, recompute=recompute,
        apart=any(isinstance(item, Pack) for item in items),
    )  # fmt: skip


def summed(
    model: Any,
    groups: Sequence[Sequence[Example]],
    spans: Sequence[tuple[int, int, float]],
    width: int,
    *,
    labels: Labels | None = None,
    smoothing: float = 0.0,
    recompute: bool = False,
    apart: bool = True,
) -> Tensor:
    """Sum cross-entropies of chosen tokens over each row, with a factor each.

    Args:
        model: as for `loss`.
        groups: the examples of each row, at least one.
        spans: (row, column, factor) of each token whose cross-entropy counts.
        width: what rows are padded to; none is longer.
        labels: as for `loss`.
        smoothing: as for `loss`.
        recompute: as for `loss`.
        apart: whether the examples of a row do not see each other; needed where there are several.

    Returns:
        Shape (len(groups),), in nats.
    """
    device = forward.device_of(model)
    ids = forward.pad([_joined(notes) for notes in groups], device=device, width=width)
    rows, columns = torch.tensor([span[:2] for span in spans], device=device).T
    shares = torch.tensor([span[2] for span in spans], device=device)
    mask = positions = None
    if apart:
        mask, positions = _apart(groups, width, like=next(iter(model.parameters())))
    with recomputed(model) if recompute else nullcontext():
        hidden = forward.hidden_at(model, ids, rows, columns - 1, mask=mask, positions=positions)
    choices = None
    if labels is not None:
        answers = [note.ids[note.prompt_tokens :] for notes in groups for note in notes]
        choices = [tokens for answer in answers for tokens in labels.choices(answer)]
    losses = head.cross_entropy(model, hidden, ids[rows, columns], choices, smoothing)
    return losses.new_zeros(len(groups)).index_add(0, rows, losses * shares)


def _joined(notes: Sequence[Example]) -> tuple[int, ...]:
    return tuple(token for note in notes for token in note.ids)


def _spans(
    row: int, notes: Sequence[Example], labels: Labels | None
) -> Iterator[tuple[int, int, float]]:
    """Row, column and share of the row's loss of every token of a response."""
    start = 0
    for note in notes:
        terms = note.tokens - note.prompt_tokens if labels is None else 1
        share = 1.0 / (len(notes) * terms)
        for at in range(note.prompt_tokens, note.tokens):
            yield row, start + at, share
        start += note.tokens


def _apart(
    groups: Sequence[Sequence[Example]], width: int, *, like: Tensor
) -> tuple[Tensor, Tensor]:
    """The mask under which notes of one row do not see each other, and positions from zero each.

    Padding counts as one more note, so that no row of the mask is empty.
    """
    owners, places = [], []
    for notes in groups:
        lengths = [note.tokens for note in notes]
        lengths.append(width - sum(lengths))
        owners.append([number for number, length in enumerate(lengths) for _ in range(length)])
        places.append([at for length in lengths for at in range(length)])
    owner = torch.tensor(owners, device=like.device)
    seen = (owner[:, :, None] == owner[:, None, :]).tril()
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    mask.masked_fill_(~seen, torch.finfo(like.dtype).min)
    return mask[:, None], torch.tensor(places, device=like.device)


def _frame(tokenizer: Any, roles: tuple[str, ...], *, thinking: bool = False) -> template.Frame:
    frame = template.frame(tokenizer, roles, thinking=thinking)
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
