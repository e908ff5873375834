"""A site on a file system that is really full: a small one in memory, in a mount of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.flow.field import Field, field

pytestmark = [pytest.mark.flow, pytest.mark.soak]

_ALONE = ["unshare", "--user", "--map-root-user", "--mount"]
# Puts a copy of the site's folder on a file system of 16 MB, over the folder itself.
_SMALL = """
set -e
site="$1"; shift
mkdir "$site.small"
mount -t tmpfs -o size=16m,mode=0700 none "$site.small"
cp -a "$site/." "$site.small"
mount --bind "$site.small" "$site"
exec "$@"
"""
_BLOCK = 4096
_ROUNDS = 40  # of little more than a second each on a quick machine: time to come back in


def _why_not() -> str:
    if shutil.which("unshare") is None:
        return "unshare is not on this machine"
    tried = subprocess.run(
        [*_ALONE, "sh", "-c", 'd=$(mktemp -d) && mount -t tmpfs none "$d"'],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return "" if tried.returncode == 0 else f"no mounts of one's own here: {tried.stderr.strip()}"


@pytest.fixture
def here(tiny_home: Path, tmp_path: Path) -> Iterator[Field]:
    if why := _why_not():
        pytest.skip(why)
    with field(tiny_home, tmp_path) as made:
        yield made


class Ballast:
    """Takes every free byte of a file system, and each one that comes free, until it is dropped.

    Filling it once is not enough: SQLite removes a journal when its last connection closes, which
    gives the site room for another charge, and another.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dropped = threading.Event()
        self._filler = threading.Thread(target=self._hold, daemon=True)

    def _hold(self) -> None:
        with self._path.open("wb", buffering=0) as out:
            while not self._dropped.wait(0.01):
                for size in (1 << 16, _BLOCK, 1):
                    with suppress(OSError):
                        while True:
                            out.write(b"x" * size)

    def __enter__(self) -> Ballast:
        self._filler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._dropped.set()
        self._filler.join(timeout=60)
        self._path.unlink()


def _told(run: Path, event: str) -> list[dict[str, Any]]:
    told = map(json.loads, (run / "progress.jsonl").read_text().splitlines())
    return [facts for facts in told if facts["event"] == event]


def _missed(run: Path) -> bool:
    return any("clinic-b" not in event["accepted"] for event in _told(run, "closed"))


def test_a_site_with_a_full_disk_misses_rounds_and_comes_back_when_there_is_room(
    here: Field,
) -> None:
    site = here.site("clinic-b")
    here.kill("clinic-b", signal.SIGTERM)
    with (here.machine.logs / "clinic-b-small.log").open("wb") as log:
        small = subprocess.Popen(
            [*_ALONE, "sh", "-c", _SMALL, "sh", str(site),
             sys.executable, "-m", "privity", "client", "run", str(site)],
            env=here.machine.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    here.machine.running.append(small)
    here.processes["clinic-b"], here.started["clinic-b"] = small, time.time()
    inside = Path(f"/proc/{small.pid}/root{site}")
    here.victim("runner:clinic-b")
    here.back("clinic-b")
    assert os.statvfs(inside).f_blocks * os.statvfs(inside).f_frsize == 16 << 20

    run_file = here.federation.run_file(
        rounds=_ROUNDS, quorum=1, steps_per_round=40, epsilon=0.3,
        round_timeout_s=400.0, join_timeout_s=400.0,
    )  # fmt: skip
    command, run = here.train(run_file), here.hub / "runs" / "triage"
    both = {"institution": "clinic-b", "accepted": True}
    here.until(lambda: here.told("triage", "update", round=0, **both), "an update of both")
    with Ballast(inside / "ballast"):
        here.until(lambda: os.statvfs(inside).f_bavail == 0, "a full disk")
        going = max(event["round"] for event in _told(run, "round"))
        here.until(lambda: _missed(run), "a round that was missed")
    assert here.ended(command) == 0, here.tail()

    from client import folder

    # SQLite follows the link of /proc out of the mount again, so a copy is looked at.
    copy = here.federation.root / "copy"
    shutil.copytree(inside, copy, ignore=shutil.ignore_patterns("runtime"))
    (copy / "runtime").mkdir()
    here.federation.sites["clinic-b"] = folder.open_folder(copy)
    closed = here.check("triage")
    assert sorted(closed) == list(range(_ROUNDS))
    assert closed[0]["accepted"] == closed[_ROUNDS - 1]["accepted"] == ["clinic-a", "clinic-b"]
    out = {number for number, fates in closed.items() if "clinic-b" not in fates["accepted"]}
    # The round that was going on when the disk filled up may have had its answer already.
    assert out & {going, going + 1}, (going, closed)
    assert all(fates["accepted"] for fates in closed.values())
    assert small.poll() is None, "it outlived the full disk"
