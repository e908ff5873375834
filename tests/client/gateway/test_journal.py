"""What the log says of serving: that and how it went, never about whom, what or how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from client import folder
from client.gateway import journal
from client.gateway.metrics import Tally
from client.gateway.question import Failed
from client.serving import Site
from tests.client.serving_world import ASK, SECRET, Fake, make_app, near


@pytest.fixture
def site(tmp_path: Path) -> folder.Folder:
    return folder.create(tmp_path / "clinic", name="clinic", coordinator="h:1")


def entries(site: folder.Folder) -> list[Any]:
    log = site.log()
    try:
        return [entry.event for entry in log.entries("serving")]
    finally:
        log.close()


def test_start_and_stop_are_in_the_log_with_each_release(site: Any, tmp_path: Path) -> None:
    app = make_app(tmp_path, Fake(("r1", "r2")), site=Site.of(site), policy={})
    with near(app) as client:
        for _ in range(3):
            client.post("/v1/chat/completions", json=ASK)
    found = entries(site)
    assert [(event.fields["state"], event.fields["condition"]) for event in found] == [
        ("started", "idle"), ("started", "idle"), ("stopped", "good"), ("stopped", "good"),
    ]  # fmt: skip
    assert len({event.fields["release_digest"] for event in found}) == 2
    for event in found:
        assert set(event.fields) == {
            "release_digest", "state", "engine", "input_policy", "output_policy", "condition",
        }  # fmt: skip
        assert SECRET not in str(event)


def test_a_roll_back_is_in_the_log(site: Any, tmp_path: Path) -> None:
    engine = Fake(("r1", "r2"))
    trial = {"candidate": "r2", "share": 1.0, "requests": 2, "error_rate": 0.1}
    app = make_app(tmp_path, engine, site=Site.of(site), trial=trial, cache={"entries": 0})
    engine.faults["r2"] = Failed("x")
    with near(app) as client:
        for _ in range(3):
            client.post("/v1/chat/completions", json=ASK)
    assert "rolled-back" in [event.fields["state"] for event in entries(site)]


@pytest.mark.parametrize(
    ("tally", "word"),
    [
        (Tally(), "idle"),
        (Tally({"answered"}, 100, 0), "good"),
        (Tally({"answered", "busy"}, 100, 0), "strained"),
        (Tally({"answered", "failed"}, 100, 3), "strained"),
        (Tally({"failed"}, 100, 6), "failing"),
    ],
)
def test_a_period_is_one_word(tally: Tally, word: str) -> None:
    assert journal.condition(tally) == word


def test_a_log_that_takes_nothing_is_told_and_the_answers_go_on(
    site: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(tmp_path, Fake(), site=Site.of(site))
    for file in (site.path / "keys").iterdir():
        if file.name != "surrogates.secret":
            file.unlink()
    with near(app) as client:
        assert client.post("/v1/chat/completions", json=ASK).status_code == 200
    assert "log took no entry" in caplog.text


def test_a_release_is_named_by_its_adapter_within_its_run(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    facts = {"format": 1, "release": "r", "run": "triage", "adapter_digest": digest}
    (tmp_path / "release.json").write_text(json.dumps(facts))
    assert journal.served(tmp_path) == journal.Served(digest, "triage")
