"""What was charged is what is claimed, in one account that forgets nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import dpsgd, journal, plan
from privacy.csprng import Csprng
from privacy.errors import BudgetExhausted
from privacy.ledger import Ledger
from privacy.plan import Mechanism
from tests.privacy.toy import DELTA, DIGEST, reserve

ROOT = Path(__file__).parents[2]
Make = Callable[..., Any]


# -- epsilon --------------------------------------------------------------------------------------


_GRID = [
    [Mechanism(noise, rate, steps)]
    for noise, rate, steps in [
        (0.9, 0.01, 300), (1.4, 0.05, 60), (2.2478, 0.1, 100), (4.0, 0.25, 80), (6.0, 0.5, 30),
        (20.0, 1.0, 50),
    ]
] + [[Mechanism(4.0, 0.05, 200), Mechanism(2.0, 0.02, 50), Mechanism(9.0, 0.3, 20)]]  # fmt: skip


@pytest.mark.parametrize("rows", _GRID)
def test_a_second_accountant_agrees_within_two_hundredths(rows: list[Mechanism]) -> None:
    ours = plan.epsilon(rows, delta=DELTA)
    assert abs(dpsgd.prv_epsilon(rows, delta=DELTA) - ours) <= 0.02
    louder = [Mechanism(row.noise_multiplier * 1.1, row.sample_rate, row.steps) for row in rows]
    assert abs(plan.epsilon(louder, delta=DELTA) - ours) > 0.02


@settings(deadline=None, max_examples=8)
@given(
    rounds=st.lists(
        st.tuples(st.sampled_from([(50.0, 1.0), (80.0, 1.0)]), st.integers(1, 5)),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_one_ledger_composes_rounds_runs_and_different_plans(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[tuple[float, float], int]]
) -> None:
    book = Ledger.create(tmp_path_factory.mktemp("book") / "ledger.db")
    flat: list[Mechanism] = []
    for number, ((noise, rate), count) in enumerate(rounds):
        reserved = reserve(Ledger.open(book.path), f"run-{number}",
                            Mechanism(noise, rate, 4 * count), rounds=count)  # fmt: skip
        assert reserved.epsilon_before == plan.epsilon(flat, delta=DELTA)
        for begun in range(count):
            book.begin_round(f"run-{number}", begun, input_digest=DIGEST)
            flat += [Mechanism(noise, rate, 1)] * 4
        assert reserved.epsilon_after == plan.epsilon(flat, delta=DELTA)
        assert reserved.epsilon_after > reserved.epsilon_before
    balance = Ledger.open(book.path).balance("ward", delta=DELTA, cap=2.0)
    assert balance.spent == plan.epsilon(flat, delta=DELTA)
    assert balance.reserved == pytest.approx(0.0, abs=1e-9)


def test_rounds_accumulate_until_the_institution_refuses(tmp_path: Path) -> None:
    book = Ledger.create(tmp_path / "ledger.db")
    row, spent, number = Mechanism(8.0, 0.1, 100), 0.0, 0
    for number in range(50):
        try:
            answer = reserve(Ledger.open(book.path), f"run-{number}", row, rounds=10, cap=1.0)
        except BudgetExhausted:
            break
        assert spent < answer.epsilon_after <= 1.0
        spent = answer.epsilon_after
    assert plan.epsilon([row] * (number + 1), delta=DELTA) > 1.0
    assert spent == plan.epsilon([row] * number, delta=DELTA)


def test_the_claim_does_not_move_with_the_bound_that_only_saves_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Renyi orders decide whether a loss is hopeless, never how large it is."""
    rows = [Mechanism(7.123, 0.1, 17)]
    plan._epsilon.cache_clear()
    before = plan.epsilon(rows, delta=DELTA)
    monkeypatch.setattr(plan, "_renyi_bound", lambda rows, delta: 0.001)
    plan._epsilon.cache_clear()
    assert plan.epsilon(rows, delta=DELTA) == before
    plan._epsilon.cache_clear()


