from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from privacy import chain, journal, plan
from privacy.errors import BudgetExhausted, LedgerFault, PlanInvalid, RoundSpent
from privacy.ledger import GENESIS, Ledger
from privacy.plan import Mechanism

DELTA = 1e-5
NAN = float("nan")
# A full-batch Gaussian composes in milliseconds.
SMALL = Mechanism(100.0, 1.0, 20)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "ledger.db")


def _reserve(ledger: Ledger, run: str = "run-1", **changes: Any) -> Any:
    request: dict[str, Any] = {
        "cohort": "ward",
        "run": run,
        "plan_digest": "sha256:" + "0" * 64,
        "mechanism": SMALL,
        "rounds": 4,
        "delta": DELTA,
        "cap": 2.0,
    }
    return ledger.reserve(**(request | changes))


def test_a_new_ledger_is_private_empty_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ledger.head() == GENESIS
    assert ledger.rows("ward") == ()
    _reserve(ledger)
    with pytest.raises(LedgerFault, match="exists already"):
        Ledger.create(path)
    assert len(Ledger.open(path).rows("ward")) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger.db"]


def test_a_reservation_is_composed_from_every_row_of_its_cohort(ledger: Ledger) -> None:
    first = _reserve(ledger)
    second = _reserve(ledger, "run-2", mechanism=Mechanism(50.0, 1.0, 8))
    assert first.epsilon_before == 0.0
    assert second.epsilon_before == first.epsilon_after
    assert second.epsilon_after == plan.epsilon([SMALL, Mechanism(50.0, 1.0, 8)], delta=DELTA)
    other = _reserve(ledger, "run-3", cohort="clinic")
    assert other.epsilon_before == 0.0
    assert ledger.head() == other.head != second.head


def test_a_reservation_over_the_cap_is_refused_and_charges_nothing(ledger: Ledger) -> None:
    cost = plan.epsilon([SMALL], delta=DELTA)
    with pytest.raises(BudgetExhausted, match="over its cap"):
        _reserve(ledger, cap=math.nextafter(cost, 0.0))
    assert ledger.head() == GENESIS
    assert _reserve(ledger, cap=cost).epsilon_after == cost
    with pytest.raises(BudgetExhausted):
        _reserve(ledger, "run-2", cap=cost)
    assert len(ledger.rows("ward")) == 1


def test_reopening_does_not_lower_epsilon(ledger: Ledger) -> None:
    """Per-run accountants would each start from zero."""
    spent = 0.0
    for number in range(4):
        after = _reserve(Ledger.open(ledger.path), f"run-{number}").epsilon_after
        assert after > spent
        spent = after
    whole = Mechanism(SMALL.noise_multiplier, 1.0, 4 * SMALL.steps)
    assert spent == plan.epsilon([whole], delta=DELTA)


def test_the_same_request_again_returns_the_first_answer(ledger: Ledger) -> None:
    first = _reserve(ledger)
    _reserve(ledger, "run-2")
    assert _reserve(Ledger.open(ledger.path)) == first
    assert len(ledger.rows("ward")) == 2
    with pytest.raises(BudgetExhausted):
        _reserve(ledger, cap=first.epsilon_after / 2)  # the institution lowered its cap since


@pytest.mark.parametrize(
    "change",
    [
        {"plan_digest": "sha256:" + "1" * 64},
        {"cohort": "clinic"},
        {"mechanism": Mechanism(100.0, 1.0, 24)},
        {"rounds": 5},
        {"delta": 1e-6},
    ],
)
def test_a_reserved_run_cannot_change_its_plan(ledger: Ledger, change: dict[str, Any]) -> None:
    _reserve(ledger)
    with pytest.raises(PlanInvalid, match="another"):
        _reserve(ledger, **change)


def test_one_cohort_keeps_one_delta(ledger: Ledger) -> None:
    _reserve(ledger)
    with pytest.raises(PlanInvalid, match="one delta"):
        _reserve(ledger, "run-2", delta=1e-6)
    with pytest.raises(PlanInvalid, match="one delta"):
        ledger.balance("ward", delta=1e-6, cap=2.0)


@pytest.mark.parametrize(
    "change",
    [
        *({"cap": value} for value in (0.0, -1.0, NAN, math.inf)),
        *({"delta": value} for value in (0.0, 1.0, NAN)),
        *({"rounds": value} for value in (0, -1, 3, True, 2.0)),
        {"cohort": ""},
        {"run": ""},
        {"plan_digest": ""},
    ],
)
def test_impossible_reservations_are_refused(ledger: Ledger, change: dict[str, Any]) -> None:
    with pytest.raises(PlanInvalid):
        _reserve(ledger, **change)
    assert ledger.head() == GENESIS


