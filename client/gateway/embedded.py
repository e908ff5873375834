"""The embedded engine: one thread that owns the batch, and questions that wait for a place."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from client.gateway.question import Busy, Failed, Load, Part, Question, Unservable
from model import prompts, scoring
from model.batching import Ask, Batch, Sampler
from model.errors import ModelError
from model.labels import Labels
from model.shelf import Shelf

BASE: Final = "base"
_LONG: Final = 4000  # characters; tokenising more would hold up the other answers
_log = logging.getLogger("privity.serving")
T = TypeVar("T")
Sampling = Callable[[Question], Sampler | None]


@dataclass(slots=True)
class _Job:
    """One question on its way through the thread."""

    number: int
    ask: Ask
    deliver: Callable[[Part | Exception], None]
    labels: Labels | None = field(default=None, repr=False)


class EmbeddedEngine:
    """Answers from a `Batch`, in the order in which questions came.

    At most `rows` of the batch are answered and `waiting` more wait; others are turned away.
    """

    def __init__(
        self,
        batch: Batch,
        base: Any,
        *,
        waiting: int,
        model: Any = None,
        sampling: Sampling = lambda question: None,
    ) -> None:
        """Start the thread.

        Args:
            batch: nobody else touches it from now on.
            base: the `Base` whose tokenizer and chat format are used.
            waiting: questions that may wait for a place.
            model: what scores labels; None is the base's own model.
            sampling: gives a question's own way of choosing tokens, such as a watermark.
        """
        self._batch, self._base = batch, base
        self._model = base.model if model is None else model
        self._most, self._sampling = waiting, sampling
        self._numbers = itertools.count()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._running: dict[int, _Job] = {}
        self._held = 0  # questions that were taken and have not ended, seen from outside
        self._trees: dict[tuple[str, ...], Labels] = {}
        self._ended: deque[float] = deque(maxlen=32)
        self._lock = threading.Lock()
        self._stopped = False
        self.hidden: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._work, name="privity-engine", daemon=True)
        self._thread.start()

    @property
    def models(self) -> tuple[str, ...]:
        """The releases on the shelf that are not about to leave it, and the base model."""
        return (*(name for name in self.shelf.names if name not in self.hidden), BASE)

    @property
    def shelf(self) -> Shelf:
        """The adapters; to be changed through `change` only."""
        return self._batch.shelf

    def load(self) -> Load:
        """How busy the batch is."""
        full = self._held >= self._most + self._batch.rows or self._stopped
        patience = self._patience() if full else 0
        return Load(len(self._running), len(self._waiting), self._batch.held, patience)

    async def answer(self, question: Question) -> AsyncGenerator[Part, None]:
        """Answer a question; see `question.Engine`."""
        ask, labels = await self._prepare(question)
        with self._lock:
            if patience := self.load().patience:
                raise Busy(patience)
            self._held += 1
        loop = asyncio.get_running_loop()
        parts: asyncio.Queue[Part | Exception] = asyncio.Queue()

        def deliver(part: Part | Exception) -> None:
            # The loop may be gone if the service ends while an answer is written.
            if not loop.is_closed():
                loop.call_soon_threadsafe(parts.put_nowait, part)

        job = _Job(next(self._numbers), ask, deliver, labels)
        self._inbox.put(lambda: self._enter(job))
        ended = False
        try:
            while not ended:
                part = await parts.get()
                ended = isinstance(part, Exception) or part.finish is not None
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            with self._lock:
                self._held -= 1
            if not ended:
                self._inbox.put(lambda: self._cancel(job.number))

    async def change(self, change: Callable[[], None]) -> None:
        """Do something to the batch or its shelf between two tokens, such as putting an adapter.

        Raises:
            whatever `change` raises.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(fault: Exception | None) -> None:
            if not done.done():
                done.set_exception(fault) if fault else done.set_result(None)

        def act() -> None:
            fault = None
            try:
                change()
            except Exception as met:
                fault = met
            loop.call_soon_threadsafe(settle, fault)

        self._inbox.put(act)
        await done

    def read(self, releases: Sequence[Path], read: Callable[[Path, Any], T]) -> list[T]:
        """Read releases for the base model that is loaded."""
        return [read(release, self._base) for release in releases]

    async def remove(self, name: str) -> None:
        """Take a release off the shelf once nobody is being answered by it."""
        gone = False

        def try_once() -> None:
            nonlocal gone
            waits = any(job.ask.adapter == name for job in self._waiting)
            if not waits and not self._batch.uses(name):
                self._batch.shelf.remove(name)
                gone = True

        while not gone:
            await self.change(try_once)
            if not gone:
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Stop the thread; questions that are still being answered fail."""
        self._stopped = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join, 30)

    async def _prepare(self, question: Question) -> tuple[Ask, Labels | None]:
        size = sum(len(message["content"]) for message in question.messages)
        if size > _LONG:
            return await asyncio.to_thread(self._tokens, question)
        return self._tokens(question)

    def _tokens(self, question: Question) -> tuple[Ask, Labels | None]:
        try:
            if question.raw:
                text = question.messages[0]["content"]
                ids = tuple(self._base.tokenizer(text)["input_ids"])
            else:
                # Not shortened: an answer to half a conversation would look like one to all of it.
                ids = prompts.conversation(self._base, question.messages, max_tokens=1 << 30)
            labels = self._tree(question.choices) if question.choices else None
            room = max(map(len, labels.answers)) if labels else question.max_new_tokens
            ask = Ask(
                ids,
                room,
                question.temperature,
                question.top_p,
                question.stops,
                None if question.model == BASE else question.model,
                self._sampling(question),
                question.raw,
            )
            self._batch.check(ask)
        except ModelError as error:
            raise Unservable(error.code) from None
        return ask, labels

    def _tree(self, choices: tuple[str, ...]) -> Labels:
        tree = self._trees.get(choices)
        if tree is None:
            tree = Labels.of(self._base, choices)
            if len(self._trees) >= 64:  # lists of labels are few; those of a prankster are not kept
                self._trees.clear()
            self._trees[choices] = tree
        return tree

    def _patience(self) -> int:
        """Seconds until a place is likely to be free, from how fast answers ended lately."""
        if len(self._ended) < 2:
            return 1
        pace = (self._ended[-1] - self._ended[0]) / (len(self._ended) - 1)
        return min(60, max(1, math.ceil(pace * max(1, len(self._waiting)))))

    # Everything below runs in the thread.

    def _work(self) -> None:
        while self._take():
            try:
                self._turn()
            except Exception as error:  # its text may quote a question, so only its type is told
                _log.error("the engine failed with %s", type(error).__name__)
                for job in (*self._running.values(), *self._waiting):
                    self._batch.evict(job.number)
                    job.deliver(Failed("internal"))
                self._running.clear()
                self._waiting.clear()
        for job in (*self._running.values(), *self._waiting):
            job.deliver(Failed("stopped"))

    def _take(self) -> bool:
        """Do what came in; wait for something if there is nothing else to do."""
        while True:
            idle = not self._running and not self._waiting
            try:
                act = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if act is None:
                return False
            act()

    def _enter(self, job: _Job) -> None:
        """Let a question wait; its release may have left since it was checked."""
        try:
            self._batch.check(job.ask)
        except ModelError as error:
            job.deliver(Unservable(error.code))
        else:
            self._waiting.append(job)

    def _turn(self) -> None:
        while self._waiting:
            job = self._waiting[0]
            if job.labels is not None:
                self._decide()
            elif self._batch.has_room(job.ask):
                self._batch.admit(job.number, job.ask)
                self._running[job.number] = self._waiting.popleft()
            else:
                break
        for piece in self._batch.step():
            job = self._running[int(str(piece.key))]
            if piece.text or piece.finish:
                job.deliver(Part(piece.text, len(job.ask.ids), piece.tokens, piece.finish))
            if piece.finish:
                self._ended.append(time.monotonic())
                del self._running[job.number]

    def _decide(self) -> None:
        """Choose the labels of the questions at the head of the queue that share their labels."""
        labels = self._waiting[0].labels
        assert labels is not None  # noqa: S101 - for the type checker
        jobs: list[_Job] = []
        width = 0
        while self._waiting and self._waiting[0].labels is labels and len(jobs) < self._batch.rows:
            wide = max(width, len(self._waiting[0].ask.ids) + len(labels.nodes))
            if jobs and (len(jobs) + 1) * wide > self._batch.prefill:
                break
            width = wide
            jobs.append(self._waiting.popleft())
        self._choose(jobs, labels)

    def _choose(self, jobs: Sequence[_Job], labels: Labels) -> None:
        try:
            self._batch.shelf.select([job.ask.adapter for job in jobs])
            best = scoring.choice(self._model, [job.ask.ids for job in jobs], labels)
        except Exception as error:
            _log.error("a choice failed with %s", type(error).__name__)
            for job in jobs:
                job.deliver(Failed("internal"))
            return
        for job, label in zip(jobs, best, strict=True):
            self._ended.append(time.monotonic())
            tokens = len(labels.answers[label])
            job.deliver(Part(labels.texts[label], len(job.ask.ids), tokens, "stop"))

    def _cancel(self, number: int) -> None:
        self._batch.evict(number)
        self._running.pop(number, None)
        self._waiting = deque(job for job in self._waiting if job.number != number)
