"""The benchmark of serving runs from end to end, and tells what was lost from what was left."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench import serving
from tests.bench import running


def test_a_quick_run_ends_with_its_figures_and_bars(tmp_path: Path) -> None:
    done = running.quick("serving", tmp_path, "--only", "gateway")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["bench"] == "serving"
    assert set(last["figures"]) == {"direct_p50_ms", "through_p50_ms"}
    assert set(last["bars"]) == {"overhead of the gateway, ms at P50"}


def test_the_99th_percentile_is_the_slowest_of_a_hundred_but_one() -> None:
    assert serving.p99(range(1, 101)) == 99
    assert serving.p99([3.0]) == 3.0
    assert math.isnan(serving.p99([]))


@pytest.mark.parametrize(
    ("harm", "field"), [("cut", "lost"), ("swap", "mixed_up"), ("stall", "stuck")]
)
def test_what_is_lost_mixed_up_or_stuck_is_counted(
    monkeypatch: pytest.MonkeyPatch, harm: str, field: str
) -> None:
    calls = []

    async def stream(http: Any, url: str, body: Any, *, leave_after: int | None) -> Any:
        calls.append(leave_after)
        text = body["messages"][0]["content"]
        if len(calls) <= 40:  # what is expected is asked for first
            return text, True
        if leave_after is not None:
            return text[:leave_after], False
        if harm == "cut" and len(calls) % 7 == 0:
            return text[:2], False
        return ("another's answer" if harm == "swap" and len(calls) % 7 == 0 else text), True

    async def drained(url: str) -> bool:
        return harm != "stall"

    monkeypatch.setattr(serving, "stream", stream)
    monkeypatch.setattr(serving, "drained", drained)
    found = asyncio.run(serving.thousand("http://x", count=60, tokens=8))
    assert found["streams"] == 60
    assert found["left"] > 5
    assert {name for name in ("lost", "mixed_up", "stuck") if found[name]} == {field}