def test_a_round_begins_once_and_is_never_refunded(ledger: Ledger) -> None:
    _reserve(ledger)
    ledger.begin_round("run-1", 2, input_digest="sha256:a")
    for digest in ("sha256:a", "sha256:b"):
        with pytest.raises(RoundSpent):
            Ledger.open(ledger.path).begin_round("run-1", 2, input_digest=digest)
    ledger.begin_round("run-1", 0, input_digest="sha256:a")
    assert ledger.rows("ward")[0].rounds_begun == 2


@pytest.mark.parametrize("number", [-1, 4, 1.0, True, "0"])
def test_a_round_that_was_not_reserved_does_not_begin(ledger: Ledger, number: Any) -> None:
    _reserve(ledger)
    head = ledger.head()
    with pytest.raises(PlanInvalid):
        ledger.begin_round("run-1", number, input_digest="sha256:a")
    with pytest.raises(PlanInvalid, match="no reservation"):
        ledger.begin_round("run-9", 0, input_digest="sha256:a")
    assert ledger.head() == head


def test_the_balance_says_what_is_spent_reserved_and_left(ledger: Ledger) -> None:
    empty = ledger.balance("ward", delta=DELTA, cap=2.0)
    assert (empty.spent, empty.reserved, empty.left) == (0.0, 0.0, 2.0)
    _reserve(ledger)
    everything = plan.epsilon([SMALL], delta=DELTA)
    for begun in range(1, 5):
        ledger.begin_round("run-1", begun - 1, input_digest="sha256:a")
        balance = ledger.balance("ward", delta=DELTA, cap=2.0)
        part = Mechanism(SMALL.noise_multiplier, 1.0, 5 * begun)
        assert balance.spent == plan.epsilon([part], delta=DELTA)
        assert balance.spent + balance.reserved == pytest.approx(everything)
        assert balance.left == 2.0 - everything
    with pytest.raises(PlanInvalid):
        ledger.balance("ward", delta=DELTA, cap=NAN)


def _edit(path: Path, statement: str) -> None:
    """Change the file as a person with the sqlite3 shell could."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER entry_is_never_changed")
    connection.execute("DROP TRIGGER entry_is_never_removed")
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE entry SET body = replace(body, '"steps":20', '"steps":2') WHERE position = 0""",
        "UPDATE entry SET digest = 'sha256:00' WHERE position = 1",
        "DELETE FROM entry WHERE position = 0",
        "DELETE FROM entry WHERE position = 1",
        "UPDATE entry SET position = 9 WHERE position = 2",
    ],
)
def test_an_edited_ledger_is_refused(ledger: Ledger, statement: str) -> None:
    for number in range(3):
        _reserve(ledger, f"run-{number}")
    _edit(ledger.path, statement)
    with pytest.raises(LedgerFault):
        Ledger.open(ledger.path)
    with pytest.raises(LedgerFault):
        _reserve(ledger, "run-4")


def test_an_entry_that_was_taken_out_and_the_rest_renumbered_is_missed(ledger: Ledger) -> None:
    """Each entry's digest covers the one before it, so no entry can be dropped without a trace."""
    for number in range(3):
        _reserve(ledger, f"run-{number}")
    _edit(ledger.path, "DELETE FROM entry WHERE position = 1")
    connection = sqlite3.connect(ledger.path, isolation_level=None)
    connection.execute("UPDATE entry SET position = 1 WHERE position = 2")
    connection.close()
    with pytest.raises(LedgerFault, match="does not follow"):
        Ledger.open(ledger.path)


