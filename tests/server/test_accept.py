"""What a site's log must state before its update counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from audit.events import Event, Subject
from configs.load import load
from configs.run import Plan, Run
from privacy.wire import Update
from server import accept, plans
from server.errors import ServerError

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64


@pytest.fixture
def asked(federation: Callable[..., Any]) -> tuple[Plan, Update, Event]:
    """A plan, an update of its round 1, and the statement that goes with it."""
    plan = plans.make(load(federation(["clinic-a"]).run_file(), Run))
    update = Update(
        run=plan.run, round=1, plan_digest=plans.digest(plan), update_digest=DIGEST,
        statement_index=4, checkpoint="c", entries=(), witnessed=0, cosignature="s",
    )  # fmt: skip
    document = plan.document()
    names = ("noise_multiplier", "sample_rate", "clip_norm", "delta", "unit")
    fields = {
        "plan_digest": plans.digest(plan), "input_digest": OTHER, "steps": plan.steps_per_round,
        **{name: document[name] for name in names},
    }  # fmt: skip
    statement = Event(
        "dp-training", "clinic-a", "site/clinic-a", 4, DIGEST, datetime(2026, 1, 1, tzinfo=UTC),
        plan.run, 1, fields, (Subject("update", DIGEST),),
    )  # fmt: skip
    return plan, update, statement


def _check(plan: Plan, update: Update, statement: Event, **changes: Any) -> None:
    mirror: Any = SimpleNamespace(event={update.statement_index: statement}.__getitem__)
    given = {"input_digest": OTHER, "columns": plan.adapter.rank} | changes
    accept.check_statement(mirror, update, plan, **given)


def test_an_update_with_its_statement_counts(asked: tuple[Plan, Update, Event]) -> None:
    _check(*asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "pii-scrub"},  # training that the log does not tell of
        {"run": "another"},
        {"round": 0},
        {"subjects": ()},
        {"subjects": (Subject("update", OTHER),)},
        {"subjects": (Subject("scrub", DIGEST),)},
    ],
)
def test_another_entry_is_no_statement_of_an_update(
    asked: tuple[Plan, Update, Event], changes: dict[str, Any]
) -> None:
    plan, update, statement = asked
    with pytest.raises(ServerError) as caught:
        _check(plan, update, dataclasses.replace(statement, **changes))
    assert caught.value.code == "no-receipt"


@pytest.mark.parametrize(
    "name",
    ["plan_digest", "input_digest", "steps", "noise_multiplier", "sample_rate", "clip_norm",
     "delta", "unit"],
)  # fmt: skip
def test_a_statement_that_says_something_else_than_the_plan_is_refused(
    asked: tuple[Plan, Update, Event], name: str
) -> None:
    plan, update, statement = asked
    said = dict(statement.fields) | {name: "0.125"}
    with pytest.raises(ServerError) as caught:
        _check(plan, update, dataclasses.replace(statement, fields=said))
    assert caught.value.code == "no-receipt"


def test_a_statement_of_other_columns_is_refused(asked: tuple[Plan, Update, Event]) -> None:
    plan, update, statement = asked
    fewer = dict(statement.fields) | {"columns": 1}
    with pytest.raises(ServerError):
        _check(plan, update, dataclasses.replace(statement, fields=fewer))
    _check(plan, update, dataclasses.replace(statement, fields=fewer), columns=1)
