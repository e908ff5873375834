"""What a Prometheus server reads at the coordinator: names, counts and ages, never a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.registry import Collector

from server import status
from server.errors import ServerError
from server.store import Folder
from server.traffic import Traffic


class Metrics(Collector):
    """Reads the folder anew at each scrape, so that it can show nothing that is not there."""

    def __init__(self, folder: Folder, traffic: Traffic) -> None:
        self._folder = folder
        self._traffic = traffic

    def describe(self) -> list[Any]:
        """Nothing: registering must not need a running SuperLink."""
        return []

    def collect(self) -> Iterator[Any]:
        """Every metric of the coordinator."""
        found = status.facts(self._folder)
        sites, runs = found["sites"], found["runs"]
        yield Gauge("privity_server_log_entries", "Entries of the log.", found["log_entries"])
        days = Gauge(
            "privity_server_certificate_days", "Days until it ends.", labels=["certificate"]
        )
        days.add_metric(["server"], found["certificate_days"])
        days.add_metric(["authority"], found["authority_days"])
        yield days
        crossed = CounterMetricFamily(
            "privity_server_bytes", "Bytes of bodies at the public port.", labels=["direction"]
        )
        crossed.add_metric(["received"], self._traffic.received)
        crossed.add_metric(["sent"], self._traffic.sent)
        yield crossed
        for name, text, key in (
            ("connected", "1: connected.", "connected"),
            ("heartbeat_age_seconds", "Seconds since it was heard.", "heartbeat_seconds"),
            ("log_entries", "Entries of its log that are held.", "entries"),
            ("epsilon_left", "Step that its budget has left.", "epsilon_left"),
            ("node_key_days", "Days until its node key is due.", "node_key_days"),
        ):
            family = Gauge(f"privity_server_site_{name}", text, labels=["institution"])
            for site in sites:
                if site[key] is not None:
                    family.add_metric([site["name"]], float(site[key]))
            yield family
        for name, text, value in (
            ("round", "Rounds that are closed.", lambda run: run["round"]),
            ("rounds", "Rounds of the plan.", lambda run: run["rounds"]),
            ("going", "1: its rounds are not over.", lambda run: run["outcome"] == "running"),
            ("participants", "Sites whose update counted.", lambda run: len(run["participants"])),
            ("skipped", "Rounds that missed their quorum for good.", _skipped),
            ("waiting_for_file", "Sites that are asked by file.",
             lambda run: len(run["waiting_for_file"])),
        ):  # fmt: skip
            yield _runs(f"privity_server_run_{name}", text, runs, value)
        fates = Gauge("privity_server_run_updates", "Fate of updates.", labels=["run", "fate"])
        for run in runs:
            for fate in ("accepted", "rejected", "absent"):
                fates.add_metric([run["run"], fate], sum(len(r[fate]) for r in run["history"]))
        yield fates


def _skipped(run: dict[str, Any]) -> int:
    return sum(not closed["averaged"] for closed in run["history"])


def _runs(name: str, text: str, runs: Any, value: Callable[[dict[str, Any]], int]) -> Any:
    family = Gauge(name, text, labels=["run"])
    for run in runs:
        family.add_metric([run["run"]], value(run))
    return family


def serve(folder: Folder, traffic: Traffic) -> Callable[[], None]:
    """Answer on the address of `[metrics]` in coordinator.toml; returns what stops it.

    Raises:
        ServerError: the port is taken (exit code 5).
    """
    table = folder.settings.metrics
    if not table.port:
        return lambda: None
    registry = CollectorRegistry()
    registry.register(Metrics(folder, traffic))
    try:
        server, _thread = start_http_server(table.port, table.host, registry)
    except OSError:
        raise ServerError(
            f"{table.host}:{table.port} is taken or not ours; change metrics.port in "
            "coordinator.toml",
            code="port-taken",
            exit_code=5,
        ) from None

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
