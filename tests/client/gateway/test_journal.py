"""What the log says of serving: that and how it went, never about whom, what or how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audit import disclosures
from client import folder
from client.gateway import access, journal
from client.gateway.metrics import Tally
from client.gateway.question import Failed
from client.serving import Site
from configs.serving import Serving
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


def accesses(site: folder.Folder) -> list[Any]:
    log = site.log()
    try:
        return [entry.event.fields for entry in log.entries("serving-access")]
    finally:
        log.close()


def test_who_was_served_is_in_the_log_as_commitments_and_a_power_of_ten(
    site: Any, tmp_path: Path
) -> None:
    given = Site.of(site)
    assert given.keys is not None
    key = given.keys.add("ward-3", scopes=("chat",))
    headers = {"authorization": f"Bearer {key}"}
    app = make_app(tmp_path, Fake(("r1", "r2")), site=given, policy={})
    with near(app) as client:
        for _ in range(12):
            assert client.post("/v1/chat/completions", json=ASK, headers=headers).status_code == 200
        assert client.post("/v1/chat/completions", json=ASK).status_code == 401
    found = accesses(site)
    assert {(f["route"], f["outcome"], f["requests"]) for f in found} == {
        ("chat", "answered", "1-9"),
        ("chat", "cached", "10-99"),
        ("door", "invalid-api-key", "1-9"),
    }
    assert len({f["caller_commitment"] for f in found}) == len(found)
    assert "ward-3" not in str(found)
    table = disclosures.Table(site.path / "log")
    (cached,) = (f for f in found if f["outcome"] == "cached")
    names = ("caller_commitment", "requests_commitment")
    shown = table.get(cached[name] for name in names)
    assert [shown[cached[name]].value for name in names] == ["ward-3", "11"]


def test_a_flood_of_sorts_of_access_does_not_flood_the_log() -> None:
    kept = access.Access()
    for number in range(300):
        kept.note(access.Row(f"key-{number}", "r1", "chat", "answered"))
    rows = kept.take()
    assert len(rows) == 257
    assert dict(rows)[access.Row(access.OTHERS, "r1", "chat", "answered")] == 44
    assert kept.take() == []
    assert [access.magnitude(n) for n in (1, 9, 10, 99, 100, 999, 1000, 10**6)] == [
        "1-9", "1-9", "10-99", "10-99", "100-999", "100-999", "1000-or-more", "1000-or-more",
    ]  # fmt: skip


def test_a_site_may_leave_access_out_of_its_log(site: Any, tmp_path: Path) -> None:
    app = make_app(tmp_path, Fake(), site=Site.of(site), access_log="off")
    with near(app) as client:
        client.post("/v1/chat/completions", json=ASK)
    assert accesses(site) == []
    assert entries(site)


def test_other_settings_of_the_service_are_in_the_log_by_name(site: Any, tmp_path: Path) -> None:
    for number, pause in enumerate((30.0, 30.0, 31.5)):
        place = tmp_path / str(number)
        place.mkdir()
        with near(make_app(place, Fake(), site=Site.of(site), drain_s=pause)):
            pass
    log = site.log()
    changed = [entry.event.fields for entry in log.entries("config-changed")]
    log.close()
    assert [f["subject"] for f in changed] == ["serving", "serving"]
    assert changed[1]["keys"] == ["drain_s"]
    assert changed[1]["before_commitment"] == changed[0]["after_commitment"]


def test_a_swap_is_in_the_log(site: Any) -> None:
    kept = journal.Journal(site, Serving(), upstream=False)
    one, two = (journal.Served("sha256:" + letter * 64, "triage") for letter in "ab")
    kept.releases = {"r1": one}
    kept.started()
    row = access.Row("ward-3", "r1", "chat", "answered")
    kept.exchanged({"r2": two}, [(row, 3)])
    assert [(e.fields["state"], e.fields["release_digest"]) for e in entries(site)] == [
        ("started", one.digest), ("stopped", one.digest), ("started", two.digest),
    ]  # fmt: skip
    assert [f["adapter_digest"] for f in accesses(site)] == [one.digest]
    assert kept.releases == {"r2": two}
