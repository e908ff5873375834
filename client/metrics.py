"""What a Prometheus server reads at an institution: its own progress and budget, in steps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.registry import Collector

from client import renewal
from client.errors import ClientError
from client.folder import Folder
from client.transport import Transport

# What is left of the budget is told in steps: nobody needs more to plan a run.
BUCKETS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class Metrics(Collector):
    """Reads the folder anew at each scrape; epsilon only when the ledger has changed."""

    def __init__(self, folder: Folder, traffic: Transport) -> None:
        self._folder = folder
        self._traffic = traffic
        self._left: tuple[str, float] = ("", 0.0)

    def describe(self) -> list[Any]:
        """Nothing: registering must not read the ledger."""
        return []

    def collect(self) -> Iterator[Any]:
        """Every metric of the institution."""
        folder, traffic = self._folder, self._traffic
        yield Gauge("privity_client_log_entries", "Entries of the log.", folder.log().size)
        yield Gauge("privity_client_epsilon_left", "Step that the budget has left.", self._step())
        heard = time.time() - traffic.heard if traffic.heard else float("nan")
        yield Gauge("privity_client_coordinator_age_seconds", "Seconds since it answered.", heard)
        crossed = CounterMetricFamily(
            "privity_client_bytes", "Bytes of bodies to and from the coordinator.",
            labels=["direction"],
        )  # fmt: skip
        crossed.add_metric(["received"], traffic.received)
        crossed.add_metric(["sent"], traffic.sent)
        yield crossed
        yield Gauge("privity_client_node_key_days", "Days until the key is due.",
                   renewal.key_days(folder))  # fmt: skip
        begun = Gauge(
            "privity_client_run_rounds_begun", "Rounds that were charged.", labels=["run"]
        )
        rounds = Gauge("privity_client_run_rounds", "Rounds that were reserved.", labels=["run"])
        for row in folder.ledger().rows(folder.settings.budget.cohort):
            begun.add_metric([row.run], row.rounds_begun)
            rounds.add_metric([row.run], row.rounds)
        yield begun
        yield rounds
        step = Gauge(
            "privity_client_run_step", "Steps of the newest round that are done.", labels=["run"]
        )
        for path in sorted((folder.path / "runs").glob("*/progress.json")):
            try:
                step.add_metric([path.parent.name], int(json.loads(path.read_bytes())["step"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # it is being replaced, or an older version wrote it
        yield step

    def _step(self) -> float:
        ledger, limits = self._folder.ledger(), self._folder.settings.budget
        head = ledger.head()
        if self._left[0] != head:
            balance = ledger.balance(limits.cohort, delta=limits.delta, cap=limits.epsilon)
            step = max((step for step in BUCKETS if step <= balance.left), default=0.0)
            self._left = (head, step)
        return self._left[1]


def serve(folder: Folder, traffic: Transport) -> Callable[[], None]:
    """Answer on the address of `[metrics]` in site.toml; returns what stops it.

    Raises:
        ClientError: the port is taken (exit code 5).
    """
    table = folder.settings.metrics
    if not table.port:
        return lambda: None
    registry = CollectorRegistry()
    registry.register(Metrics(folder, traffic))
    try:
        server, _thread = start_http_server(table.port, table.host, registry)
    except OSError:
        raise ClientError(
            f"{table.host}:{table.port} is taken or not ours; change metrics.port in site.toml",
            code="port-taken",
            exit_code=5,
        ) from None

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
