"""A trial takes its share of the users, keeps them, and ends by itself when it does worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client.gateway.question import Busy, Failed
from client.gateway.routing import Rollback, Routes
from configs.serving import TrialTable
from tests.client.serving_world import ASK, Fake, make_app, near

USERS = [f"user-{number}" for number in range(4000)]


def routes(ended: list[Rollback] | None = None, **trial: Any) -> Routes:
    table = TrialTable(**{"candidate": "r2", "share": 0.2, "requests": 20, **trial})
    told = (ended if ended is not None else []).append
    return Routes(("r1", "r2"), table, key=b"k" * 32, on_rollback=told)


def test_the_share_is_kept_and_every_user_stays() -> None:
    way = routes()
    first = {user: way.pick("r1", user) for user in USERS}
    share = sum(model == "r2" for model in first.values()) / len(USERS)
    assert 0.17 < share < 0.23  # 4.7 standard deviations of a fair draw
    assert first == {user: way.pick("r1", user) for user in USERS}
    wider = routes(share=0.5)
    assert all(wider.pick("r1", user) == "r2" for user in USERS if first[user] == "r2")


def test_other_names_are_taken_literally_and_unknown_ones_refused() -> None:
    way = routes(share=1.0)
    assert [way.pick(name, "u") for name in ("r1", "r2", "r3")] == ["r2", "r2", None]
    assert routes(share=0.0).pick("r1", "u") == "r1"
    assert Routes(("r1",), TrialTable(candidate="gone", share=1.0)).pick("r1", "u") == "r1"


@pytest.mark.parametrize(
    ("fault", "seconds", "reason"),
    [(True, 0.1, "error-rate"), (False, 99.0, "p99"), (False, float("nan"), "p99")],
)
def test_a_canary_that_does_badly_is_rolled_back_once(
    fault: bool, seconds: float, reason: str
) -> None:
    ended: list[Rollback] = []
    way = routes(ended, share=1.0)
    for _ in range(19):
        way.note("r2", fault=fault, seconds=seconds)
    assert way.pick("r1", "u") == "r2"
    for _ in range(5):
        way.note("r2", fault=fault, seconds=seconds)
    assert ended == [Rollback("r2", reason)]
    assert way.pick("r1", "u") == "r1"
    assert way.pick("r2", "u") == "r2"


def test_a_good_canary_stays_and_a_comparison_is_never_rolled_back() -> None:
    ended: list[Rollback] = []
    good, compared = routes(ended), routes(ended, kind="ab")
    for turn in range(200):
        good.note("r2", fault=turn % 50 == 0, seconds=1.0)
        compared.note("r2", fault=True, seconds=99.0)
        good.note("r1", fault=True, seconds=99.0)
    assert ended == []


def test_through_the_service_a_failing_canary_ends_and_nobody_else_is_blamed(
    tmp_path: Path,
) -> None:
    engine = Fake(("r1", "r2"))
    trial = {"candidate": "r2", "share": 1.0, "requests": 5, "error_rate": 0.2}
    client = near(make_app(tmp_path, engine, trial=trial, cache={"entries": 0}))
    engine.faults["r2"] = Busy(1)
    with client:
        for _ in range(8):
            client.post("/v1/chat/completions", json=ASK)
        assert engine.calls[-1].model == "r2"  # being busy or refusing is no fault of the release
        engine.faults["r2"] = Failed("internal")
        codes = [client.post("/v1/chat/completions", json=ASK).status_code for _ in range(8)]
        assert codes == [500] * 5 + [200] * 3
        page = client.get("/metrics").text
    assert 'privity_rollbacks_total{reason="error-rate"} 1.0' in page
    assert 'privity_on_trial{model="r2"} 0.0' in page


def test_every_user_stays_when_releases_come_and_when_the_service_starts_again(
    tmp_path: Path,
) -> None:
    trial = {"candidate": "r2", "share": 0.5, "requests": 20}
    services = []
    for _ in range(2):
        app = make_app(tmp_path, Fake(("r1", "r2")), trial=trial)
        services.append(app.state.running.service)
    first = [services[0].route("r1", user) for user in USERS]
    for _ in range(19):
        services[0].routes.note("r2", fault=True, seconds=1.0)
    services[0].refresh({})
    assert [services[0].route("r1", user) for user in USERS] == first
    assert [services[1].route("r1", user) for user in USERS] == first
    assert services[0].routes.judge("r2") == (1.0, 1.0)  # what counts towards a roll-back too


def test_a_candidate_that_is_not_served_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_app(tmp_path, Fake(("r1", "r2")), trial={"candidate": "r2"})
    assert caplog.text == ""
    make_app(tmp_path, Fake(("r1", "r2")), trial={"candidate": "r-2"})
    assert "nobody is on trial" in caplog.text
