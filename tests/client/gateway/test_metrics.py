"""What is measured is what happened, and what alerts and dashboard ask for is measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.gateway.metrics import Metrics
from client.gateway.question import Busy, Failed, Load
from tests.client.serving_world import ASK, SECRET, Fake, make_app, near

DOCKER = Path(__file__).parents[3] / "docker"
NAME = re.compile(r"\bprivity_[a-z_]+")


def exposed() -> set[str]:
    """Every series that a service has once everything has happened."""
    metrics = Metrics(Load, on_trial=lambda: {"r2": 1.0})
    metrics.ended("r1", "answered", seconds=1.0, prompt_tokens=1, tokens=1)
    metrics.first_text("r1", 1.0)
    metrics.looked_up(found=True)
    metrics.refused_at_the_door("x")
    metrics.rolled_back("p99")
    metrics.judged("up")
    return set(re.findall(r"^(privity_[a-z_]+)", metrics.exposition().decode(), re.MULTILINE))


def asked_for() -> dict[str, list[str]]:
    """Every expression of the alerts and of the dashboard, by file."""
    rules = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((DOCKER / "grafana" / "serving.json").read_text())
    panels = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return {"alerts": alerts, "dashboard": panels}


def test_every_metric_that_alerts_and_dashboard_ask_for_exists() -> None:
    there = exposed()
    for where, expressions in asked_for().items():
        assert expressions
        for expression in expressions:
            named = set(NAME.findall(expression))
            assert named or "up{" in expression
            assert named <= there, (where, expression)


def test_every_metric_is_shown_or_alerted_on() -> None:
    used = {name for texts in asked_for().values() for text in texts for name in NAME.findall(text)}
    families = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in exposed()}
    assert families == {re.sub(r"_(bucket|total)$", "", name) for name in used}


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    rules = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        assert set(rule["annotations"]) == {"summary", "remedy"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def value(page: str, series: str) -> float:
    (found,) = re.findall(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(found)


def test_each_outcome_is_counted_once(tmp_path: Path) -> None:
    engine = Fake()
    client = near(make_app(tmp_path, engine))
    client.post("/v1/chat/completions", json=ASK)
    client.post("/v1/chat/completions", json={**ASK, "stream": True})
    for fault in (Busy(1), Failed("x")):
        engine.faults["base"] = fault
        client.post("/v1/chat/completions", json={**ASK, "model": "base"})
    client.post("/v1/chat/completions", json=ASK, headers={"origin": "https://x.example"})
    page = client.get("/metrics").text
    counted = {
        ("r1", "answered"): 1,
        ("r1", "cached"): 1,
        ("base", "busy"): 1,
        ("base", "failed"): 1,
    }
    for (model, outcome), count in counted.items():
        series = f'privity_requests_total{{model="{model}",outcome="{outcome}"}}'
        assert value(page, series) == count
    assert value(page, 'privity_tokens_total{kind="written",model="r1"}') == 3
    assert value(page, 'privity_tokens_total{kind="read",model="r1"}') == 7
    assert value(page, 'privity_cache_lookups_total{found="yes"}') == 1
    assert value(page, 'privity_refusals_total{code="foreign-origin"}') == 1
    assert value(page, "privity_queue") == 3
    assert value(page, "privity_tokens_per_second") == pytest.approx(3 / 60)
    assert value(page, 'privity_memory_bytes{what="process"}') > 1e7
    assert SECRET not in page


def test_quantiles_are_of_the_latest_answers() -> None:
    metrics = Metrics(Load)
    for milliseconds in range(2000):
        metrics.ended("r1", "answered", seconds=milliseconds / 1000)
    page = metrics.exposition().decode()
    assert value(page, 'privity_latency_seconds{quantile="0.5"}') == pytest.approx(1.5, abs=0.01)
    assert value(page, 'privity_latency_seconds{quantile="0.99"}') == pytest.approx(1.99, abs=0.01)


def test_a_tally_is_of_its_period_only() -> None:
    metrics = Metrics(Load)
    metrics.ended("r1", "failed", seconds=1.0)
    first: Any = metrics.take_tally()
    assert (first.asked, first.failed, first.outcomes) == (1, 1, {"failed"})
    assert metrics.take_tally().asked == 0
