"""Answers that are kept in memory, for the same question of the same user."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from client.gateway.question import Finish, Question


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str = field(repr=False)
    prompt_tokens: int
    tokens: int
    finish: Finish


class AnswerCache:
    """The newest answers, at most `entries`, each for at most `seconds`.

    Only questions that have one answer are kept (temperature 0), and nobody is told from another's:
    how fast an answer comes would say that somebody else had asked. Questions are held as digests.
    """

    def __init__(
        self, *, entries: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries, self._seconds, self._clock = entries, seconds, clock
        self._held: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def find(self, user: str, question: Question) -> Answer | None:
        """The answer that this user got to this question before, if it is still kept."""
        if not question.repeatable:
            return None
        key = _key(user, question)
        found = self._held.get(key)
        if found is None:
            return None
        until, answer = found
        if not self._clock() < until:
            del self._held[key]
            return None
        self._held.move_to_end(key)
        return answer

    def keep(self, user: str, question: Question, answer: Answer) -> None:
        """Keep an answer; the one that was not asked for the longest makes room."""
        if not question.repeatable or not self._entries:
            return
        key = _key(user, question)
        self._held[key] = (self._clock() + self._seconds, answer)
        self._held.move_to_end(key)
        while len(self._held) > self._entries:
            self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, as when a release is replaced."""
        self._held.clear()


def _key(user: str, question: Question) -> bytes:
    parts = [
        user,
        question.model,
        [[message["role"], message["content"]] for message in question.messages],
        question.max_new_tokens,
        list(question.stops),
        list(question.choices),
        question.raw,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).digest()
