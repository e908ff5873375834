"""The utility benchmark runs from end to end, and goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import running

DATA = running.ROOT.parent / "shared" / "data"


def test_without_the_data_it_says_so_and_ends_well(tmp_path: Path) -> None:
    done = running.quick("utility", tmp_path, "--data", str(tmp_path), "--sets", "desks")
    assert done.returncode == 0
    assert "skipped desks" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["bars"] == {}


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of public data sets is not here")
def test_finished_cells_are_not_computed_again(tmp_path: Path) -> None:
    state = tmp_path / "cells.json"
    wish = ("--data", str(DATA), "--sets", "desks", "--state", str(state))
    first = running.quick("utility", tmp_path, *wish, "--cells", "base", "open")
    assert first.returncode == 0, first.stderr
    figures = json.loads(first.stdout.splitlines()[-1])["figures"]["desks"]
    assert set(figures) == {"base", "open#0"}
    second = running.quick("utility", tmp_path, *wish, "--cells", "base", "open", "alone-2")
    found = json.loads(second.stdout.splitlines()[-1])["figures"]["desks"]
    assert {name: found[name] for name in figures} == figures
    assert len(found) == 6
    assert "open#0/8: judging" not in second.stderr
