"""The ledger under bad luck: killed at every write, two at once, no space, clocks, old copies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from privacy import journal, plan
from privacy.errors import LedgerFault, RoundSpent
from privacy.ledger import GENESIS, Ledger
from privacy.plan import Mechanism
from tests.privacy import killing

ROOT = Path(__file__).resolve().parents[2]
DELTA = 1e-5
ROW = Mechanism(30.0, 1.0, 20)
KILLS = 300


def _python(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, **more,
    )  # fmt: skip


def _reserve(ledger: Ledger, run: str = "run-1", **change: Any) -> Any:
    values: dict[str, Any] = {
        "cohort": "ward", "run": run, "plan_digest": "sha256:1", "mechanism": ROW, "rounds": 4,
        "delta": DELTA, "cap": 8.0,
    }  # fmt: skip
    return ledger.reserve(**values | change)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "ledger.sqlite")


@pytest.mark.skipif(
    not killing.supported(), reason="follows system calls of Linux on x86-64, arm64"
)
def test_a_kill_before_any_write_never_leaves_less_charged_than_was_released(
    ledger: Ledger,
) -> None:
    done = _python("tests/privacy/killing.py", ledger.path, KILLS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == KILLS
    assert found["hit"] == found["calls"] > 20  # every single call was the last one at least once
    after = Ledger.open(ledger.path)
    short = []
    for run, told in found["told"].items():
        charged = ({-1} if after.rows(run) else set()) | set(after.begun(run))
        # Released is at most what it was told had been charged; in flight is at most one more.
        if not set(told) <= charged or len(charged - set(told)) > 1:
            short.append((run, told, charged))
        released = sum(number >= 0 for number in told)
        if released:
            spent = after.balance(run, delta=DELTA, cap=50.0).spent
            part = Mechanism(killing.ROW.noise_multiplier, 1.0, 10 * released)
            assert spent >= plan.epsilon([part], delta=DELTA)
    assert short == []


_COMPETE = """
import sys
from pathlib import Path
from privacy.errors import BudgetExhausted, RoundSpent
from privacy.ledger import Ledger
from privacy.plan import Mechanism
path, who = Path(sys.argv[1]), sys.argv[2]
for number in range(6):
    try:
        Ledger.open(path).reserve(cohort="ward", run=f"{who}-{number}", plan_digest="d", rounds=1,
            mechanism=Mechanism(30.0, 1.0, 20), delta=1e-5, cap=float(sys.argv[3]))
        print("reserved", flush=True)
    except BudgetExhausted:
        print("refused", flush=True)
for number in range(40):
    try:
        Ledger.open(path).begin_round("shared", number, input_digest="d")
        print(number, flush=True)
    except RoundSpent:
        pass
"""


def test_two_processes_at_once_never_pass_the_cap_nor_begin_a_round_twice(ledger: Ledger) -> None:
    shared = Mechanism(300.0, 1.0, 40)
    _reserve(ledger, "shared", mechanism=shared, rounds=40, cohort="other")
    cap = plan.epsilon([Mechanism(30.0, 1.0, 100)], delta=DELTA)  # room for five of twelve
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _COMPETE, str(ledger.path), who, str(cap)], cwd=ROOT,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for who in "ab"
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    words = [*said[0], *said[1]]
    assert words.count("reserved") == 5
    assert words.count("refused") == 7
    rounds = [int(word) for word in words if word.isdigit()]
    assert sorted(rounds) == list(range(40))
    assert ledger.balance("ward", delta=DELTA, cap=cap).left >= 0.0


_FULL = """
import resource, signal, sys
from pathlib import Path
from privacy.errors import LedgerFault
from privacy.ledger import Ledger
from privacy.plan import Mechanism
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger, most = Ledger.open(Path(sys.argv[1])), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
for number in range(1000):
    try:
        ledger.begin_round("run-1", number, input_digest="d" * 2000)
    except LedgerFault as fault:
        print(fault, file=sys.stderr)
        break
    print(number, flush=True)
"""


@pytest.mark.parametrize("room", [8_192, 40_000, 100_000, 131_072])
def test_a_disk_that_fills_up_stops_the_charging_and_forgets_none(
    ledger: Ledger, room: int
) -> None:
    """The file may not grow beyond `room`, wherever in a transaction that happens to fall."""
    _reserve(ledger, mechanism=Mechanism(1000.0, 1.0, 1000), rounds=1000, cap=50.0)
    said = _python("-c", _FULL, ledger.path, room + ledger.path.stat().st_size)
    told = {int(word) for word in said.stdout.split()}
    assert "nothing may be trained" in said.stderr
    assert told <= Ledger.open(ledger.path).begun("run-1")
    assert len(Ledger.open(ledger.path).begun("run-1") - told) <= 1
    ledger.begin_round("run-1", 999, input_digest="d")  # and with space again it goes on


@pytest.mark.parametrize("jump", [timedelta(days=-4000), timedelta(days=4000)])
def test_a_clock_that_jumps_changes_nothing_that_is_charged(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, jump: timedelta
) -> None:
    _reserve(ledger)
    ledger.begin_round("run-1", 0, input_digest="d")
    before = ledger.balance("ward", delta=DELTA, cap=8.0)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2030, 1, 1, tzinfo=UTC) + jump

    monkeypatch.setattr(journal, "datetime", Clock)
    after = ledger.balance("ward", delta=DELTA, cap=8.0)
    assert (after.spent, after.reserved, after.left) == (
        before.spent, before.reserved, before.left)  # fmt: skip
    with pytest.raises(RoundSpent):
        ledger.begin_round("run-1", 0, input_digest="d")
    ledger.begin_round("run-1", 1, input_digest="d")
    _reserve(ledger, "run-2")
    monkeypatch.undo()
    assert [row.run for row in ledger.rows("ward")] == ["run-1", "run-2"]
    assert ledger.begun("run-1") == {0, 1}


def test_every_older_copy_is_told_by_the_head_that_was_published(
    ledger: Ledger, tmp_path: Path
) -> None:
    copies, heads = [], []
    for step in range(5):
        shutil.copytree(ledger.path.parent, tmp_path.parent / f"{tmp_path.name}-{step}")
        copies.append(tmp_path.parent / f"{tmp_path.name}-{step}" / ledger.path.name)
        heads.append(ledger.head())
        if step == 0:
            _reserve(ledger)
        else:
            ledger.begin_round("run-1", step - 1, input_digest="d")
    for older, copy in enumerate(copies):
        restored = Ledger.open(copy)
        for newer, head in enumerate(heads):
            if newer <= older or head == GENESIS:
                restored.check_holds(head)
            else:
                with pytest.raises(LedgerFault, match="restore the newest"):
                    restored.check_holds(head)
                with pytest.raises(LedgerFault, match="lacks the published head"):
                    restored.check_holds(*heads[: newer + 1])
        restored.check_holds(*heads[: older + 1])
