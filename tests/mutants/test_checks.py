"""Delete a check of the verifier, and a test fails: as many of them as a minute allows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 30  # `make mutants` asks all of them
_STRAY = """
import argparse, checks, run
from pathlib import Path
from sites import Check
source = (run.ROOT / "audit/tiles.py").read_bytes()
old = {old!r}.encode()
assert source.count(old) == 1
start = source.index(old)
line = source[:start].count(b"\\n") + 1
found = Check("audit/tiles.py", line, start, start + len(old), {new!r}, "x", "unpack", "x")
checks.TESTS = ("tests/audit/test_tiles.py", "tests/audit/test_verify.py")
options = argparse.Namespace(state=None, record=False, seconds=None, jobs=1)
raise SystemExit(checks.judged([found], options))
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=HERE, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@needs_fork
def test_a_deleted_check_of_the_verifier_is_noticed() -> None:
    done = _run("checks.py", "--seconds", str(SECONDS))
    assert done.returncode == 0, done.stdout + done.stderr
    last = re.fullmatch(
        r"(\d+) checks, (\d+) judged, \d+ justified, 0 survived, \d+ s",
        done.stdout.splitlines()[-1],
    )
    assert last is not None, done.stdout + done.stderr
    assert int(last[2]) >= 1, "how many depends on the machine, and there is time for one"


@needs_fork
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("entries, offset = [], 0", "offset, entries = 0, []", "1 survived"),
        ("if offset != len(data):", "if False:", "0 survived"),
    ],
)
def test_a_change_that_no_test_notices_is_a_survivor(old: str, new: str, said: str) -> None:
    done = _run("-c", _STRAY.format(old=old, new=new))
    assert done.returncode == int(said[0]), done.stdout + done.stderr
    assert said in done.stdout.splitlines()[-1]


def test_the_tests_that_are_remembered_are_of_checks_that_there_are() -> None:
    listed = _run("checks.py", "--list").stdout.splitlines()
    names = {line.split(" ", 1)[1] for line in listed[:-1]}
    known = json.loads((HERE / "noticed.json").read_text(encoding="utf-8"))
    assert len(names & set(known)) > 0.9 * len(names)
