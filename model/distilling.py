"""A distillation on disk: records, a student that learnt from them, and what both come from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from model import base, catalog, distil, manifest, merged, whole
from model.distil import Lesson, Progress
from model.errors import ModelError

_HELD: Final = 0.1  # of the answers, to see what the student makes of what it was not taught
_PRECISIONS: Final = ("float32", "bfloat16", "int8", "nf4")


def make(
    teacher: str,
    questions: Path,
    out: Path,
    *,
    student: str | None = None,
    digest: str | None = None,
    max_new_tokens: int = 256,
    precision: Any = "float32",
    lesson: Lesson | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Have a teacher answer public questions, and let a student learn from the answers.

    Args:
        teacher: a model that was pulled, or a local folder.
        questions: public, as `distil.questions` reads them; not in an institution's folder.
        out: a folder that does not exist yet; it appears whole or not at all.
        student: a model as `teacher`; None writes the records only.
        digest: the teacher must have it.
        max_new_tokens: most tokens of an answer.
        precision: of the teacher.
        lesson: how the student learns; it is trained in float32, without privacy.
        progress: called with (what, done, total).

    Returns:
        The manifest.

    Raises:
        ModelError: a model or the questions cannot be used, or nothing came out; exit code 3 where
            the questions are an institution's.
    """
    lesson = lesson or Lesson()
    whole.check_new(out)
    if precision not in _PRECISIONS:
        raise ModelError(f"use --precision {'|'.join(_PRECISIONS)}", code="bad-setting")
    if lesson.logits and student is None:
        raise ModelError("--logits is how a student learns; give --student", code="bad-setting")
    asked, asked_digest = distil.questions(questions)
    found = catalog.find(teacher, expect_digest=digest)
    learner = None if student is None else catalog.find(student)
    master = base.load(found, precision=precision)
    if learner is not None and lesson.logits:  # before hours of answering
        distil.same_tokens(base.load(learner), master)
    answers = distil.answer(master, asked, max_new_tokens=max_new_tokens, progress=progress)
    _check_rows(answers, taught=learner is not None)
    with whole.folder(out) as draft:
        text = "".join(_line(*row) for row in answers.rows).encode()
        (draft / "records.jsonl").write_bytes(text)
        made: dict[str, Any] = {
            "format": 1,
            "public": True,
            "teacher": {"name": found.name, "digest": found.digest, "precision": precision},
            "prompts": {"digest": asked_digest, "count": len(asked)},
            "settings": {"max_new_tokens": max_new_tokens, "decoding": "greedy"},
            "records": {"digest": _digest(text), "count": len(answers.rows)},
            "left_out": answers.left_out,
            "student": None,
        }
        if learner is not None:
            pupil = base.load(learner)
            told = _teach(pupil, master if lesson.logits else None, answers.rows, lesson, progress)
            (draft / "student").mkdir()
            merged.write(pupil.model, pupil, draft / "student")
            source = {"distilled_from": found.digest}
            after = manifest.describe(out.name, draft / "student", source=source)
            made["student"] = {
                "from": learner.name,
                "from_digest": learner.digest,
                "digest": after.digest,
                "lesson": asdict(lesson),
                **told,
            }
        (draft / "manifest.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return made


def _check_rows(answers: distil.Answers, *, taught: bool) -> None:
    """Check that there is something to write, and for a student something beside it to score."""
    if not answers.rows:
        long = answers.left_out["too-long"] > answers.left_out["not-ended"]
        do = "lower --max-new-tokens or shorten the questions" if long else "raise --max-new-tokens"
        raise ModelError(
            f"the teacher gave no answer that {'fits' if long else 'ended by itself'}; {do}, or "
            "take another teacher",
            code="no-rows",
        )
    if taught and len(answers.rows) < 2:
        raise ModelError(
            "a student needs two answers, one of them to be scored on; give more questions",
            code="no-rows",
        )


def _teach(
    pupil: base.Base, master: base.Base | None, rows: Any, lesson: Lesson, progress: Progress
) -> dict[str, Any]:
    """Train on most answers, and score on the rest before and after."""
    held_out = {row for row in rows if _share(row[0]) < _HELD}
    if not held_out or len(held_out) == len(rows):
        held_out = {rows[0]}
    apart = [row for row in rows if row in held_out]
    taught = [row for row in rows if row not in held_out]
    held = distil.encode(pupil, apart, max_tokens=lesson.max_tokens)
    examples = distil.encode(pupil, taught, max_tokens=lesson.max_tokens)
    before = distil.loss(pupil, held)
    distil.learn(pupil, examples, lesson, teacher=master, progress=progress)
    return {
        "taught": len(taught),
        "held_out": len(apart),
        "loss_before": before,
        "loss_after": distil.loss(pupil, held),
    }


def _line(question: str, reply: str) -> str:
    # A question is nobody's: each counts as a person of its own.
    row = {"unit_id": f"public-{_digest(question.encode())[7:23]}", "instruction": question,
           "response": reply}  # fmt: skip
    return json.dumps(row, ensure_ascii=False) + "\n"


def _share(question: str) -> float:
    return int(_digest(question.encode())[7:15], 16) / 2**32


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
