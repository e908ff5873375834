"""The end of a run follows from its plan's rule and the logged losses, or is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import canonical, stopping

Fields = dict[str, Any]
RULE = {"digest": "sha256:" + "5" * 64, "patience": 1, "least_gain": "0.1", "limit": 9}
OTHER = "sha256:" + "6" * 64


class Judged:
    """Logs a loss after each of the first rounds, and ends the run as told."""

    def __init__(self, *losses: str, outcome: str = "stopped", data: str = "") -> None:
        self.losses, self.outcome, self.data = losses, outcome, data or str(RULE["digest"])

    def after(self, made: Any, turn: int) -> None:
        if turn < len(self.losses):
            fields = {"data_digest": self.data, "loss": self.losses[turn]}
            made.coordinator.log.append("public-loss", fields, run="run-1", round=turn)

    def __call__(self, party: str, kind: str, turn: int | None, fields: Fields) -> Fields:
        return {**fields, "outcome": self.outcome} if kind == "run-finished" else fields


def judged(
    federate: Any, judge: Any, path: Path, edit: Judged, rule: Any = RULE, **more: Any
) -> Any:
    class Told(federate):  # type: ignore[misc]
        def play_round(self, turn: int, adapter: str) -> str:
            output = super().play_round(turn, adapter)
            edit.after(self, turn)
            return str(output)

    made = Told(path, edit=edit, **more)
    made.plan |= {} if rule is None else {"stopping": rule}
    made.plan_digest = canonical.digest(canonical.encode(made.plan))
    return judge(made.play().bundle())


@pytest.mark.parametrize(
    "edit", [Judged("2", "1.95"), Judged("2", "1.5", outcome="completed"),
             Judged("2", outcome="completed")],
)  # fmt: skip
def test_an_end_that_follows_from_the_losses_is_in_order(
    federate: Any, judge: Any, tmp_path: Path, edit: Judged
) -> None:
    found = judged(federate, judge, tmp_path, edit)
    assert found.ok, list(found.lines())
    told = [line for line in found.notices if "as its plan's rule says" in line]
    assert len(told) == (edit.outcome == "stopped")


@pytest.mark.parametrize(
    ("edit", "rule", "code"),
    [
        (Judged("2", "1.5"), RULE, "stopping-differs"),  # it gained, and was ended
        (Judged("2"), RULE, "stopping-differs"),  # ended on too few losses
        (Judged(), RULE, "stopping-differs"),
        (Judged("2", "1.95", data=OTHER), RULE, "stopping-differs"),
        (Judged("2", "1.95"), {**RULE, "patience": "1"}, "stopping-differs"),
        (Judged("2", "1.95"), {**RULE, "least_gain": "x"}, "stopping-differs"),
        (Judged("2", "1.95"), {}, "stopping-differs"),
        (Judged("2", outcome="completed"), None, "stopping-unplanned"),
        (Judged(), None, "stopping-unplanned"),
    ],
)
def test_an_end_that_does_not_follow_is_found(
    federate: Any, judge: Any, tmp_path: Path, edit: Judged, rule: Any, code: str
) -> None:
    found = judged(federate, judge, tmp_path, edit, rule)
    assert code in {fault.code for fault in found.faults}


def test_a_run_that_went_on_after_its_end_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    edit = Judged("2", "2", "1", outcome="completed")
    found = judged(federate, judge, tmp_path, edit, rounds=3)
    assert "stopping-differs" in {fault.code for fault in found.faults}


def test_losses_in_another_order_than_the_rounds_are_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    class Backwards(Judged):
        def after(self, made: Any, turn: int) -> None:
            for number in (1, 0) if turn == 1 else ():
                fields = {"data_digest": self.data, "loss": self.losses[number]}
                made.coordinator.log.append("public-loss", fields, run="run-1", round=number)

    found = judged(federate, judge, tmp_path, Backwards("1.5", "2", outcome="completed"))
    assert [(f.code, f.where) for f in found.faults] == [("stopping-differs", "coordinator")]


def test_an_end_for_which_a_rounds_loss_is_missing_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    found = judged(federate, judge, tmp_path, Judged("2", "1.95"), rounds=3)
    said = [fault.sentence for fault in found.faults]
    assert len(said) == 2
    assert "went on" in said[0]
    assert "does not say so" in said[1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 3))
def test_the_rule_waits_for_patience_and_never_ends_a_run_that_gains(
    losses: list[int], patience: int, least: int
) -> None:
    over = stopping.stops([str(x) for x in losses], patience=patience, least_gain=str(least))
    if len(losses) <= patience:
        assert not over
    else:
        gain = min(losses[:-patience]) - min(losses[-patience:])
        assert over == (gain <= least)
