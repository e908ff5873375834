"""What is asked and what is answered, between the service and whatever engine answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Question:
    """One request as an engine sees it.

    Attributes:
        model: the release that answers, or "base".
        messages: the conversation, each with "role" and "content"; never shown.
        max_new_tokens: the answer has at most this many.
        temperature: 0 takes the likeliest token each time.
        top_p: sample among the likeliest tokens that together have this probability.
        stops: the answer ends before the first of these.
        choices: if given, the answer is one of these.
        raw: the one message is a text to continue, without the chat format.
    """

    model: str
    messages: tuple[Mapping[str, str], ...] = field(repr=False)
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stops: tuple[str, ...] = field(default=(), repr=False)
    choices: tuple[str, ...] = field(default=(), repr=False)
    raw: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether the same question has the same answer."""
        return self.temperature == 0


@dataclass(frozen=True, slots=True)
class Part:
    """What came of an answer since the part before.

    Attributes:
        text: more of the answer; may be empty.
        prompt_tokens: tokens of the question.
        tokens: of the answer so far.
        finish: why the answer ended, in its last part only.
    """

    text: str = field(repr=False)
    prompt_tokens: int
    tokens: int
    finish: Finish | None = None


class Unservable(ValueError):
    """A question that this engine cannot answer; `code` says why and quotes nothing."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Busy(Exception):
    """The engine's queue is full; worth another try after `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__("busy")
        self.seconds = seconds


class Failed(Exception):
    """The engine failed on a question that it took; `code` quotes nothing."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is.

    Attributes:
        running: questions that are being answered.
        waiting: questions that wait for a place.
        cache_bytes: memory for keys and values.
        patience: 0 if another question would be taken, else seconds until one may be.
    """

    running: int = 0
    waiting: int = 0
    cache_bytes: int = 0
    patience: int = 0


class Engine(Protocol):
    """What answers: the embedded model, another engine, or a stand-in in tests."""

    @property
    def models(self) -> tuple[str, ...]:
        """What can be asked for."""

    def answer(self, question: Question) -> AsyncGenerator[Part, None]:
        """Answer a question; closing the iterator early frees its place at once.

        Raises:
            Unservable, Busy: before the first part. Failed: at any time.
        """

    def load(self) -> Load:
        """How busy it is now."""

    async def close(self) -> None:
        """Answer nobody any more and free what is held."""
