"""A large model's answers to public questions, and a small model that learns from them.

Nothing here is private: questions, answers and the student are public, no budget is charged, and
records of persons have no place in it.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional

from model import batching, forward, prompts
from model.base import Base
from model.errors import ModelError
from model.prompts import Example

Progress = Callable[[str, int, int], None]
_ASKED: Final = ("instruction", "prompt", "input", "question")
_MOST: Final = 16  # rows of a pass, in training and in scoring
_MOST_BYTES: Final = 1 << 20  # of a line


@dataclass(frozen=True, slots=True)
class Answers:
    """What the teacher said.

    Attributes:
        rows: (question, answer) in the order of the questions.
        left_out: why questions have no answer here, with how many.
    """

    rows: tuple[tuple[str, str], ...] = field(repr=False)
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class Lesson:
    """How a student learns; public numbers.

    Attributes:
        epochs: passes over the answers.
        learning_rate: of AdamW, falling to zero along a cosine.
        batch: answers in a step.
        max_tokens: longest sequence.
        logits: share of the loss that follows the teacher's probabilities instead of its words;
            over 0 only where both read the same tokens.
        temperature: probabilities are compared at.
        seed: of the order.
    """

    epochs: int = 3
    learning_rate: float = 1e-5
    batch: int = 16
    max_tokens: int = 512
    logits: float = 0.0
    temperature: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (
            self.epochs >= 1
            and 0 < self.learning_rate < 1
            and self.batch >= 1
            and self.max_tokens >= 16
            and 0 <= self.logits <= 1
            and 0 < self.temperature <= 100
        ):
            raise ModelError(
                "a lesson needs at least one epoch and one answer in a step, a learning rate "
                "between 0 and 1, and a share of logits from 0 to 1; correct the setting",
                code="bad-setting",
            )


def questions(path: Path) -> tuple[tuple[str, ...], str]:
    """Read public questions, each once, from JSON Lines.

    Args:
        path: each line an object with an "instruction", "prompt", "input" or "question".

    Returns:
        The questions in file order, and the file's digest.

    Raises:
        ModelError: no such file, or a line that is none; names its number and quotes nothing. Exit
            code 3 for a file in an institution's folder.
    """
    _check_public(path)
    try:
        data = path.read_bytes()
    except OSError:
        raise ModelError(f"{path} cannot be read; check the path", code="no-file") from None
    found: dict[str, None] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            if len(line) > _MOST_BYTES:
                raise ValueError
            row = json.loads(line)
            text = next(row[name] for name in _ASKED if isinstance(row.get(name), str))
            text.encode()  # JSON can spell half a surrogate pair, which no tokenizer takes
        except (ValueError, AttributeError, StopIteration, RecursionError):
            raise ModelError(
                f"line {number} of {path} holds no question; give an object with one of "
                f"{', '.join(_ASKED)}",
                code="no-question",
            ) from None
        if text.strip():
            found[text] = None
    if not found:
        raise ModelError(f"{path} holds no question", code="no-question")
    return tuple(found), "sha256:" + hashlib.sha256(data).hexdigest()


def _check_public(questions: Path) -> None:
    """Refuse what lies in an institution's folder, behind links too."""
    for place in (questions.absolute(), questions.resolve()):
        if any((above / "site.toml").exists() for above in place.parents):
            raise ModelError(
                f"{questions} lies in an institution's folder, and nothing that is learnt here is "
                "private: no gradient is one person's, clipped and noised; give public questions, "
                "or train on records in a run",
                code="not-public",
                exit_code=3,
            )


def answer(
    teacher: Base,
    asked: Sequence[str],
    *,
    max_new_tokens: int = 256,
    rows: int = 16,
    progress: Progress = lambda what, done, total: None,
) -> Answers:
    """Have the teacher answer, each question by itself, with the likeliest token each time.

    Guarantees: an answer that is empty or did not end by itself is left out and counted.

    Raises:
        ModelError: a setting out of range.
    """
    batch = batching.Batch(teacher.model, teacher, rows=rows, tokens=1 << 20)
    said: dict[int, list[str]] = {}
    ended: dict[int, str | None] = {}
    left_out = {"too-long": 0, "empty": 0, "not-ended": 0}
    waiting = list(_asks(teacher, asked, max_new_tokens))[::-1]
    while waiting or len(batch):
        while waiting and len(batch) < rows:
            number, ask = waiting[-1]
            try:
                batch.check(ask)
            except ModelError as fault:
                if fault.code != "too-long":
                    raise
                left_out["too-long"] += 1
                waiting.pop()
                continue
            if not batch.has_room(ask):
                break
            batch.admit(number, ask)
            said[number] = []
            waiting.pop()
        for piece in batch.step() if len(batch) else ():
            said[piece.key].append(piece.text)
            if piece.finish is not None:
                ended[piece.key] = piece.finish
                progress("answering", len(ended), len(asked))
    found = []
    for number in sorted(ended):
        text = "".join(said[number]).strip()
        if ended[number] != "stop":
            left_out["not-ended"] += 1
        elif not text:
            left_out["empty"] += 1
        else:
            found.append((asked[number], text))
    return Answers(tuple(found), left_out)


