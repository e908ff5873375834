"""A student learns from what a teacher says to public questions, and the manifest tells of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from model import catalog, cli, distil, distilling, generation
from model.base import Base
from model.distil import Lesson
from model.errors import ModelError

KNOWN = {"sky?": "blue", "sea?": "deep", "sun?": "hot", "ice?": "cold"}
FAST = Lesson(epochs=60, learning_rate=0.01, batch=4, max_tokens=64)
Load = Callable[[str], Base]


def _learns(model: Base, lesson: Lesson = FAST, teacher: Base | None = None) -> None:
    examples = distil.encode(model, list(KNOWN.items()), max_tokens=64)
    distil.learn(model, examples, lesson, teacher=teacher)


@pytest.fixture(scope="module")
def taught(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny teacher on disk that knows four answers by heart."""
    from model import base, merged

    made = base.load(catalog.find(str(folders["llama"])))
    _learns(made)
    out = tmp_path_factory.mktemp("teacher")
    merged.write(made.model, made, out)
    return out


@pytest.fixture
def teacher(taught: Path) -> Base:
    from model import base

    return base.load(catalog.find(str(taught)))


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "public.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in KNOWN))
    return path


def test_a_student_says_what_the_teacher_said(teacher: Base, load: Load) -> None:
    answers = distil.answer(teacher, list(KNOWN), max_new_tokens=12, rows=3)
    assert dict(answers.rows) == KNOWN
    assert [row[0] for row in answers.rows] == list(KNOWN)
    student = load("qwen3")  # another architecture and another chat format
    examples = distil.encode(student, answers.rows, max_tokens=64)
    before = distil.loss(student, examples)
    distil.learn(student, examples, replace(FAST, epochs=200))
    assert distil.loss(student, examples) < 0.1 < before
    said = generation.chat(
        student.model, student, [{"role": "user", "content": "sea?"}], max_new_tokens=12
    )
    assert said.text == "deep"
    assert not any(weight.requires_grad for weight in student.model.parameters())


def test_a_student_follows_the_teachers_probabilities(teacher: Base, load: Load) -> None:
    """Also of tokens that the teacher did not say."""
    rows = list(KNOWN.items())

    def apart(student: Base) -> float:
        examples = distil.encode(student, rows, max_tokens=64)
        lesson = Lesson(logits=1.0, temperature=1.0)
        with torch.no_grad():
            return float(distil._losses(student, examples, lesson, teacher).mean())

    words, logits = load("llama"), load("llama")
    _stir(words)
    _stir(logits)
    start = apart(logits)
    short = {"epochs": 150, "learning_rate": 0.01, "batch": 4, "max_tokens": 64}
    _learns(words, Lesson(**short))
    _learns(logits, Lesson(**short, logits=1.0, temperature=1.0), teacher)
    assert apart(logits) < 0.1 * start
    assert apart(logits) < apart(words)
    assert apart(teacher) == pytest.approx(0.0, abs=1e-5)


def _stir(model: Base) -> None:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * weight.std())


def test_probabilities_need_one_tokenizer_and_format(teacher: Base, load: Load) -> None:
    with pytest.raises(ModelError, match="words alone"):
        _learns(load("mistral"), Lesson(logits=0.5), teacher)
    with pytest.raises(ModelError, match="words alone"):
        _learns(load("llama"), Lesson(logits=0.5), None)


def test_answers_that_do_not_end_or_fit_are_left_out_and_counted(teacher: Base) -> None:
    found = distil.answer(teacher, ["sky?", "x" * 600, "sea?"], max_new_tokens=12)
    assert found.left_out["too-long"] == 1
    assert dict(found.rows) == {"sky?": "blue", "sea?": "deep"}
    cut = distil.answer(teacher, ["sky?", "ice?"], max_new_tokens=2)
    assert cut.rows == ()
    assert cut.left_out["not-ended"] == 2


