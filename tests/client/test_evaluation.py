"""An evaluation compares like with like, hides the records, and is held against thresholds."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import privity
from client import acceptance, evaluation, evaluation_page, perturb, ratings, released
from client.errors import ClientError
from configs.thresholds import Thresholds

LABELS = ("billing", "cardiology", "cards")
ROWS = tuple(
    (f"zebra {n} asks about {what}", label)
    for n in range(4)
    for what, label in (("an invoice", "billing"), ("a pulse", "cardiology"), ("a card", "cards"))
)


def _released(tiny_home: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    import torch

    from model import adapter, base, catalog

    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    loaded = base.load(catalog.find("tiny-llama"))
    model = adapter.attach(loaded, adapter.Spec(rank=2, seed="s"))
    if changes.pop("trained", False):
        torch.manual_seed(3)
        arrays = {
            name: 0.5 * torch.randn(*array.shape).numpy()
            for name, array in adapter.read(model).items()
        }
        adapter.write(model, arrays)
    values: dict[str, Any] = {"name": "r1", "labels": LABELS, "chooses": False} | changes
    return released.Released(base=loaded, _model=model, **values)


@pytest.fixture
def make(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(evaluation, "ANSWER_TOKENS", 4)
    return lambda **changes: _released(tiny_home, monkeypatch, **changes)


def _evaluate(one: Any, rows: Any = ROWS, **changes: Any) -> evaluation.Evaluation:
    values: dict[str, Any] = {
        "data": "made up", "written": 2, "general": evaluation.PAIRS[:3],
        "identifiers": lambda answer, question: 0,
    } | changes  # fmt: skip
    return evaluation.evaluate(one, rows, **values)


def test_a_release_that_changes_nothing_is_no_better_than_its_base(
    make: Callable[..., Any],
) -> None:
    found = _evaluate(make())
    base, own = found.arm("base"), found.arm("released")
    assert found.kind == "choice"
    assert base.loss == own.loss
    gap = found.differences["released - base"]
    assert (gap.mean, gap.p) == (0.0, 1.0)
    assert own.general == base.general


def test_a_changed_release_differs_and_the_base_beside_it_stays(make: Callable[..., Any]) -> None:
    plain, other = _evaluate(make()), _evaluate(make(trained=True))
    assert other.arm("base").loss == plain.arm("base").loss
    assert other.arm("released").loss != plain.arm("base").loss
    against = _evaluate(make(), against=make(trained=True))
    assert against.arm("against").loss == pytest.approx(other.arm("released").loss)
    assert set(against.differences) == {"released - base", "released - against"}


def test_answers_that_are_no_labels_are_written_and_compared(make: Callable[..., Any]) -> None:
    rows = tuple((ask, f"go to {label} please") for ask, label in ROWS[:3])
    found = _evaluate(make(), rows)
    arm = found.arm("released")
    assert (found.kind, found.main) == ("text", "ROUGE-L")
    assert arm.choice is None
    assert arm.nearness is not None
    assert len(arm.answers) == 3
    assert 0 <= arm.nearness.rouge_l <= 1


def test_identifiers_and_copies_in_answers_are_counted(make: Callable[..., Any]) -> None:
    seen = []

    def identifiers(answer: str, question: str) -> int:
        seen.append((answer, question))
        return len(seen) % 2

    found = _evaluate(make(), identifiers=identifiers, sources=["nothing alike"])
    assert found.leaks.answers == 2
    assert found.leaks.identifiers == 1
    assert found.leaks.copied_words == 0
    assert [question for _, question in seen] == [ask for ask, _ in ROWS[:2]]
    assert _evaluate(make()).leaks.copied_words is None


def test_a_release_trained_to_choose_is_judged_by_choice_and_its_base_by_what_suits_it(
    make: Callable[..., Any],
) -> None:
    found = _evaluate(make(chooses=True, trained=True))
    own, base = found.arm("released").choice, found.arm("base").choice
    assert own is not None
    assert base is not None
    assert own.rule == "choice"
    assert base.rule in {"choice", "calibrated"}


def test_thresholds_fail_closed_and_name_what_is_missed(make: Callable[..., Any]) -> None:
    found = _evaluate(make())
    easy = Thresholds.model_validate(
        {"choice": {"macro_f1": 0}, "robustness": {"attack_success": 1}}
    )
    assert all(one.holds for one in acceptance.judge(found, easy))
    hard = Thresholds.model_validate({"choice": {"macro_f1": 1.0, "accuracy": 1.0}})
    missed = {one.what for one in acceptance.judge(found, hard) if not one.holds}
    assert missed >= {"choice.accuracy", "choice.macro_f1"}
    nan = float("nan")
    assert not acceptance.Held("x", nan, 0.0, True).holds
    assert not acceptance.Held("x", nan, 0.0, False).holds
    usual = {one.what for one in acceptance.judge(found, Thresholds())}
    assert "safety.copied_words" not in usual


def test_the_page_shows_figures_and_no_record(make: Callable[..., Any]) -> None:
    rows = tuple((ask, f"go to {label} & <b>") for ask, label in ROWS[:3])
    for given in (ROWS, rows):
        found = _evaluate(make(), given, against=make(trained=True), sources=["x"])
        text = evaluation_page.page(found, acceptance.judge(found, Thresholds()))
        assert "zebra" not in text
        assert "<script" not in text
        key = [int(y) for y in re.findall(r'y1="(\d+)" y2="\1"/><text x="[\d.]+" y="18"', text)]
        curves = re.findall(r'<polyline[^>]*points="([^"]+)"', text)
        assert len(key) == len(curves) == (3 if given is ROWS else 0)
        for curve in curves:  # no line can run through the key
            assert all(float(point.split(",")[1]) > max(key) + 8 for point in curve.split())
        assert "http" not in text
        for arm in found.arms:
            assert all(answer not in text for answer in arm.answers if len(answer) > 3)


def test_rows_leave_nothing_out(tmp_path: Path) -> None:
    path = tmp_path / "held.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\nnot json\n')
    with pytest.raises(ClientError, match="line 2"):
        evaluation.rows(path, limit=10)
    path.write_text('{"instruction": "a", "response": "b"}\n')
    with pytest.raises(ClientError, match="two"):
        evaluation.rows(path, limit=10)
    lines = [json.dumps({"instruction": f"a{n}", "response": "b"}) for n in range(30)]
    path.write_text("\n".join(lines))
    assert evaluation.rows(path, limit=7) == evaluation.rows(path, limit=7)
    assert len(evaluation.rows(path, limit=7)) == 7


def test_questions_are_asked_worse_in_the_same_way_each_time() -> None:
    text = "my credit card was swallowed yesterday"
    assert perturb.typos(text) == perturb.typos(text) != text
    assert text in perturb.reword(text)
    assert perturb.attack(text, "cards").startswith(text)
    answers = [label for _, label in ROWS]
    planted = perturb.targets(answers, LABELS)
    assert all(p in LABELS and p != a for p, a in zip(planted, answers, strict=True))


def test_a_rated_sheet_comes_back_with_agreement(make: Callable[..., Any], tmp_path: Path) -> None:
    found = _evaluate(make())
    sheet = tmp_path / "sheet.csv"
    ratings.sheet(sheet, found, ["=cmd()", "second"])
    assert sheet.stat().st_mode & 0o777 == 0o600
    head, *lines = sheet.read_text("utf-8-sig").splitlines()
    assert "base" not in head + "".join(lines)
    assert all(not line.split(",")[1].startswith("=") for line in lines)
    sheet.write_text("\n".join([head, *(line + "4,4" for line in _open_cells(lines))]), "utf-8-sig")
    back = ratings.read(sheet)
    assert back.items == 4
    assert back.mean == {"base": 4.0, "released": 4.0}
    # As a spreadsheet of another country saves it: another separator, another code page.
    rows = list(csv.reader(sheet.read_text("utf-8-sig").splitlines()))
    rows[1][1] = "Größe?"
    with sheet.open("w", encoding="cp1252", errors="replace", newline="") as out:
        csv.writer(out, delimiter=";").writerows(rows)
    assert ratings.read(sheet).mean == back.mean
    with sheet.open("w", encoding="utf-8-sig", newline="") as out:
        csv.writer(out).writerows(rows)
    text = sheet.read_text("utf-8-sig").replace("4,4", "4,²", 1)
    sheet.write_text(text, "utf-8-sig")
    with pytest.raises(ClientError, match="1 to 5"):
        ratings.read(sheet)
    sheet.write_text("something else")
    with pytest.raises(ClientError, match="is not the sheet"):
        ratings.read(sheet)


def _open_cells(lines: list[str]) -> list[str]:
    """Lines without the two empty cells of the raters."""
    return [line.removesuffix(",") for line in lines]


def test_the_command_ends_with_three_when_a_threshold_is_missed(
    make: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from client import cli_evaluate

    folder = tmp_path / "r1"
    folder.mkdir()
    key = tmp_path / "key.pem"
    key.touch()
    checked: list[Path] = []
    monkeypatch.setattr(cli_evaluate, "_check", lambda key, release: checked.append(release))
    monkeypatch.setattr(released, "load", lambda path, precision: make())
    data = tmp_path / "held.jsonl"
    data.write_text("\n".join(json.dumps({"instruction": a, "response": r}) for a, r in ROWS[:4]))
    limits = tmp_path / "thresholds.toml"
    limits.write_text("[choice]\nmacro_f1 = 1.0\n")
    out = tmp_path / "page.html"
    given = ["evaluate", str(folder), "--data", str(data), "--key", str(key), "--out", str(out)]
    assert privity.main([*given, "--thresholds", str(limits), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["thresholds"]["choice.macro_f1"]["holds"] is False
    assert checked == [folder]
    assert "MISSED" in out.read_text()
    assert privity.main(given) == 0
    said = capsys.readouterr()
    assert "macro F1" in said.out
    assert "not charged" not in said.err + out.read_text()
    (tmp_path / "site.toml").write_text("")  # now these are an institution's
    assert privity.main(given) == 0
    assert "--private" in capsys.readouterr().err
    assert "not charged" in out.read_text()
    assert out.stat().st_mode & 0o077 == 0
    assert privity.main(["evaluate", str(folder), "--key", str(key)]) == 2
    assert privity.main(["evaluate", str(folder), "--data", str(data)]) == 2
    assert privity.main(["evaluate", str(folder), "--private", "--key", str(key)]) == 2
