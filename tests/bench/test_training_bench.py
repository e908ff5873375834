"""The training benchmark runs from end to end, and its bars say what they are called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import measure, training
from tests.bench import running


def arm(seconds: float, peak: float, above: float) -> dict[str, Any]:
    return {"seconds_per_1000": seconds, "peak_mib": peak, "peak_above_model_mib": above}


def found(ours: float = 1.0, noise: float = 0.01) -> dict[str, Any]:
    arms = {
        "a": arm(2.0, 3000, 2000),
        "b": arm(1.1, 2500, 1500),
        "c": arm(ours, 1400, 400),
        "d": arm(0.98, 1300, 300),
        "e": arm(3.0, 2500, 1500),
    }
    ratios = {f"{name}/c": arms[name]["seconds_per_1000"] / ours for name in "abde"}
    return {"arms": arms, "ratios": ratios, "noise_share": noise}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    home = tmp_path_factory.mktemp("home")
    return running.quick("training", home, "--arms", "bc", "--matrices", "q,v")


def test_a_quick_run_needs_neither_model_nor_data_and_ends_with_its_figures(
    quick: subprocess.CompletedProcess[str],
) -> None:
    assert quick.returncode == 0, quick.stderr
    last = json.loads(quick.stdout.splitlines()[-1])
    assert set(last) == {"bench", "machine", "figures", "bars"}
    assert last["bench"] == "training"
    assert last["bars"] == {}  # a tiny model says nothing about them
    (figures,) = last["figures"].values()
    assert set(figures["arms"]) == {"b", "c"}
    assert set(figures["ratios"]) == {"b/c"}
    for row in figures["arms"].values():
        assert row["seconds_per_1000"] > 0
        assert row["peak_mib"] > row["peak_above_model_mib"] >= 0
    assert 0 < figures["noise_share"] < 1


def test_the_table_names_every_arm_that_ran(quick: subprocess.CompletedProcess[str]) -> None:
    assert "ours, private" in quick.stdout
    assert "Opacus" not in quick.stdout


def test_a_data_set_that_is_not_there_is_skipped_with_the_reason(tmp_path: Path) -> None:
    assert training._texts(training.SETS["medquad"], tmp_path) is None


def test_every_bar_can_hold_and_can_fail() -> None:
    good = training.judge("x", found(), units=False)
    assert len(good) == 8
    assert all(bar.holds for bar in good.values())
    slow = training.judge("x", found(ours=1.4, noise=0.04), units=False)
    assert {name for name, bar in slow.items() if not bar.holds} == {
        "x: times as fast as a",
        "x: times as fast as b",
        "x: time over d",
        "x: noise, share of a step",
    }


def test_with_matrix_units_more_is_asked() -> None:
    bars = training.judge("x", found(), units=True)
    assert not bars["x: times as fast as a"].holds
    assert bars["x: times as fast as a"].limit == 4.0
    assert bars["x: times as fast as e"].holds


def test_without_ours_there_is_nothing_to_judge() -> None:
    rest = found()
    del rest["arms"]["c"]
    assert training.judge("x", rest, units=False) == {}


def test_a_figure_that_is_no_number_holds_no_bar() -> None:
    nan = float("nan")
    assert not measure.at_least(nan, 1.0).holds
    assert not measure.at_most(nan, 1.0).holds


def test_the_peak_is_counted_from_where_it_was_forgotten() -> None:
    # In a process of its own: where other tests ran before, freed memory takes the new block up.
    held = subprocess.run(
        [sys.executable, "-c", _PEAKS], cwd=measure.ROOT, capture_output=True, text=True, check=True
    )
    kernel, before, risen, fallen = json.loads(held.stdout)
    if not kernel:
        pytest.skip("this kernel does not forget a process's peak of memory")
    assert risen >= before + 30 * 2**20
    assert fallen < before


_PEAKS = """
import json, mmap, pathlib, re
from bench import measure

def high():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

def filled(mib):
    block = mmap.mmap(-1, mib * 2**20)
    block.write(bytes([1]) * len(block))
    return block

filled(64).close()
first = high()
pathlib.Path("/proc/self/clear_refs").write_text("5")
kernel = high() < first - 2**15
block = filled(64)
measure.forget_peak()
before = measure.peak()
more = filled(96)
risen = measure.peak()
block.close()
more.close()
measure.resident()
measure.forget_peak()
print(json.dumps([kernel, before, risen, measure.peak()]))
"""