def test_records_and_manifest_say_what_they_come_from(
    taught: Path, asked: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "distilled"
    made = distilling.make(
        str(taught), asked, out, student=str(folders["qwen3"]), max_new_tokens=12, lesson=FAST,
        digest=catalog.find(str(taught)).digest,
    )  # fmt: skip
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert {row["instruction"]: row["response"] for row in rows} == KNOWN
    assert len({row["unit_id"] for row in rows}) == 4
    assert made == json.loads((out / "manifest.json").read_text())
    assert made["public"] is True
    assert made["teacher"]["digest"] == catalog.find(str(taught)).digest
    assert made["prompts"]["count"] == made["records"]["count"] == 4
    student = catalog.find(str(out / "student"))
    assert student.digest == made["student"]["digest"] != made["student"]["from_digest"]
    assert made["student"]["from_digest"] == catalog.find(str(folders["qwen3"])).digest
    assert made["student"]["taught"] + made["student"]["held_out"] == 4
    with pytest.raises(ModelError, match="exists"):
        distilling.make(str(taught), asked, out)


def test_nothing_is_left_of_a_distillation_that_fails(
    taught: Path, asked: Path, tmp_path: Path
) -> None:
    place = tmp_path / "new"
    place.mkdir()
    with pytest.raises(ModelError, match="ended by itself"):
        distilling.make(str(taught), asked, place / "out", max_new_tokens=1)
    with pytest.raises(ModelError, match="between 0 and 1"):
        distilling.make(str(taught), asked, place / "out", lesson=Lesson(learning_rate=2.0))
    assert list(place.iterdir()) == []


def test_what_cannot_be_learnt_from_is_said_before_the_teacher_answers(
    taught: Path, asked: Path, folders: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(distil, "answer", never)
    follows = Lesson(logits=0.5)
    with pytest.raises(ModelError, match="give --student"):
        distilling.make(str(taught), asked, tmp_path / "out", lesson=follows)
    with pytest.raises(ModelError, match="words alone"):
        distilling.make(
            str(taught), asked, tmp_path / "out", student=str(folders["mistral"]), lesson=follows
        )


def test_what_the_loss_is_told_of_was_never_taught(
    taught: Path, asked: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "sky?"}\n')
    with pytest.raises(ModelError, match="two answers"):
        distilling.make(
            str(taught), one, tmp_path / "out", student=str(folders["llama"]), max_new_tokens=12
        )


def test_a_question_too_long_for_the_teacher_is_said_to_be(taught: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "x" * 600}) + "\n")
    with pytest.raises(ModelError, match="lower --max-new-tokens"):
        distilling.make(str(taught), long, tmp_path / "out", max_new_tokens=12)


def test_another_teacher_than_the_digest_names_is_refused(
    taught: Path, asked: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as fault:
        distilling.make(str(taught), asked, tmp_path / "o", digest="sha256:" + "0" * 64)
    assert fault.value.exit_code == 4


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"answer": "x"}', '{"prompt": 7}', '"sky?"', '{"prompt": "\\ud800"}', "[" * 9999],
)
def test_a_line_without_a_question_is_named_and_not_quoted(tmp_path: Path, line: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"prompt": "sky?"}\n\n' + line + "\n")
    with pytest.raises(ModelError, match="line 3") as fault:
        distil.questions(path)
    assert line not in str(fault.value)


def test_records_of_an_institution_are_no_questions(asked: Path, tmp_path: Path) -> None:
    site = tmp_path / "clinic-a"
    site.mkdir()
    (site / "site.toml").write_text("")
    inside, linked = site / "records.jsonl", tmp_path / "linked.jsonl"
    inside.write_bytes(asked.read_bytes())
    linked.symlink_to(inside)
    for given in (inside, linked):
        with pytest.raises(ModelError, match="institution's folder") as refusal:
            distilling.make("any", given, tmp_path / "o")
        assert refusal.value.exit_code == 3
    assert not (tmp_path / "o").exists()


def test_each_question_is_asked_once(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"prompt": "b"}\n{"instruction": "a"}\n{"question": "b"}\n{"input": " "}\n')
    assert distil.questions(path)[0] == ("b", "a")
    path.write_text("\n")
    with pytest.raises(ModelError, match="no question"):
        distil.questions(path)


def test_the_command_prints_the_manifest(taught: Path, asked: Path, tmp_path: Path) -> None:
    given: list[Any] = ["distill", taught, "--prompts", asked, "--out", tmp_path / "o",
                        "--max-new-tokens", "12", "--json"]  # fmt: skip
    run = CliRunner().invoke(cli.app, [str(one) for one in given])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout.splitlines()[-1])["records"]["count"] == 4


@pytest.mark.parametrize(("after", "warned"), [(0.7, True), (float("nan"), True), (0.2, False)])
def test_a_student_that_got_worse_is_not_handed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float, warned: bool
) -> None:
    learnt = {"digest": "sha256:0", "held_out": 4, "loss_before": 0.3, "loss_after": after}
    made = {"records": {"count": 12}, "left_out": {}, "student": learnt}
    monkeypatch.setattr(distilling, "make", lambda *_, **__: made)
    run = CliRunner().invoke(
        cli.app, ["distill", "teacher", "--prompts", "q.jsonl", "--out", str(tmp_path / "o")]
    )
    assert run.exit_code == 0
    assert ("did not get better" in run.stderr) is warned