def test_the_file_itself_refuses_changes_and_removals(ledger: Ledger) -> None:
    _reserve(ledger)
    connection = sqlite3.connect(ledger.path)
    for statement in ("DELETE FROM entry", "UPDATE entry SET digest = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            connection.execute(statement)
    connection.close()


def test_a_restored_older_copy_lacks_the_published_head(ledger: Ledger, tmp_path: Path) -> None:
    _reserve(ledger)
    shutil.copy(ledger.path, tmp_path / "backup.db")
    published = [GENESIS, ledger.head()]
    ledger.begin_round("run-1", 0, input_digest="sha256:a")
    published.append(ledger.head())
    for head in published:
        ledger.check_holds(head)
    restored = Ledger.open(tmp_path / "backup.db")  # its own chain is whole
    restored.check_holds(published[1])
    with pytest.raises(LedgerFault, match="older copy"):
        restored.check_holds(published[2])


def test_an_unknown_kind_or_field_is_refused() -> None:
    def entry(body: dict[str, Any]) -> tuple[int, str, str]:
        text = json.dumps(body)
        return 0, text, chain._digest(f"{GENESIS}\n{text}".encode())

    good = {"kind": "round", "time": "t", "run": "r", "round": 0, "input_digest": "d"}
    assert len(chain.replay([entry(good)])) == 1
    missing = {key: value for key, value in good.items() if key != "run"}
    for bad in ({**good, "kind": "refund"}, {**good, "more": 1}, missing, {**good, "round": "0"}):
        with pytest.raises(LedgerFault, match="does not know"):
            chain.replay([entry(bad)])


def test_a_newer_format_another_file_and_no_file_are_refused(ledger: Ledger) -> None:
    connection = sqlite3.connect(ledger.path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(LedgerFault, match="newer version"):
        Ledger.open(ledger.path)
    other = ledger.path.with_name("other.db")
    for content in (b"", b"not a database at all" * 200):
        other.write_bytes(content)
        with pytest.raises(LedgerFault, match="not a ledger"):
            Ledger.open(other)
    missing = ledger.path.with_name("missing.db")
    with pytest.raises(LedgerFault, match="check the path"):
        Ledger.open(missing)
    assert not missing.exists()


def test_a_full_disk_is_a_fault_with_a_remedy_and_charges_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reserve(ledger)
    head = ledger.head()
    connect = journal._connect

    def tight(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 1")  # no page may be added to what there is
        return connection

    monkeypatch.setattr(journal, "_connect", tight)
    with pytest.raises(LedgerFault, match="free some space"):
        _reserve(ledger, "run-2", cohort="x" * 20_000)
    monkeypatch.setattr(journal, "_connect", connect)
    assert ledger.head() == head
    assert len(ledger.rows("ward")) == 1


def test_a_ledger_held_by_somebody_else_is_waited_for_then_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_PATIENCE_S", 0.1)
    with ledger._journal.write(), pytest.raises(LedgerFault, match="another process"):
        _reserve(ledger)


def test_competing_reservations_never_pass_the_cap_together(ledger: Ledger) -> None:
    cap = plan.epsilon([Mechanism(100.0, 1.0, 60)], delta=DELTA)  # room for three of SMALL
    outcomes: list[str] = []

    def compete(number: int) -> None:
        try:
            _reserve(Ledger.open(ledger.path), f"run-{number}", cap=cap)
            outcomes.append("reserved")
        except BudgetExhausted:
            outcomes.append("refused")

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 5 + ["reserved"] * 3
    assert ledger.balance("ward", delta=DELTA, cap=cap).left >= 0.0


_KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from privacy.ledger import Ledger
from privacy.plan import Mechanism

path = Path(sys.argv[1])
for trial in range(int(sys.argv[2])):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        ledger, row = Ledger.open(path), Mechanism(1000.0, 1.0, 50)
        for number in range(1000):
            run = f"{trial}-{number}"
            ledger.reserve(cohort="ward", run=run, plan_digest="d", mechanism=row, rounds=50,
                           delta=1e-5, cap=50.0)
            os.write(into, f"{run} -1\\n".encode())
            for round in range(5):
                ledger.begin_round(run, round, input_digest="d")
                os.write(into, f"{run} {round}\\n".encode())
    os.close(into)
    told = os.read(out, 1)  # it has acknowledged something
    time.sleep(random.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(out, 65536):
        told += part
    os.close(out)
    sys.stdout.write(told.decode())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
def test_a_kill_at_any_moment_leaves_at_least_what_was_acknowledged(ledger: Ledger) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _KILLED, str(ledger.path), "20"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout.splitlines()
    acknowledged = {tuple(line.split(" ")) for line in told if line}
    assert len({run.split("-")[0] for run, _ in acknowledged}) == 20
    rows = Ledger.open(ledger.path).rows("ward")
    charged = {(row.run, "-1") for row in rows}
    charged |= {(row.run, str(number)) for row in rows for number in range(row.rounds_begun)}
    assert acknowledged <= charged
    assert len(charged - acknowledged) <= 20  # one in flight for each kill
