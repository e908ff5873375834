"""What the service measures about itself, for Prometheus: numbers and release names, no text.

Every name here is used in docker/prometheus/alerts.yml and docker/grafana/serving.json, or a test
says so.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from client.gateway.question import Load

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_WINDOW_S: Final = 60.0
_KEPT: Final = 1000
OUTCOMES: Final = ("answered", "cached", "refused", "busy", "failed", "cancelled")


@dataclass(slots=True)
class Tally:
    """How a period went, for the log: whether, never how often."""

    outcomes: set[str] = field(default_factory=set)
    asked: int = 0
    failed: int = 0


class Metrics:
    """The service's counters; each service has its own registry."""

    def __init__(
        self,
        load: Callable[[], Load],
        *,
        cached: Callable[[], int] = lambda: 0,
        draining: Callable[[], bool] = lambda: False,
        on_trial: Callable[[], Mapping[str, float]] = lambda: {},
    ) -> None:
        """Set up.

        Args:
            load: how busy the engine is.
            cached: answers in the cache.
            draining: whether the service takes no more questions.
            on_trial: release -> 1 if it is on trial, 0 if it was rolled back.
        """
        self._load, self._cached, self._draining = load, cached, draining
        self._on_trial = on_trial
        self.tally = Tally()
        self._recent: deque[tuple[float, int]] = deque()
        self._times: deque[float] = deque(maxlen=_KEPT)
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "privity_requests", "Questions by outcome.", ("model", "outcome"), registry=registry
        )
        self._refusals = Counter(
            "privity_refusals", "Requests turned away at the door.", ("code",), registry=registry
        )
        self._tokens = Counter(
            "privity_tokens", "Tokens read and written.", ("model", "kind"), registry=registry
        )
        self._first = Histogram(
            "privity_first_token_seconds", "From question to first text.", ("model",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._whole = Histogram(
            "privity_request_seconds", "From question to end of answer.", ("model",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._lookups = Counter(
            "privity_cache_lookups", "Looks into the answer cache.", ("found",), registry=registry
        )
        self._rollbacks = Counter(
            "privity_rollbacks", "Trials that were rolled back.", ("reason",), registry=registry
        )
        self._judgements = Counter(
            "privity_feedback", "Judgements of answers.", ("verdict",), registry=registry
        )
        registry.register(_Gauges(self))

    def exposition(self) -> bytes:
        """The page for Prometheus."""
        return bytes(generate_latest(self.registry))

    def refused_at_the_door(self, code: str) -> None:
        """Count a request that never became a question."""
        self._refusals.labels(code).inc()
        if code == "busy":
            self.tally.outcomes.add("busy")

    def looked_up(self, *, found: bool) -> None:
        """Count a look into the cache."""
        self._lookups.labels("yes" if found else "no").inc()

    def first_text(self, model: str, seconds: float) -> None:
        """Take down how long the first text took."""
        self._first.labels(model).observe(seconds)

    def ended(
        self, model: str, outcome: str, *, seconds: float, prompt_tokens: int = 0, tokens: int = 0
    ) -> None:
        """Take down how a question ended; `outcome` is one of `OUTCOMES`."""
        self._requests.labels(model, outcome).inc()
        self.tally.outcomes.add(outcome)
        self.tally.asked += 1
        self.tally.failed += outcome == "failed"
        if outcome in ("answered", "cached"):
            self._whole.labels(model).observe(seconds)
            self._times.append(seconds)
        if outcome == "cached":
            return
        self._tokens.labels(model, "read").inc(prompt_tokens)
        self._tokens.labels(model, "written").inc(tokens)
        if tokens:
            self._recent.append((time.monotonic(), tokens))

    def rolled_back(self, reason: str) -> None:
        """Count a roll-back."""
        self._rollbacks.labels(reason).inc()

    def judged(self, verdict: str) -> None:
        """Count a judgement."""
        self._judgements.labels(verdict).inc()

    def take_tally(self) -> Tally:
        """How the period since the last call went."""
        tally, self.tally = self.tally, Tally()
        return tally

    def gauges(self) -> Iterator[tuple[str, str, Mapping[str, float] | float]]:
        """Name, meaning and value of what is so now; a mapping is by its one label."""
        load = self._load()
        yield "privity_queue", "Questions that wait for a place.", load.waiting
        yield "privity_running", "Questions that are being answered.", load.running
        yield "privity_cache_entries", "Answers in the cache.", self._cached()
        yield "privity_draining", "1 while no new question is taken.", float(self._draining())
        yield "privity_tokens_per_second", "Written in the last minute.", self._pace()
        quantiles = {share: _quantile(self._times, float(share)) for share in ("0.5", "0.99")}
        yield "privity_latency_seconds", f"Of the last {_KEPT} answers.", quantiles
        memory = {"process": _resident(), "keys_and_values": float(load.cache_bytes)}
        yield "privity_memory_bytes", "Memory by what holds it.", {**memory, **_gpu_memory()}
        yield "privity_on_trial", "1 while a release is on trial.", dict(self._on_trial())

    def _pace(self) -> float:
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - _WINDOW_S:
            self._recent.popleft()
        return sum(tokens for _, tokens in self._recent) / _WINDOW_S


_LABELS: Final = {
    "privity_latency_seconds": "quantile",
    "privity_memory_bytes": "what",
    "privity_on_trial": "model",
}


class _Gauges:
    """Reads the gauges when Prometheus asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        for name, meaning, value in self._metrics.gauges():
            if isinstance(value, Mapping):
                family = GaugeMetricFamily(name, meaning, labels=(_LABELS[name],))
                for label, each in value.items():
                    family.add_metric((label,), each)
                yield family
            else:
                yield GaugeMetricFamily(name, meaning, value=value)


def _quantile(times: deque[float], share: float) -> float:
    ranked = sorted(times)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


def _resident() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _gpu_memory() -> dict[str, float]:
    import torch

    if not torch.cuda.is_available():
        return {}
    return {
        f"gpu{place}": float(torch.cuda.memory_reserved(place))
        for place in range(torch.cuda.device_count())
    }
