"""The budget to be looked at: figures, the next run's cost, and a picture that needs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import privity
from client import budget, budget_page
from client import folder as folders
from client.folder import Folder
from privacy import journal
from privacy.plan import Mechanism, epsilon

ROW = Mechanism(3.2, 0.1, 40)


@pytest.fixture
def site(tmp_path: Path) -> Folder:
    """Two runs: one whole, one of which a round was begun."""
    made = folders.create(tmp_path / "clinic-a", name="clinic-a", coordinator="127.0.0.1:8443")
    ledger = made.ledger()
    for run, begun in (("first", 5), ("second", 1)):
        ledger.reserve(cohort="all", run=run, plan_digest="sha256:" + "a" * 64, mechanism=ROW,
                       rounds=5, delta=1e-5, cap=2.0)  # fmt: skip
        for number in range(begun):
            ledger.begin_round(run, number, input_digest="d")
    return made


def test_the_figures_are_the_plds_of_what_was_reserved_and_begun(site: Folder) -> None:
    found = budget.facts(site)
    spent = epsilon([ROW, Mechanism(3.2, 0.1, 8)], delta=1e-5)
    everything = epsilon([ROW, ROW], delta=1e-5)
    assert found["spent"] == pytest.approx(spent, abs=1e-6)
    assert found["reserved"] == pytest.approx(everything - spent, abs=1e-6)
    assert found["left"] == pytest.approx(2.0 - everything, abs=1e-6)
    assert found["ledger_head"] == site.ledger().head()
    assert [row["rounds_begun"] for row in found["rows"]] == [5, 1]
    assert found["rows"][0]["epsilon_alone"] == pytest.approx(epsilon([ROW], delta=1e-5), abs=1e-6)


def test_the_history_ends_where_the_balance_stands_and_never_goes_down(site: Folder) -> None:
    points = budget.history(site)
    assert len(points) == 8
    for name in ("reserved", "spent"):
        values = [getattr(point, name) for point in points]
        assert values == sorted(values)
    balance = site.ledger().balance("all", delta=1e-5, cap=2.0)
    assert points[-1].spent == pytest.approx(balance.spent)
    assert points[-1].reserved == pytest.approx(balance.spent + balance.reserved)


def test_a_long_history_is_drawn_with_few_points_and_the_right_end(tmp_path: Path) -> None:
    made = folders.create(tmp_path / "clinic-a", name="clinic-a", coordinator="127.0.0.1:8443")
    ledger = made.ledger()
    ledger.reserve(cohort="all", run="long", plan_digest="d", mechanism=Mechanism(9.0, 0.1, 90),
                   rounds=90, delta=1e-5, cap=2.0)  # fmt: skip
    for number in range(85):
        ledger.begin_round("long", number, input_digest="d")
    points = budget.history(made)
    assert len(points) <= 42
    assert points[-1].spent == ledger.balance("all", delta=1e-5, cap=2.0).spent


def _numbers(page: str, key: str) -> list[float]:
    path = re.search(rf'<path d="([^"]+)" fill="var\(--{key}\)"', page)
    assert path is not None
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", path.group(1))]


def test_the_page_needs_nothing_else_and_draws_within_its_frame(
    site: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Back(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2001, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(journal, "datetime", Back)  # a clock that went back by decades
    site.ledger().begin_round("second", 1, input_digest="d")
    facts = budget.facts(site)
    page = budget_page.render("clinic-a", facts)
    assert not re.search(r"(src|href|url|@import|<script|https?:)", page)
    assert "zero-out" in page
    for key in ("held", "spent"):
        assert all(0 <= number <= 860 for number in _numbers(page, key))
    assert f"{facts['spent']:.3f}" in page
    empty = facts | {"history": [], "rows": [], "spent": 0.0, "reserved": 0.0}
    assert "No run has reserved anything" in budget_page.render("clinic-a", empty)


def test_the_command_says_what_the_next_run_costs_and_draws_it(
    federation: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = federation(("clinic-a",))
    run, site, out = made.run_file(epsilon=1.5), made.root / "clinic-a", tmp_path / "b.html"
    assert privity.main(["client", "budget", str(site), "--run", str(run), "--json",
                         "--out", str(out)]) == 0  # fmt: skip
    found = json.loads(capfd.readouterr().out)
    following = found["next"]
    assert following["decision"] == "acceptable"
    assert 1.3 < following["costs"] == following["epsilon_after"] <= 1.5
    assert following["left_after"] == pytest.approx(2.0 - following["epsilon_after"], abs=1e-3)
    assert out.stat().st_mode & 0o777 == 0o600
    assert "after triage" in out.read_text()
    made.set("clinic-a", epsilon=1.0)
    assert privity.main(["client", "budget", str(site), "--run", str(run)]) == 3
    assert "epsilon-over-budget" in capfd.readouterr().out
    assert privity.main(["client", "budget", str(site), "--run", str(tmp_path / "no.toml")]) == 2
