"""What the three layers of the verifier hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit.events import Event
from audit.findings import Fault, Layer
from audit.keys import PublicKeys
from audit.merkle import Tree
from audit.note import Checkpoint

Recompute = Callable[[Sequence[tuple[float, float, int]], float], float]


@dataclass(slots=True)
class Collector:
    """The faults and notices found so far."""

    faults: list[Fault] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def add(self, layer: Layer, code: str, where: str, sentence: str) -> None:
        """Note a fault. Both texts may quote the bundle, so they are made safe to print."""
        self.faults.append(Fault(layer, code, _printable(where), _printable(sentence)))

    def has(self, layer: Layer) -> bool:
        """Say whether a layer has a fault."""
        return any(fault.layer == layer for fault in self.faults)


@dataclass(frozen=True, slots=True)
class LogView:
    """A log whose bytes hold: every entry is under the signed root and signed by its emitter."""

    keys: PublicKeys
    where: str
    checkpoint: Checkpoint
    tree: Tree
    events: tuple[Event, ...]
    cosigned_by: tuple[str, ...]

    def of(self, kind: str, run: str | None = None) -> Iterator[tuple[int, Event]]:
        """Yield (index, event) of one kind, perhaps of one run."""
        for index, event in enumerate(self.events):
            if event.kind == kind and (run is None or event.run == run):
                yield index, event

    def place(self, index: int) -> str:
        """Say where an entry is."""
        return f"{self.where} entry {index}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The readable content of a bundle."""

    run: str
    coordinator: LogView
    sites: Mapping[str, LogView]
    plan: bytes
    release: Path | None

    @property
    def started(self) -> tuple[int, Event] | None:
        """The run's `run-started` event and its index."""
        return next(self.coordinator.of("run-started", self.run), None)

    @property
    def invited(self) -> tuple[str, ...]:
        """The institutions that the run was started with."""
        return () if self.started is None else tuple(self.started[1].fields["institutions"])

    @property
    def quorum(self) -> int | None:
        """How many institutions the run needs."""
        return None if self.started is None else int(self.started[1].fields["quorum"])


def _printable(text: str) -> str:
    """Replace what could steer a terminal, such as a file's name with escape characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:1000])
