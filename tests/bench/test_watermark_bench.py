"""The watermark benchmark runs from end to end on a tiny model, every part of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import running

DATA = running.ROOT.parent / "shared" / "data"


def test_without_the_data_the_speed_is_measured_all_the_same(tmp_path: Path) -> None:
    done = running.quick("watermark", tmp_path, "--data", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert figures["speed"]["named"] == 6


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of public data sets is not here")
def test_every_part_gives_its_figures_and_its_bars(tmp_path: Path) -> None:
    wish = ("--data", str(DATA), "--adapters", "private", "--parts", "utility", "single", "merged")
    done = running.quick("watermark", tmp_path, *wish, "registered", "collusion", "false")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    figures = found["figures"]["private"]
    assert set(figures) >= {"utility", "single", "merged", "registered", "collusion", "false"}
    assert len(figures["single"]) == 28
    assert len(figures["merged"]) == 13
    assert figures["single"]["untouched"]["lowest z of the recipient"] > 8
    assert found["bars"]["private, collusion: innocents named"]["holds"]
