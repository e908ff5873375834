"""What an institution keeps beside its log goes when its term is over, and the log says so."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import privity
from client import folder as folders
from client import retention
from client.gateway.feedback import FeedbackStore, Judgement

NOW = datetime.now(UTC)


@pytest.fixture
def site(tmp_path: Path) -> folders.Folder:
    return folders.create(tmp_path / "site", name="clinic-a", coordinator="127.0.0.1:9")


def terms(site: folders.Folder, **days: int) -> folders.Folder:
    place = site.path / "site.toml"
    table = "".join(f"{name} = {value}\n" for name, value in days.items())
    place.write_text(f"{place.read_text()}\n[retention]\n{table}")
    return folders.open_folder(site.path)


def reviewed(site: folders.Folder, *ages: int) -> list[Path]:
    """A review whose files with record text are so many days old, and its report."""
    place = site.path / "review"
    place.mkdir()
    (place / "report.json").write_text("{}")
    paths = [place / name for name in ("sample.json", "index.html", "decisions.json")[: len(ages)]]
    for path, days in zip(paths, ages, strict=True):
        path.write_text("Zebulon has a cough")
        old = (NOW - timedelta(days=days)).timestamp()
        os.utime(path, (old, old))
    return paths


def judged(site: folders.Folder, *ages: int) -> FeedbackStore:
    path = site.path / "serving" / "feedback.sqlite"
    store = FeedbackStore(path)
    for number, days in enumerate(ages):
        asked = ({"role": "user", "content": "a cough"},)
        store.add(Judgement(f"answer-{number}", "r1", "ward-3", "down", asked, "Lung"))
        with closing(sqlite3.connect(path)) as database, database:
            time = (NOW - timedelta(days=days)).isoformat(timespec="seconds")
            database.execute("UPDATE feedback SET time = ? WHERE id = ?", (time, number + 1))
    return store


def test_a_new_institution_has_terms_and_nothing_that_is_due(site: folders.Folder) -> None:
    found, own = retention.policy(site.path)
    assert (found.access, found.evidence) == (2192, 3653)
    assert own == ()


def test_zero_days_keep_for_good(site: folders.Folder) -> None:
    opened = terms(site, access_days=0, evidence_days=0, review_days=0, feedback_days=0)
    reviewed(opened, 9999)
    judged(opened, 9999)
    found, own = retention.policy(site.path)
    assert (found.access, found.evidence) == (None, None)
    assert own == ()


@pytest.mark.parametrize("days", [89, 91])
def test_a_review_is_as_old_as_its_newest_file(site: folders.Folder, days: int) -> None:
    opened = terms(site, review_days=90)
    reviewed(opened, 400, days)
    own = retention.own(opened, now=NOW)
    assert [[due.name for due in part.due] for part in own] == (
        [["review/sample.json", "review/index.html"]] if days > 90 else []
    )


def test_feedback_is_due_by_the_row(site: folders.Folder) -> None:
    opened = terms(site, feedback_days=30)
    store = judged(opened, 29, 31, 400)
    (part,) = retention.own(opened, now=NOW)
    assert [(due.name, due.count, due.digest) for due in part.due] == [
        ("serving/feedback.sqlite", 2, "")
    ]
    part.remove()
    assert store.older(NOW) == 1
    assert retention.own(opened, now=NOW) == ()


def test_the_command_removes_what_is_due_once_and_logs_how_much(
    site: folders.Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = terms(site, review_days=90, feedback_days=30)
    texts, store = reviewed(opened, 91, 92, 93), judged(opened, 1, 31)
    words = ["audit", "retain", str(site.path)]
    assert privity.main([*words, "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "3 files, 0 rows would be erased" in said
    assert "0 files, 1 rows would be erased" in said
    assert all(path.exists() for path in texts)
    with closing(opened.log()) as log:
        assert not list(log.entries("retention-pruned"))

    assert privity.main([*words, "--json"]) == 0
    done = json.loads(capfd.readouterr().out)
    assert [(item["retention"], item["files"], item["rows"]) for item in done] == [
        ("ops", 3, 0), ("ops", 0, 1)
    ]  # fmt: skip
    assert not any(path.exists() for path in texts)
    assert (site.path / "review" / "report.json").exists()
    assert store.older(NOW + timedelta(days=1)) == 1
    with closing(opened.log()) as log:
        entries = {entry.index: entry.event.fields for entry in log.entries("retention-pruned")}
        assert "Zebulon" not in str([entry.statement for entry in log.entries()])
    assert list(entries) == [item["entry"] for item in done]
    assert [(e["retention"], e.get("files", 0), e.get("rows", 0)) for e in entries.values()] == [
        ("ops", 3, 0), ("ops", 0, 1)
    ]  # fmt: skip
    assert privity.main(words) == 0
    assert capfd.readouterr().out == "nothing is due\n"


def test_a_term_under_six_months_and_no_folder_are_wrong_settings(
    site: folders.Folder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = site.path / "site.toml"
    place.write_text(f"{place.read_text()}\n[retention]\naccess_days = 182\n")
    assert privity.main(["audit", "retain", str(site.path)]) == 2
    assert "access_days" in capfd.readouterr().err
    assert privity.main(["audit", "retain", str(tmp_path / "nothing")]) == 2
