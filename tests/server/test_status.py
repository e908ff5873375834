"""Status, metrics and renewal, from folders alone: true figures, in steps, and nothing else."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import privity
from client import metrics as site_metrics
from client import renewal as site_renewal
from client.transport import Transport
from server import enrolment, metrics, pki, renewal, status
from server.errors import ServerError
from server.traffic import Traffic
from tests.flow.machine import free_port

Make = Callable[..., Any]
BOARD = Path(__file__).parents[2] / "docker" / "grafana" / "federation.json"


def _samples(collector: Any) -> dict[str, dict[tuple[str, ...], float]]:
    registry = CollectorRegistry()
    registry.register(collector)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        found.setdefault(family.name, {})
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.fixture
def trained(world: Make) -> Any:
    made = world()
    made.train(made.federation.run_file(epsilon=1.5))
    return made


def test_metrics_of_both_sides_are_true_and_every_one_on_the_dashboard_exists(trained: Any) -> None:
    traffic = Traffic(0.0, received=7, sent=9)
    hub = _samples(metrics.Metrics(trained.coordinator, traffic))
    site = _samples(site_metrics.Metrics(trained.sites["clinic-a"], Transport()))
    assert hub["privity_server_run_round"] == {("triage",): 2.0}
    assert hub["privity_server_run_participants"] == {("triage",): 2.0}
    assert hub["privity_server_run_updates"][("accepted", "triage")] == 4.0
    assert hub["privity_server_bytes_total"] == {("received",): 7.0, ("sent",): 9.0}
    assert site["privity_client_run_rounds_begun"] == {("triage",): 2.0}
    left = trained.spent("clinic-a").left
    assert 0.25 <= left < 0.6, "the test is about a value between two steps"
    for told in (hub["privity_server_site_epsilon_left"][("clinic-a",)],
                 site["privity_client_epsilon_left"][()]):  # fmt: skip
        assert told in status.BUCKETS
        assert told <= left < status.BUCKETS[status.BUCKETS.index(told) + 1]
    shown = {
        name
        for panel in json.loads(BOARD.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"privity_\w+", target["expr"])
    }
    assert len(shown) > 15
    assert shown - (hub.keys() | site.keys()) == set()
    mine = {n for n in hub.keys() | site.keys() if not n.endswith(("_total", "_bytes"))}
    assert mine - shown == set(), "a metric that nobody looks at"


def test_the_dashboards_check_can_fail(trained: Any) -> None:
    hub = _samples(metrics.Metrics(trained.coordinator, Traffic(0.0)))
    assert "privity_server_run_rond" not in hub


def test_the_endpoint_is_off_by_default_on_loopback_and_answers(trained: Any) -> None:
    site = trained.sites["clinic-a"]
    assert site.settings.metrics.port == 0
    assert trained.coordinator.settings.metrics.port == 0
    metrics.serve(trained.coordinator, Traffic(0.0))()  # starts nothing
    port = free_port()
    settings = trained.coordinator.path / "coordinator.toml"
    settings.write_text(settings.read_text().replace("port = 0", f"port = {port}"))
    from server import store

    opened = store.open_folder(trained.coordinator.path)
    stop = metrics.serve(opened, Traffic(0.0))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert b"privity_server_run_round" in answer.read()
        with pytest.raises(ServerError) as refusal:
            metrics.serve(opened, Traffic(0.0))
        assert (refusal.value.code, refusal.value.exit_code) == ("port-taken", 5)
    finally:
        stop()


def test_status_has_rounds_sites_bytes_and_days(
    trained: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    Traffic(5.0, received=3_000_000, sent=4).save(trained.coordinator.traffic)
    assert privity.main(["server", "status", str(trained.coordinator.path), "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    (run,) = facts["runs"]
    assert [closed["accepted"] for closed in run["history"]] == [["clinic-a", "clinic-b"]] * 2
    assert all(closed["averaged"] for closed in run["history"])
    assert facts["traffic"]["received"] == 3_000_000
    assert facts["certificate_days"] == 396
    assert facts["sites"][0]["node_key_days"] == 397
    assert facts["warnings"] == []
    assert facts["running"] is False
    assert privity.main(["server", "status", str(trained.coordinator.path)]) == 0
    assert "3.00 MB received" in capfd.readouterr().out


def test_a_certificate_that_ends_soon_is_told_and_renewed_under_the_same_authority(
    federation: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = federation()
    hub = made.coordinator
    monkeypatch.setattr(pki, "_SERVER_DAYS", 29)
    renewal.certificate(hub)
    monkeypatch.undo()
    monkeypatch.setattr(status, "KEY_DAYS", 20)
    warnings = status.facts(hub)["warnings"]
    assert "ends in 28 days; run: privity server renew" in warnings[0]
    assert "node key of clinic-a is due in 20 days" in warnings[1]
    old = (hub.tls / "server.pem").read_bytes()
    assert privity.main(["server", "renew", str(hub.path)]) == 0
    assert "valid for 396 days" in capfd.readouterr().out
    new = x509.load_pem_x509_certificate((hub.tls / "server.pem").read_bytes())
    new.verify_directly_issued_by(
        x509.load_pem_x509_certificate(
            json.loads((hub.path / "invitations" / "clinic-a.json").read_text())[
                "authority"
            ].encode()
        )
    )
    assert old != (hub.tls / "server.pem").read_bytes()
    assert (hub.tls / "server.key").stat().st_mode & 0o077 == 0
    assert new.not_valid_after_utc - datetime.now(UTC) > timedelta(days=390)


def test_a_node_key_is_renewed_only_by_the_site_that_has_it(
    federation: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = federation()
    hub, site = made.coordinator, made.sites["clinic-a"]
    assert privity.main(["client", "renew", str(site.path)]) == 0
    file = site.path / "renew.json"
    asked = json.loads(file.read_text())
    first = hub.enrolled()["clinic-a"].node_key
    assert site_renewal.pending(site).stat().st_mode & 0o077 == 0
    assert "PRIVATE" not in file.read_text()

    def refused(name: str, text: str) -> str:
        other = tmp_path / "other.json"
        other.write_text(text)
        with pytest.raises(ServerError) as refusal:
            renewal.admit(hub, name, other)
        return str(refusal.value.code)

    assert refused("clinic-b", file.read_text()) == "bad-renewal"
    assert refused("nobody", file.read_text()) == "unknown-site"
    key = hub.enrolled()["clinic-b"].node_key
    assert refused("clinic-a", json.dumps(asked | {"node_key": key})) == "bad-renewal"
    assert refused("clinic-a", "[]") == "bad-renewal"
    assert privity.main(["server", "renew", str(hub.path), "clinic-a"]) == 2
    arguments = ["server", "renew", str(hub.path), "clinic-a", "--request", str(file)]
    assert privity.main(arguments) == 0
    assert set(hub.node_keys()) == {first, asked["node_key"], key}
    assert hub.node_keys()[asked["node_key"]] == "clinic-a"
    assert renewal.finish(hub, [first, key]) == []
    assert renewal.finish(hub, [asked["node_key"]]) == ["clinic-a"]
    assert hub.enrolled()["clinic-a"].node_key == asked["node_key"]
    assert set(hub.node_keys()) == {asked["node_key"], key}
    assert refused("clinic-a", file.read_text()) == "bad-renewal", "an old request counts once"
    (entry,) = hub.log().entries("institution-renewed")
    assert entry.event.fields["name"] == "clinic-a"
    site_renewal.adopt(site)
    assert not site_renewal.pending(site).exists()
    assert len(list(site.log().entries("node-key-renewed"))) == 1
    enrolment.revoke(hub, "clinic-a")
    assert set(hub.node_keys()) == {key}
