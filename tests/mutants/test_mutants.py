"""The tests of private training notice every way in which we know to break it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_STRAY = """
import run
from mutants import Mutant
run._HEAVY = ("torch", "hypothesis")
test = "tests/privacy/test_ledger.py::test_one_cohort_keeps_one_delta"
old = "GENESIS = chain.GENESIS"
run.MUTANTS = (Mutant("harmless", "privacy/ledger.py", old, {new!r}, (test,)),)
raise SystemExit(run.main([]))
"""


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=HERE, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
def test_every_mutant_is_killed() -> None:
    done = _run("run.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SURVIVED" not in done.stdout
    assert " 0 survived" in done.stdout.splitlines()[-1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
@pytest.mark.parametrize(
    ("new", "said"),
    [("GENESIS = str(chain.GENESIS)", "SURVIVED harmless"), ("GENESIS = missing", "BROKEN")],
)
def test_a_mutant_that_no_test_notices_or_can_judge_fails_the_run(new: str, said: str) -> None:
    done = _run("-c", _STRAY.format(new=new))
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert "0 killed, 1 survived" in done.stdout


def test_a_stale_mutant_is_an_error() -> None:
    code = "import run, mutants, dataclasses\nfirst = mutants.MUTANTS[0]\n"
    for change in ("old='no such text'", "old='import'", "also=('no such text', '')"):
        done = _run("-c", f"{code}run.check_fresh([dataclasses.replace(first, {change})])")
        assert "ValueError" in done.stderr, change
    assert _run("-c", f"{code}run.check_fresh(mutants.MUTANTS)").returncode == 0
