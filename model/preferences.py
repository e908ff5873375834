"""Which of two answers is better: direct preference optimisation (DPO; Rafailov and others, 2023).

Both answers of a person stand in one row and do not see each other, so the whole loss of a
preference, and its gradient, is one person's, like that of any other example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model import prompts
from model.errors import ModelError
from model.prompts import Example


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one question, and how the base model takes them.

    Attributes:
        chosen: the better one, with its prompt.
        rejected: the other, with the same prompt.
        reference: log-probability of the chosen answer less that of the rejected one, in nats,
            under the base model; from `refer`.
    """

    chosen: Example
    rejected: Example
    reference: float = field(default=0.0, repr=False)

    @property
    def tokens(self) -> int:
        """Length of the row with both."""
        return self.chosen.tokens + self.rejected.tokens


def encode(
    model: Any, instruction: str, chosen: str, rejected: str, *, max_tokens: int
) -> Preference:
    """Tokenise a question with two answers; both together have at most `max_tokens`.

    Guarantees: the prompt of both is the same, cut to leave room for the longer answer.

    Raises:
        ModelError: half of max_tokens has no room for the chat format and an answer.
    """
    each = max_tokens // 2
    answers = [prompts.answer(model, text) for text in (chosen, rejected)]
    longer = chosen if len(answers[0]) >= len(answers[1]) else rejected
    whole = prompts.encode(model, instruction, longer, max_tokens=each)
    asked = whole.ids[: whole.prompt_tokens]
    first, second = (
        Example((*asked, *answer[: each - len(asked)]), len(asked)) for answer in answers
    )
    return Preference(first, second)


def made_up(model: Any, *, tokens: int, number: int) -> Preference:
    """A preference of this length, at least 4, with no meaning; no record is used.

    Its reference is how `model` takes it now, for far from that the gradient of the loss vanishes.
    """
    half = tokens // 2
    item = Preference(
        prompts.made_up(model, tokens=half, number=2 * number),
        prompts.made_up(model, tokens=tokens - half, number=2 * number + 1),
    )
    return refer(model, item)


def loss(
    model: Any,
    items: Sequence[Preference],
    width: int | None = None,
    *,
    beta: float,
    recompute: bool = False,
) -> Tensor:
    """Minus the log-probability that each chosen answer is preferred, by the model against base.

    Args:
        model: causal language model, with or without an adapter.
        items: at least one, each with its reference.
        width: what all are padded to; None is the longest.
        beta: how much the model's margin over the base's counts, over 0.
        recompute: as for `prompts.loss`.

    Returns:
        Shape (len(items),), in nats; log 2 where the model takes both as the base does. One item's
        loss depends on no other item, as in `prompts.loss`.

    Raises:
        ModelError: an item is longer than `width`.
    """
    references = torch.tensor([item.reference for item in items])
    margins = _margins(model, items, width, recompute=recompute)
    return functional.softplus(-beta * (margins - references.to(margins)))


def refer(model: Any, item: Preference) -> Preference:
    """The preference with its reference, as `model` takes it now: the base, or a fresh adapter.

    Computed of this item alone, so that it is the person's like the rest of the item.
    """
    with torch.no_grad():
        return replace(item, reference=float(_margins(model, [item], None)[0]))


def _margins(
    model: Any, items: Sequence[Preference], width: int | None, *, recompute: bool = False
) -> Tensor:
    """Log-probability of each chosen answer less that of the rejected one."""
    longest = max(item.tokens for item in items)
    if width is None:
        width = longest
    if not longest <= width:
        raise ModelError(
            f"two answers of {longest} tokens do not fit the width of {width}; raise the width",
            code="too-long",
        )
    spans = []
    for row, item in enumerate(items):
        start = 0
        for note, factor in ((item.chosen, -1.0), (item.rejected, 1.0)):
            places = range(start + note.prompt_tokens, start + note.tokens)
            spans += [(row, at, factor) for at in places]
            start += note.tokens
    groups = [(item.chosen, item.rejected) for item in items]
    return prompts.summed(model, groups, spans, width, recompute=recompute)
