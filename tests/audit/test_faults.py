"""What was acknowledged stays, whatever the disk does and whoever is killed.

A sample; `make faults-audit` kills 200 times and fails every call.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import faults_audit as faults

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
TRACES = pytest.mark.skipif(not faults.can_trace(), reason="needs strace, and leave to use it")
SAMPLE = 70


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder on a real disk: one in memory has no fdatasync worth the name."""
    with tempfile.TemporaryDirectory(prefix="privity-faults-") as name:
        yield Path(name)


def test_killed_writers_lose_nothing_that_was_acknowledged(disk: Path) -> None:
    found = faults.kill_writers(disk, 6)
    assert found["acknowledged"] > 6
    assert found["stored"] >= found["acknowledged"]


def test_a_lost_or_changed_entry_would_be_noticed(disk: Path) -> None:
    folder, keys = faults.make_log(disk)
    ring = faults.keys.load(keys)
    with pytest.raises(AssertionError, match="is lost"):
        faults.check(folder, ring, [(99, "00")])
    with pytest.raises(AssertionError, match="differs"):
        faults.check(folder, ring, [(1, "00")])


@TRACES
def test_failed_calls_lose_and_damage_nothing(disk: Path) -> None:
    calls = faults.calls_of_an_append(disk / "calls")
    assert {"fdatasync", "pwrite64", "rename"} <= {call.name for call in calls}
    points = [(call, fault) for call in calls for fault in faults.FAULTS]
    words = {
        faults.inject(disk / str(number), call, fault)
        for number, (call, fault) in enumerate(points[::SAMPLE])
    }
    assert "killed" in words


@TRACES
def test_a_journal_that_cannot_be_synced_is_no_success(disk: Path) -> None:
    calls = faults.calls_of_an_append(disk / "calls")
    wal = [call for call in calls if call.name == "fdatasync" and "-wal>" in call.text]
    for number, call in enumerate(wal[:2]):
        assert faults.inject(disk / str(number), call, "error=EIO") == "refused"


@TRACES
def test_every_acknowledgement_comes_after_its_fdatasync(disk: Path) -> None:
    lines = faults.trace_order(disk, 4, 6)
    count, early = faults.unsynced(lines)
    assert (count, early) == (24, [])
    careless = [line for line in lines if "fdatasync" not in line]
    assert faults.unsynced(careless)[1]