_FOREIGN_ACCOUNTS = {"RDPAccountant", "GaussianAccountant", "PrivacyEngine", "create_accountant",
                     "get_noise_multiplier", "gdp", "compute_eps_poisson", "GdpAccountant",
                     "compute_rdp", "get_privacy_spent"}  # fmt: skip


def _accountants(path: Path) -> set[str]:
    """Names of the loose or optimistic accountants that a file mentions in its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
        names |= {node.attr} if isinstance(node, ast.Attribute) else set()
        names |= {node.id} if isinstance(node, ast.Name) else set()
    return {part for name in names for part in name.split(".")} & {*_FOREIGN_ACCOUNTS, "rdp"}


def _product() -> Iterator[Path]:
    for package in ("configs", "privacy", "model", "audit", "client", "server", "demo"):
        yield from sorted((ROOT / package).rglob("*.py"))


def test_no_looser_accountant_is_within_reach_of_a_claim() -> None:
    users = {
        p.relative_to(ROOT).as_posix(): found for p in _product() if (found := _accountants(p))
    }
    assert users == {"privacy/plan.py": {"rdp"}}
    tree = ast.parse((ROOT / "privacy/plan.py").read_text(encoding="utf-8"))
    using = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id == "rdp"
    }
    assert using == {"_renyi_bound"}


def test_the_search_for_looser_accountants_finds_them(tmp_path: Path) -> None:
    for number, text in enumerate(
        ["from opacus.accountants import RDPAccountant",
         "from opacus.accountants.analysis import gdp", "x = opacus.PrivacyEngine()",
         "from dp_accounting import rdp"]
    ):  # fmt: skip
        path = tmp_path / f"{number}.py"
        path.write_text(text)
        assert _accountants(path)


# -- the ledger's file ----------------------------------------------------------------------------


def test_a_charge_is_on_the_disk_before_the_call_returns(tmp_path: Path) -> None:
    """Write-ahead log, synced at every commit, in one transaction that excludes other writers."""
    book = Ledger.create(tmp_path / "ledger.db")
    connection = journal._connect(book.path)
    try:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA fullfsync").fetchone() == (1,)
    finally:
        connection.close()


def test_charges_by_several_processes_at_once_all_stand(tmp_path: Path) -> None:
    """Each composes what all before it charged: no two see the same balance."""
    book = Ledger.create(tmp_path / "ledger.db")
    code = (
        "import sys\nfrom pathlib import Path\nfrom privacy.ledger import Ledger\n"
        "from privacy.plan import Mechanism\n"
        "for n in range(4):\n"
        "    print(Ledger.open(Path(sys.argv[1])).reserve(cohort='ward',\n"
        "        run=f'{sys.argv[2]}-{n}', plan_digest='d',\n"
        "        mechanism=Mechanism(100.0, 1.0, 5), rounds=5, delta=1e-5,\n"
        "        cap=2.0).epsilon_after)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(book.path), name], cwd=ROOT, text=True,
                         stdout=subprocess.PIPE)
        for name in "ab"
    ]  # fmt: skip
    told = [float(line) for one in running for line in one.communicate()[0].split()]
    assert [one.returncode for one in running] == [0, 0]
    assert sorted(told) == [
        plan.epsilon([Mechanism(100.0, 1.0, 5 * n)], delta=DELTA) for n in range(1, 9)
    ]


def test_the_sampler_that_is_accounted_for_is_the_one_in_use() -> None:
    """`Csprng.poisson_sample` alone decides who is in a step."""
    source = (ROOT / "privacy/dpsgd.py").read_text(encoding="utf-8")
    calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    assert [call for call in calls if "sample" in call.rpartition(".")[2]] == [
        "randomness.poisson_sample"
    ]
    assert "DataLoader" not in source
    assert Csprng.poisson_sample.__qualname__ == "Csprng.poisson_sample"
