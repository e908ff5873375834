"""How long a coordinator keeps what lies behind its log's entries."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

import privity
from server import retention, store


@pytest.fixture
def hub(tmp_path: Path) -> store.Folder:
    return store.create(
        tmp_path / "hub", name="hub", host="127.0.0.1", port=8443, control_port=8444
    )


def write(hub: store.Folder, lines: str) -> None:
    place = hub.path / "coordinator.toml"
    place.write_text(f"{place.read_text()}\n[retention]\n{lines}\n")


def test_a_new_coordinator_has_the_careful_terms(hub: store.Folder) -> None:
    terms = retention.policy(hub.path)
    assert (terms.access, terms.evidence) == (2192, 3653)


def test_a_term_of_zero_days_keeps_for_good(hub: store.Folder) -> None:
    write(hub, "access_days = 200\nevidence_days = 0")
    terms = retention.policy(hub.path)
    assert (terms.access, terms.evidence) == (200, None)


@pytest.mark.parametrize("line", ["access_days = 182", "evidence_days = -1", "review_days = 90"])
def test_a_term_that_is_too_short_or_of_what_it_does_not_keep_is_refused(
    hub: store.Folder, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write(hub, line)
    assert privity.main(["audit", "retain", str(hub.path)]) == 2
    assert line.split(" ")[0] in capfd.readouterr().err


def test_the_command_finds_nothing_due_in_a_new_coordinator_and_logs_nothing(
    hub: store.Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(hub.log()) as log:
        size = log.size
    assert privity.main(["audit", "retain", str(hub.path)]) == 0
    assert capfd.readouterr().out == "nothing is due\n"
    with closing(hub.log()) as log:
        assert log.size == size
