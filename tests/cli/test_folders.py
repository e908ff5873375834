"""Folders, enrolment and decisions: what comes next is said, and mistakes change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from client import folder as folders
from tests.cli.said import edited, free_port, invited, one_sentence


def test_a_folder_is_made_once(say: Any, site: Path, hub: Path) -> None:
    code, _, err = say("client", "init", site, "--name", "b", "--coordinator", "h:1")
    assert code == 2
    assert one_sentence(err)
    code, _, err = say("server", "init", hub, "--name", "b")
    assert code == 2
    assert one_sentence(err)
    assert folders.open_folder(site).settings.name == "clinic-a"


def test_both_inits_say_what_comes_next(say: Any, tmp_path: Path) -> None:
    code, out, _ = say("client", "init", tmp_path / "s", "--name", "b", "--coordinator", "h:1")
    assert code == 0
    assert "fingerprint" in out
    assert "enroll.json" in out
    code, out, _ = say("server", "init", tmp_path / "h", "--name", "hub")
    assert code == 0
    assert f"privity server start {tmp_path / 'h'}" in out


def test_only_an_enrolment_admits_and_only_an_enrolled_site_is_shut_out(
    say: Any, site: Path, hub: Path
) -> None:
    for wrong in ("site.toml", "nofile.json", "keys/public.json"):
        code, _, err = say("server", "enroll", hub, site / wrong)
        assert code == 2
        assert one_sentence(err)
    code, _, err = say("server", "revoke", hub, "clinic-a")
    assert code == 2
    assert one_sentence(err)
    assert say("server", "enroll", hub, site / "enroll.json")[0] == 0
    assert say("server", "revoke", hub, "clinic-a")[0] == 0
    code, _, err = say("server", "enroll", hub, site / "enroll.json")
    assert code == 3
    assert one_sentence(err)


def test_a_run_without_a_running_coordinator_is_unreachable_and_leaves_no_trace(
    say: Any, site: Path, hub: Path, run_file: Path
) -> None:
    code, _, err = say("server", "run", hub, "--run", run_file)
    assert code == 2
    assert "not enrolled" in err
    assert say("server", "enroll", hub, site / "enroll.json")[0] == 0
    for _ in range(2):  # the name is not used up
        code, _, err = say("server", "run", hub, "--run", run_file)
        assert code == 5
        assert one_sentence(err)
        assert "privity server start" in err
    code, out, _ = say("server", "status", hub, "--json")
    assert code == 0
    assert json.loads(out)["runs"] == []
    code, _, err = say("server", "run", hub, "--run", run_file, "--resume")
    assert code == 2
    assert one_sentence(err)


def test_a_revoked_site_shuts_no_run_that_it_was_in(
    say: Any, site: Path, hub: Path, run_file: Path
) -> None:
    assert say("server", "enroll", hub, site / "enroll.json")[0] == 0
    assert say("server", "revoke", hub, "clinic-a")[0] == 0
    code, _, err = say("server", "run", hub, "--run", run_file)
    assert code == 2
    assert "not enrolled" in err
    for command in (("run", hub, "--resume"), ("release", hub, "triage")):  # as far as the run
        code, _, err = say("server", *command, "--run", run_file)
        assert code == 2
        assert one_sentence(err)
        assert "holds no run" in err


def test_a_client_needs_an_invitation_and_a_coordinator_that_answers(
    say: Any, site: Path, hub: Path
) -> None:
    code, _, err = say("client", "run", site)
    assert code == 2
    assert one_sentence(err)
    invited(site, hub)
    edited(site / "invitation.json", "127.0.0.1:9", f"127.0.0.1:{free_port()}")
    edited(site / "site.toml", "connect_timeout_s = 300.0", "connect_timeout_s = 1")
    code, _, err = say("client", "run", site)
    assert code == 5
    assert one_sentence(err.splitlines()[-1])
    assert "does not answer" in err


@pytest.mark.parametrize("command", ["approve", "refuse"])
def test_only_a_proposed_run_can_be_decided(say: Any, site: Path, command: str) -> None:
    for name in ("triage", "../../site", ""):
        code, _, err = say("client", command, site, name)
        assert code == 2
        assert one_sentence(err)


def test_a_fresh_ledger_has_all_left(say: Any, site: Path) -> None:
    code, out, _ = say("client", "budget", site, "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["spent"], facts["reserved"], facts["left"], facts["cap"]) == (0, 0, 2, 2)
    assert (facts["unit"], facts["adjacency"], facts["delta"]) == ("person", "zero-out", 1e-5)
    code, out, _ = say("client", "budget", site)
    assert code == 0
    assert "no run has reserved anything" in out
