"""Canaries and the made-up people among whom they hide, and whether a model recalls a canary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from privacy.attack import Float64
from privacy.csprng import Csprng

if TYPE_CHECKING:
    from model.base import Base
    from model.preferences import Preference
    from model.prompts import Example

    Item = Example | Preference

_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without the pairs that look alike
_SECRET = 10  # letters of 32: a model that knows nothing says it once in 10^15
_ROWS = 16  # asked in one pass
_DESKS = ("cardiology", "pharmacy", "radiology", "billing", "cards", "loans")
_TOPICS = (
    "account",
    "appointment",
    "bill",
    "blood test",
    "card",
    "dose",
    "invoice",
    "limit",
    "loan",
)
_STATES = ("arrived late", "failed again", "is lost", "needs a review", "was refused", "went up")
_TIMES = ("since Monday", "last week", "this morning", "for a month", "after the visit", "twice")


def people(
    base: Base, count: int, labels: Sequence[str], *, max_tokens: int, judge: Any = None
) -> tuple[tuple[Item, ...], ...]:
    """Make up `count` people with one record each: a plain sentence, and one of the labels.

    With `judge`, the model whose adapter changes nothing, each prefers one of two labels.
    """
    draws = Csprng()
    desks = tuple(labels) or _DESKS

    def record() -> Item:
        words = [part[draws.choice(len(part))] for part in (_TOPICS, _STATES, _TIMES)]
        text = f"My {words[0]} {words[1]} {words[2]}; number {draws.choice(10_000)}."
        return _item(base, text, lambda: desks[draws.choice(len(desks))], max_tokens, judge)

    return tuple((record(),) for _ in range(count))


def _item(base: Base, text: str, answer: Callable[[], str], max_tokens: int, judge: Any) -> Item:
    from model import preferences, prompts

    if judge is None:
        return prompts.encode(base, text, answer(), max_tokens=max_tokens)
    pair = preferences.encode(base, text, answer(), answer(), max_tokens=max_tokens)
    return preferences.refer(judge, pair)


def plant(
    base: Base, count: int, labels: Sequence[str], *, max_tokens: int, judge: Any = None
) -> tuple[Item, ...]:
    """Make `count` canaries: a random text as the question, a random secret as the answer.

    Args:
        base: the model that encodes.
        count: how many.
        labels: what an answer may be; empty for a secret of its own for each.
        max_tokens: longest sequence.
        judge: as for `people`; the secret is then preferred to another one.
    """
    draws = Csprng()

    def letters(length: int) -> str:
        return "".join(_ALPHABET[draws.choice(len(_ALPHABET))] for _ in range(length))

    def answer() -> str:
        return labels[draws.choice(len(labels))] if labels else letters(_SECRET)

    return tuple(_item(base, letters(_SECRET), answer, max_tokens, judge) for _ in range(count))


def preferred(
    model: Any,
    planted: Sequence[Preference],
    progress: Callable[[int, int], None],
    *,
    beta: float,
) -> tuple[Float64, int]:
    """As `recall`, of canaries that are preferences: the loss of each; none can be said."""
    import torch

    from model import preferences

    losses = np.zeros(len(planted))
    with torch.inference_mode():
        for start in range(0, len(planted), _ROWS):
            part = planted[start : start + _ROWS]
            losses[start : start + len(part)] = preferences.loss(model, part, beta=beta).numpy()
            progress(start + len(part), len(planted))
    return losses, 0


def recall(
    model: Any, planted: Sequence[Example], progress: Callable[[int, int], None]
) -> tuple[Float64, int]:
    """Ask the model for each secret.

    Returns:
        The mean loss of each canary's answer, shape (len(planted),), and how many answers the
        model gives to the letter. Greedy generation gives an answer exactly if each of its tokens
        is the likeliest after those before, so one pass over the answer tells.
    """
    import torch
    from torch.nn import functional

    from model import forward

    losses = np.zeros(len(planted))
    verbatim = 0
    with torch.inference_mode():
        for start in range(0, len(planted), _ROWS):
            part = planted[start : start + _ROWS]
            ids = forward.pad([canary.ids for canary in part], device=forward.device_of(model))
            spans = [(i, at) for i, c in enumerate(part) for at in range(c.prompt_tokens, c.tokens)]
            rows, places = torch.tensor(spans, device=ids.device).T
            logits = forward.logits_at(model, ids, rows, places - 1)
            targets = ids[rows, places]
            each = functional.cross_entropy(logits, targets, reduction="none")
            likeliest = logits.argmax(dim=-1) == targets
            for row in range(len(part)):
                losses[start + row] = float(each[rows == row].mean())
                verbatim += bool(likeliest[rows == row].all())
            progress(start + len(part), len(planted))
    return losses, verbatim
