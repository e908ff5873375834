"""A wrong value is named by its key, and what a newer version wrote is refused."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.said import SECRET, edited, invited, one_sentence


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("epsilon = 2.0", "epsilon = 0", "budget.epsilon"),
        ("epsilon = 2.0", "epsilon = -1.25", "budget.epsilon"),
        ("epsilon = 2.0", "epsilon = nan", "budget.epsilon"),
        ("epsilon = 2.0", "epsilon = inf", "budget.epsilon"),
        ("epsilon = 2.0", f'epsilon = "{SECRET}"', "budget.epsilon"),
        ("epsilon = 2.0", "epsilom = 2.0", "budget.epsilom"),
        ("delta = 1e-5", "delta = 0.5", "budget.delta"),
        ("[budget]", f'[{SECRET.lower()}]\nx = "{SECRET}"\n[budget]', SECRET.lower()),
        ("threads = 0", 'threads = "all"', "runtime.threads"),
        ('name = "clinic-a"', "", "name"),
    ],
)
def test_a_wrong_value_in_site_toml_is_named_by_its_key(
    say: Any, site: Path, old: str, new: str, key: str
) -> None:
    edited(site / "site.toml", old, new)
    for command in ("budget", "doctor"):
        code, out, err = say("client", command, site)
        assert code == 2
        assert out == ""
        assert one_sentence(err)
        assert "site.toml" in err
        assert f"'{key}'" in err
        assert SECRET not in err


def test_text_that_is_no_toml_is_named_by_its_line(say: Any, site: Path) -> None:
    (site / "site.toml").write_text(f"name = 'a'\n{SECRET} {SECRET}\n")
    code, _, err = say("client", "budget", site)
    assert code == 2
    assert "line 2" in err
    assert SECRET not in err
    (site / "site.toml").write_bytes(b"\xff\xfe")
    assert say("client", "budget", site)[0] == 2


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("epsilon = 2.0", "epsilon = 0", "privacy.epsilon"),
        ("epsilon = 2.0", "epsilon = -2.0", "privacy.epsilon"),
        ("epsilon = 2.0", "epsilon = nan", "privacy.epsilon"),
        ("epsilon = 2.0", "epsilon = [2.0]", "privacy.epsilon"),
        ("epsilon = 2.0", "noise_multiplier = 2.0", "privacy.noise_multiplier"),
        ("epsilon = 2.0", "rounds = 1.5", "privacy.rounds"),
        ("[federation]", "[federatoin]", "federation"),
    ],
)
def test_a_wrong_value_in_run_toml_is_named_by_its_key(
    say: Any, site: Path, hub: Path, run_file: Path, old: str, new: str, key: str
) -> None:
    edited(run_file, old, new)
    for words in (("client", "plan", site), ("server", "run", hub)):
        code, out, err = say(*words, "--run", run_file)
        assert code == 2
        assert out == ""
        assert one_sentence(err)
        assert "run.toml" in err
        assert f"'{key}'" in err


def test_a_model_without_weights_or_with_others_than_asked_for_is_refused(
    say: Any, site: Path, model: Path, run_file: Path
) -> None:
    code, out, _ = say("client", "plan", site, "--run", run_file, "--json")
    assert code == 3  # the site's policy names other models
    assert json.loads(out)["decision"] != "acceptable"
    edited(run_file, "[privacy]", f'digest = "sha256:{"0" * 64}"\n[privacy]')
    code, out, err = say("client", "plan", site, "--run", run_file)
    assert code == 4
    assert one_sentence(err)
    (model / "model.safetensors").unlink()
    for words in (("model", "show", model), ("model", "pull", model)):
        code, out, err = say(*words)
        assert (code, out) == (2, "")
        assert one_sentence(err)


def newer_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


def newer_toml(path: Path) -> None:
    edited(path, "format = 1", "format = 2")


def newer_json(path: Path) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 2}))


def test_what_a_newer_version_wrote_is_refused_and_said_so(
    say: Any, site: Path, hub: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(code: int, *words: object) -> None:
        found, _, err = say(*words)
        assert found == code, err
        assert one_sentence(err)
        assert "newer" in err

    monkeypatch.setenv("PRIVITY_HOME", str(model.parent / "home"))
    invited(site, hub)
    newer_json(site / "invitation.json")
    refused(2, "client", "run", site)
    newer_database(next((site / "log").glob("*.sqlite")))
    code, out, _ = say("client", "doctor", site, "--json")
    assert code == 2
    failed = {item["name"]: item["finding"] for item in json.loads(out) if "FAIL" in str(item)}
    assert "newer" in failed["log"]
    newer_database(site / "ledger.sqlite")
    refused(4, "client", "budget", site)
    newer_json(site / "enroll.json")
    refused(2, "server", "enroll", hub, site / "enroll.json")
    newer_toml(site / "site.toml")
    refused(2, "client", "budget", site)
    newer_toml(hub / "coordinator.toml")
    refused(2, "server", "status", hub)
    assert say("model", "pull", model)[0] == 0
    newer_json(model.parent / "home" / "models" / model.name / "privity-model.json")
    refused(2, "model", "show", model.name)


def test_a_pulled_model_that_was_changed_does_not_verify(
    say: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVITY_HOME", str(model.parent / "home"))
    assert say("model", "pull", model)[0] == 0
    assert model.name in say("model", "list")[1]
    kept = model.parent / "home" / "models" / model.name / "config.json"
    kept.write_text(kept.read_text() + " ")
    code, _, err = say("model", "show", model.name)
    assert code == 4
    assert one_sentence(err)