def encode(student: Base, rows: Sequence[tuple[str, str]], *, max_tokens: int) -> list[Example]:
    """The answers as the student reads them."""
    return [prompts.encode(student, ask, reply, max_tokens=max_tokens) for ask, reply in rows]


def learn(
    student: Base,
    examples: Sequence[Example],
    lesson: Lesson,
    *,
    teacher: Base | None = None,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Train all of the student's weights on the teacher's answers, in place, without privacy.

    Args:
        student: float32, without an adapter.
        examples: from `encode`.
        lesson: how.
        teacher: needed where the lesson looks at its probabilities.
        progress: called with (what, done, total).

    Raises:
        ModelError: nothing to learn from, or teacher and student read other tokens.
    """
    if not examples:
        raise ModelError("there is no answer to learn from", code="no-rows")
    if lesson.logits > 0:
        same_tokens(student, teacher)
    weights = list(student.model.parameters())
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=lesson.learning_rate, weight_decay=0.0)
    order = random.Random(lesson.seed)  # noqa: S311 - public data in a public order
    steps = lesson.epochs * -(-len(examples) // lesson.batch)
    done = 0
    try:
        for _ in range(lesson.epochs):
            places = list(range(len(examples)))
            order.shuffle(places)
            for start in range(0, len(places), lesson.batch):
                part = [examples[place] for place in places[start : start + lesson.batch]]
                share = 0.5 * (1.0 + math.cos(math.pi * done / steps))
                optimizer.param_groups[0]["lr"] = lesson.learning_rate * share
                optimizer.zero_grad()
                for few in _few(part):
                    losses = _losses(student, few, lesson, teacher)
                    (losses.sum() / len(part)).backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                done += 1
                progress("learning", done, steps)
    finally:
        optimizer.zero_grad()
        for weight in weights:
            weight.requires_grad_(False)


def loss(student: Base, examples: Sequence[Example]) -> float:
    """Mean over answers of the mean cross-entropy per token, in nats."""
    if not examples:
        raise ModelError("there is no answer to score with", code="no-rows")
    with torch.inference_mode():
        parts = [prompts.loss(student.model, few).double() for few in _few(examples)]
    return float(torch.cat(parts).mean())


def _losses(student: Base, few: Sequence[Example], lesson: Lesson, teacher: Base | None) -> Any:
    if lesson.logits == 0 or teacher is None:
        return prompts.loss(student.model, few)
    spans = [
        (row, at) for row, one in enumerate(few) for at in range(one.prompt_tokens, one.tokens)
    ]
    device = forward.device_of(student.model)
    ids = forward.pad([one.ids for one in few], device=device)
    rows, columns = torch.tensor(spans, device=device).T
    logits = forward.logits_at(student.model, ids, rows, columns - 1)
    with torch.inference_mode():
        wanted = forward.logits_at(teacher.model, ids, rows, columns - 1) / lesson.temperature
        wanted = functional.log_softmax(wanted, dim=-1)
    apart = functional.kl_div(
        functional.log_softmax(logits / lesson.temperature, dim=-1),
        wanted.clone(),
        reduction="none",
        log_target=True,
    ).sum(-1)
    words = functional.cross_entropy(logits, ids[rows, columns], reduction="none")
    # By the temperature squared, so that gradients keep their size (Hinton and others, 2015).
    each = (1 - lesson.logits) * words + lesson.logits * lesson.temperature**2 * apart
    shares = torch.tensor(
        [1.0 / (few[row].tokens - few[row].prompt_tokens) for row, _ in spans], device=device
    )
    return each.new_zeros(len(few)).index_add(0, rows, each * shares)


def same_tokens(student: Base, teacher: Base | None) -> None:
    """Check that a student can follow a teacher's probabilities.

    Raises:
        ModelError: there is no teacher, or the two read other tokens.
    """
    probe = ("Is it so? Ä 1,234 你好", "Yes: 42 of\n`them`.")
    same = teacher is not None and (
        student.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
        and prompts.encode(student, *probe, max_tokens=512)
        == prompts.encode(teacher, *probe, max_tokens=512)
    )
    if not same:
        raise ModelError(
            "the student can follow the teacher's probabilities only if both have one tokenizer "
            "and chat format; learn from its words alone",
            code="other-tokens",
        )


def _few(examples: Sequence[Example]) -> Iterable[list[Example]]:
    ordered = sorted(examples, key=lambda one: one.tokens)
    return (ordered[at : at + _MOST] for at in range(0, len(ordered), _MOST))


def _asks(
    teacher: Base, asked: Sequence[str], max_new_tokens: int
) -> Iterable[tuple[int, batching.Ask]]:
    for number, text in enumerate(asked):
        ids = prompts.conversation(teacher, [{"role": "user", "content": text}], max_tokens=1 << 30)
        yield number, batching.Ask(ids, max_new_tokens=max_new_tokens)
