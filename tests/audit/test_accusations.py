"""A site that was shown two histories accuses with the coordinator's own signed notes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import incidents
from audit.errors import InconsistentLog
from audit.log import Log
from tests.audit.told import faults, notices


@pytest.fixture
def played(federate: Callable[..., Any], tmp_path: Path) -> Any:
    return federate(tmp_path / "run", rounds=1).play()


@pytest.fixture
def accused(played: Any) -> dict[str, str]:
    """Notes that the coordinator signed: of this history, of a longer part of it, of another."""
    hub = played.coordinator
    notes = {"early": hub.log.note_for(3), "late": hub.log.note_for(5)}
    shutil.copytree(hub.log.folder, played.root / "fork")
    other = Log.open(played.root / "fork", keys=hub.keys)
    other.append("institution-revoked", {"name": "gamma"})
    notes["fork"] = other.checkpoint()
    other.close()
    hub.log.append("institution-revoked", {"name": "beta"})
    return notes


def accuse(played: Any, older: str, newer: str) -> list[tuple[str, str]]:
    alpha = played.sites["alpha"].log
    fault = InconsistentLog("zq", older=older, newer=newer, code="log-forked")
    for _ in range(2):
        incidents.contradiction(alpha, played.coordinator.log.origin, fault)
    assert len(list(alpha.entries("witness-refused"))) == 1
    return faults(played)


def test_a_fork_that_a_site_wrote_down_is_a_fault_of_whoever_signed_it(
    played: Any, accused: dict[str, str]
) -> None:
    assert accuse(played, accused["early"], accused["fork"]) == [("completeness", "log-forked")]
    assert "log-inconsistent, high" in notices(played)


def test_an_accusation_by_notes_that_agree_is_a_fault(played: Any, accused: dict[str, str]) -> None:
    assert accuse(played, accused["early"], accused["late"]) == [("meaning", "accusation-empty")]


def test_a_log_that_was_shown_shorter_than_before_is_accused_rightly(
    played: Any, accused: dict[str, str]
) -> None:
    assert accuse(played, accused["late"], accused["early"]) == []


def test_an_accusation_that_the_accused_did_not_sign_is_a_fault(
    played: Any, accused: dict[str, str]
) -> None:
    forged = accused["fork"].replace("\nhub", "\nhab").replace("— hub/log", "— hub/lag")
    assert accuse(played, accused["early"], forged) == [("meaning", "accusation-unsigned")]
