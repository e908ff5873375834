"""The utility benchmark runs from end to end, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


def _run(home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "utility.py"), "--quick", "--json"]
    return subprocess.run(
        [*command, *more],
        env={**os.environ, "PRIVITY_HOME": str(home), "OMP_NUM_THREADS": "1"},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_without_the_data_it_says_so_and_ends_well(tmp_path: Path) -> None:
    done = _run(tmp_path, "--data", str(tmp_path), "--sets", "desks")
    assert done.returncode == 0
    assert "skipped desks" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["bars"] == {}


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of public data sets is not here")
def test_finished_cells_are_not_computed_again(tmp_path: Path) -> None:
    state = tmp_path / "cells.json"
    wish = ("--data", str(DATA), "--sets", "desks", "--state", str(state))
    first = _run(tmp_path, *wish, "--cells", "base", "open")
    assert first.returncode == 0, first.stderr
    figures = json.loads(first.stdout.splitlines()[-1])["figures"]["desks"]
    assert set(figures) == {"base", "open#0"}
    second = _run(tmp_path, *wish, "--cells", "base", "open", "alone-2")
    found = json.loads(second.stdout.splitlines()[-1])["figures"]["desks"]
    assert {name: found[name] for name in figures} == figures
    assert len(found) == 6
    assert "open#0/8: judging" not in second.stderr
