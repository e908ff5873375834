"""The benchmark of federations runs from end to end, and its bars say what they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import federation
from tests.bench import running


def test_a_quick_run_of_the_crowd_ends_with_its_figures(tmp_path: Path) -> None:
    done = running.quick("federation", tmp_path, "--parts", "memory,many")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["bench"] == "federation"
    assert last["bars"] == {}  # a quick run says nothing about them
    assert [row["institutions"] for row in last["figures"]["memory"]] == [2, 6, 2, 6]
    assert last["figures"]["many"]["institutions"] == 8
    for row in (*last["figures"]["memory"], last["figures"]["many"]):
        assert 0 < row["peak_mb"] < 100
        assert row["round_seconds"] > 0
    assert "6 institutions, updates of 2 MB" in done.stdout


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    done = running.quick("federation", tmp_path, "--parts", "magic")
    assert done.returncode == 2
    assert "round,bytes,memory,many" in done.stderr


def _found(peak: float, seconds: float, ratio: float) -> dict[str, Any]:
    return {
        "round_seconds": seconds,
        "bytes": {"received_ratio": ratio, "sent_ratio": ratio},
        "memory": [
            {"institutions": 5, "update_mb": 8, "peak_mb": 30.0},
            {"institutions": 40, "update_mb": 8, "peak_mb": peak},
        ],
    }


def test_every_bar_can_hold_and_can_fail() -> None:
    good = federation.judge(_found(31.0, 1.2, 1.02))
    assert len(good) == 4
    assert all(bar.holds for bar in good.values())
    bad = federation.judge(_found(30.0 + 35 * 8, 2.1, 1.11))  # it keeps every update
    assert not any(bar.holds for bar in bad.values())
    assert federation.judge({}) == {}
