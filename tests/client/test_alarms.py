"""What the software finds out by itself is an incident in the site's log, once while it is open."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from audit import incidents
from client import alarms, connect
from client import folder as folders
from client.errors import ClientError

NOW = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path) -> folders.Folder:
    return folders.create(tmp_path / "site", name="clinic-a", coordinator="127.0.0.1:9")


def listed(site: folders.Folder) -> list[tuple[str, str, bool]]:
    with closing(site.log()) as log:
        return [(i.code, i.severity, i.closed is None) for i in incidents.listed(log)]


def wrong_clock(ahead: int = 86_400) -> ClientError:
    shown = format_datetime(NOW - timedelta(seconds=ahead), usegmt=True)
    with pytest.raises(ClientError) as refused:
        connect.check_clock(shown, NOW)
    return refused.value


def test_a_wrong_clock_is_an_incident_once_until_somebody_closes_it(site: folders.Folder) -> None:
    for ahead in (86_400, 7, -301):
        alarms.note(site, wrong_clock(ahead))
    assert listed(site) == [("clock-refused", "low", True)]
    with closing(site.log()) as log:
        (opened,) = incidents.listed(log)
        alarms.check(log)  # a wrong clock keeps nobody from answering once it is right
        incidents.close(log, opened.entry)
    alarms.note(site, wrong_clock())
    assert [still for _, _, still in listed(site)] == [False, True]


def test_other_refusals_are_no_incidents(site: folders.Folder) -> None:
    for code in ("unreachable", "wrong-round", ""):
        alarms.note(site, ClientError("no", code=code))
    alarms.note(site, ValueError("no"))
    assert listed(site) == []


def test_a_log_that_takes_no_entry_hides_no_refusal(
    site: folders.Folder, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (site.path / "keys").iterdir():
        path.unlink()
    alarms.note(site, wrong_clock())
    assert "could not be written down" in caplog.text


def test_a_node_that_is_refused_for_its_clock_logs_it_and_still_ends(
    site: folders.Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = pytest.importorskip("client.node", reason="the federation's library is not installed")
    fault = wrong_clock()

    def refuse(*_: Any, **__: Any) -> None:
        raise fault

    for module, name in ((node.http_retry, "MAX_RETRY_DELAY"), (node.heartbeat, "exponential")):
        monkeypatch.setattr(module, name, getattr(module, name))  # as they were, afterwards
    monkeypatch.setattr(node.flower, "hasten", lambda: None)
    monkeypatch.setattr(node.Transport, "watch", lambda self: None)
    monkeypatch.setattr(node.cell, "check", lambda folder: None)
    monkeypatch.setattr(node.connect, "wait_for", refuse)
    monkeypatch.setattr(folders.Folder, "invitation", lambda self: None)
    with pytest.raises(ClientError) as caught:
        node.run(site, report=lambda text: None)
    assert caught.value is fault
    assert listed(site) == [("clock-refused", "low", True)]
