"""The way of a question: policy, route, cache, engine, policy again; and what is noted about it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from client.gateway.access import DOOR, Access, Row
from client.gateway.answers import Answer, AnswerCache
from client.gateway.metrics import Metrics
from client.gateway.policy import Policy, Refused
from client.gateway.question import Busy, Engine, Failed, Part, Question, Unservable
from client.gateway.routing import Rollback, Routes
from configs.serving import Serving

Record = Callable[..., Mapping[str, Any]]  # see `text_marking.record`

_log = logging.getLogger("privity.serving")


class Draining(Exception):
    """The service is about to stop and takes no more questions."""


@dataclass(slots=True)
class _Course:
    """How far a question has come."""

    began: float
    model: str
    prompt_tokens: int = 0
    tokens: int = 0
    texts: list[str] = field(default_factory=list, repr=False)
    outcome: str = "cancelled"


class Service:
    """Everything between the web and the engine; knows nothing of HTTP."""

    def __init__(
        self,
        engine: Engine,
        settings: Serving,
        *,
        stable: str,
        policy: Policy,
        on_rollback: Callable[[Rollback], None] = lambda rollback: None,
        record: Record | None = None,
        labels: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Set up.

        Args:
            engine: what answers.
            settings: of the institution.
            stable: the release that is served; also what its users ask for by name.
            policy: on identifiers.
            on_rollback: told when the trial is rolled back.
            record: signs what is known of an answer; None signs nothing.
            labels: of the releases that were trained to choose among labels, by their names.
        """
        self._labels = dict(labels or {})
        self._record = record
        self.engine, self.settings, self.policy = engine, settings, policy
        self._told = on_rollback
        self.draining = False
        self.open = 0
        self.access = Access()
        self.cache = AnswerCache(entries=settings.cache.entries, seconds=settings.cache.seconds)
        self.routes = Routes(self._models(stable), settings.trial, on_rollback=self._rolled_back)
        self.metrics = Metrics(
            engine.load,
            cached=lambda: len(self.cache),
            draining=lambda: self.draining,
            on_trial=self._on_trial,
        )

    def record(self, question: Question, answer: str) -> Mapping[str, Any] | None:
        """The signed record that goes with an answer: who gave it, and whether it is marked."""
        if self._record is None:
            return None
        # One of a few given answers is not written word by word, so nothing is marked.
        bound = question.choices or (self.labels(question.model) and not question.raw)
        return self._record(
            release=question.model,
            answer=answer,
            temperature=0.0 if bound else question.temperature,
        )

    def refused_at_the_door(self, code: str) -> None:
        """Count a request that never became a question."""
        self.metrics.refused_at_the_door(code)
        self.access.note(Row("unknown", self.routes.stable, DOOR, code.replace("_", "-")))

    def labels(self, model: str) -> tuple[str, ...]:
        """What a chat with this model is answered with one of; empty if it writes freely."""
        return self.settings.engine.labels or self._labels.get(model, ())

    def refresh(self, labels: Mapping[str, tuple[str, ...]]) -> None:
        """Take notice of releases that came or went; a trial that was rolled back stays so."""
        self._labels = dict(labels)
        self.routes.models = self._models(self.routes.stable)
        self.cache.clear()

    def route(self, asked: str, user: str) -> str | None:
        """The release that will answer; None if what is asked for is not served."""
        return self.routes.pick(asked, user)

    async def answer(self, question: Question, *, user: str) -> AsyncGenerator[Part, None]:
        """Answer a question whose model `route` gave.

        Raises:
            Draining, Busy, Refused, Unservable: before the first part. Failed: at any time.
        """
        if self.draining:
            raise Draining
        course = _Course(time.monotonic(), question.model)
        self.open += 1
        try:
            if not question.choices and not question.raw:
                question = replace(question, choices=self.labels(question.model))
            messages = await self.policy.ask(question.messages, person=user)
            question = replace(question, messages=messages)
            async with aclosing(self._parts(question, user, course)) as parts:
                async for part in parts:
                    yield part
        except (Refused, Unservable):
            course.outcome = "refused"
            raise
        except Busy:
            course.outcome = "busy"
            raise
        except Failed:
            course.outcome = "failed"
            raise
        except Exception as error:  # its text may quote the question, so only its type is told
            course.outcome = "failed"
            _log.error("an answer failed with %s", type(error).__name__)
            raise Failed("internal") from None
        finally:
            self.open -= 1
            self._note(course)
            route = "completions" if question.raw else "chat"
            caller = user.partition("/")[0]
            self.access.note(Row(caller, course.model, route, course.outcome))

    async def _parts(
        self, question: Question, user: str, course: _Course
    ) -> AsyncGenerator[Part, None]:
        found = None
        if self.settings.cache.entries and question.repeatable:
            found = self.cache.find(user, question)
            self.metrics.looked_up(found=found is not None)
        if found is not None:
            course.outcome = "cached"
            yield Part(found.text, found.prompt_tokens, found.tokens, found.finish)
            return
        async with aclosing(self.engine.answer(question)) as parts:
            async for part in parts:
                if not course.texts and part.text:
                    self.metrics.first_text(course.model, time.monotonic() - course.began)
                course.prompt_tokens, course.tokens = part.prompt_tokens, part.tokens
                course.texts.append(part.text)
                if part.finish is not None:
                    yield await self._last(question, user, course, part)
                elif not self.policy.holds_answers:
                    yield part

    async def _last(self, question: Question, user: str, course: _Course, part: Part) -> Part:
        whole = "".join(course.texts)
        if self.policy.holds_answers:
            whole = await self.policy.answer(whole, person=user)
            part = replace(part, text=whole)
        if part.finish is not None:
            kept = Answer(whole, part.prompt_tokens, part.tokens, part.finish)
            self.cache.keep(user, question, kept)
        course.outcome = "answered"
        return part

    def _note(self, course: _Course) -> None:
        seconds = time.monotonic() - course.began
        self.metrics.ended(
            course.model,
            course.outcome,
            seconds=seconds,
            prompt_tokens=course.prompt_tokens,
            tokens=course.tokens,
        )
        if course.outcome in ("answered", "failed"):
            fault = course.outcome == "failed"
            self.routes.note(course.model, fault=fault, seconds=seconds)

    def _models(self, stable: str) -> tuple[str, ...]:
        return (stable, *(name for name in self.engine.models if name != stable))

    def _rolled_back(self, rollback: Rollback) -> None:
        self.metrics.rolled_back(rollback.reason)
        self._told(rollback)

    def _on_trial(self) -> dict[str, float]:
        candidate = self.settings.trial.candidate
        if not candidate:
            return {}
        return {candidate: float(self.routes.candidate is not None)}
