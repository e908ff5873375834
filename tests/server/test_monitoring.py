"""Dashboard and alerts of a federation name metrics, labels and values that both sides give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from client import metrics as site_metrics
from client.transport import Transport
from server import flower, metrics
from server.traffic import Traffic

DOCKER = Path(__file__).parents[2] / "docker"
SERIES = re.compile(r"(privity_\w+)(?:\{([^}]*)\})?")
# What Prometheus itself puts on every series.
TARGET = {"instance", "job"}
Given = dict[str, dict[str, set[str]]]


@pytest.fixture
def given(world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Given:
    """Every series of both sides after a run: its labels, and the values of each."""
    made = world()
    seen = dict.fromkeys(made.sites, flower.Seen(online=True, heartbeat=1.0))
    monkeypatch.setattr(flower, "nodes", lambda folder: seen)
    made.train(made.federation.run_file(epsilon=1.5))
    found: Given = {}
    for collector in (
        metrics.Metrics(made.coordinator, Traffic(0.0, received=7, sent=9)),
        site_metrics.Metrics(made.sites["clinic-a"], Transport()),
    ):
        registry = CollectorRegistry()
        registry.register(collector)
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            found.setdefault(family.name, {})
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def rules() -> list[dict[str, Any]]:
    told = yaml.safe_load((DOCKER / "prometheus" / "federation.yml").read_text())
    return [rule for group in told["groups"] for rule in group["rules"]]


def targets() -> list[dict[str, Any]]:
    board = json.loads((DOCKER / "grafana" / "federation.json").read_text())
    return [target for panel in board["panels"] for target in panel["targets"]]


def faults(given: Given, expression: str, *legends: str) -> Iterator[str]:
    """What an expression, or the texts that are filled in from it, name and nobody gives."""
    known = set(TARGET)
    for name, selector in SERIES.findall(expression):
        if name not in given:
            yield name
            continue
        known |= given[name].keys()
        for label, value in re.findall(r'(\w+)="([^"]*)"', selector):
            if value not in given[name].get(label, ()):
                yield f'{name}{{{label}="{value}"}}'
    for text in legends:
        for label in re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text):
            if label not in known:
                yield f"{expression}: {label}"


def test_every_panel_and_every_alert_names_what_there_is(given: Given) -> None:
    for target in targets():
        assert list(faults(given, target["expr"], target["legendFormat"])) == []
    for rule in rules():
        said = rule["annotations"]
        assert set(said) == {"summary", "remedy"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert list(faults(given, rule["expr"], *said.values())) == []
        assert SERIES.search(rule["expr"]) or re.fullmatch(
            r'up\{job="privity-(coordinator|institution)"\} == 0', rule["expr"]
        )


@pytest.mark.parametrize(
    ("expression", "legend"),
    [
        ("privity_server_run_rond", ""),
        ('privity_server_run_updates{fate="rejcted"}', ""),
        ('privity_server_run_updates{fates="rejected"}', ""),
        ("privity_server_run_round", "{{institution}}"),
    ],
)
def test_a_name_that_nobody_gives_is_found(given: Given, expression: str, legend: str) -> None:
    assert len(list(faults(given, expression, legend))) == 1


def test_rounds_sites_heartbeat_bytes_and_budget_are_shown_and_alerted_on() -> None:
    shown = " ".join(target["expr"] for target in targets())
    alerted = " ".join(rule["expr"] for rule in rules())
    for name in (
        "privity_server_run_round", "privity_server_site_heartbeat_age_seconds",
        "privity_server_bytes_total", "privity_server_site_epsilon_left",
        "privity_client_epsilon_left", "privity_client_coordinator_age_seconds",
    ):  # fmt: skip
        assert name in shown
        assert name in alerted
    assert "privity_server_site_connected" in shown
