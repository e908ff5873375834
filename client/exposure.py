"""How much of planted secrets a model gives away: their exposure.

Whoever wants to know plants canaries before training: records of made-up persons, each with a
secret as its answer whose letters and digits are random. If nothing of them is remembered, a secret
is as likely as any other of its form, and its rank among them is random.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from client.errors import ClientError

if TYPE_CHECKING:
    from client.released import Released

OTHERS: Final = 127
"""Secrets of the same form to compare with: an exposure is at most 7 bits."""
MOST: Final = 32
_CHANCES: Final = 6  # random characters of a secret; with fewer, others would often be the same
_LETTERS: Final = (string.ascii_lowercase, string.ascii_uppercase, string.digits)


def planted(given: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Check that answers can be secrets.

    Raises:
        ClientError: an answer has too few letters and digits, or there are too many canaries.
    """
    if len(given) > MOST:
        raise ClientError(f"give at most {MOST} canaries", code="bad-canary")
    for number, (_, secret) in enumerate(given, start=1):
        if sum(any(c in letters for letters in _LETTERS) for c in secret) < _CHANCES:
            raise ClientError(
                f"the answer of canary {number} has fewer than {_CHANCES} letters and digits; a "
                "secret is random, such as K7Q2M9XW41",
                code="bad-canary",
            )
    return tuple(given)


def others(secret: str, number: int) -> tuple[str, ...]:
    """Secrets of the same form: other small letters, capitals and digits in the same places."""
    draws = random.Random(f"privity exposure {number}")  # noqa: S311 - the secret is what is random
    return tuple("".join(_other(c, draws) for c in secret) for _ in range(OTHERS))


def measure(
    one: Released,
    model: Any,
    canaries: Sequence[tuple[str, str]],
    progress: Callable[[int, int], None],
) -> tuple[float, ...]:
    """The exposure of each canary in bits; 1.4 on average where nothing is remembered."""
    from model import figures, scoring

    found = []
    for number, (ask, secret) in enumerate(canaries):
        rows = [(ask, text) for text in (secret, *others(secret, number))]
        losses = scoring.losses(model, one.base, rows)
        found.append(figures.exposure(float(losses[0]), losses[1:]))
        progress(number + 1, len(canaries))
    return tuple(found)


def _other(character: str, draws: random.Random) -> str:
    for letters in _LETTERS:
        if character in letters:
            return draws.choice(letters)
    return character
