"""What the three layers of the verifier hand to each other."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from audit.events import Event
from audit.findings import Fault, Layer
from audit.keys import PublicKeys
from audit.merkle import Tree
from audit.note import Checkpoint
from audit.reading import KIND_NAMES, Wrong, indices
from audit.rotation import Segment

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


class Events(Sequence[Event]):
    """A log's events by index. Those of bulk kinds are read again when they are asked for."""

    def __init__(
        self, kinds: array[int], kept: Mapping[int, Event], load: Callable[[int], Event]
    ) -> None:
        self._kinds = kinds
        self._kept = kept
        self._load = load

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        kept = self._kept.get(index)
        return self._load(range(len(self))[index]) if kept is None else kept

    def __iter__(self) -> Iterator[Event]:
        """Yield the readable events in order."""
        for _, event in self.of(*KIND_NAMES[:-1]):
            yield event

    def of(self, *kinds: str) -> Iterator[tuple[int, Event]]:
        """Yield (index, event) of some kinds, in order."""
        for index in indices(self._kinds, kinds):
            yield index, self[index]


@dataclass(frozen=True, slots=True)
class LogView:
    """A log whose bytes hold: every entry is under the signed root and signed by its emitter.

    Attributes:
        keys: the keys in force at the log's end.
        where: the log's folder in the bundle.
        checkpoint: what the log signed last.
        tree: the recomputed Merkle tree.
        events: the readable events.
        cosigned_by: who witnessed the checkpoint.
        history: the keys over time.
        revoked: (log key, size, index) of each revocation.
        chain: numbers and links between entries that do not fit.
        clock: indices of entries whose time is before that of the entry before them.
        chained: how many entries were signed through the chain only.
    """

    keys: PublicKeys
    where: str
    checkpoint: Checkpoint
    tree: Tree
    events: Events
    cosigned_by: tuple[str, ...]
    history: tuple[Segment, ...]
    revoked: tuple[tuple[str, int, int], ...]
    chain: tuple[Wrong, ...]
    clock: tuple[int, ...]
    chained: int

    def of(self, kind: str, run: str | None = None) -> Iterator[tuple[int, Event]]:
        """Yield (index, event) of one kind, perhaps of one run."""
        for index, event in self.events.of(kind):
            if run is None or event.run == run:
                yield index, event

    def everyone(self) -> list[PublicKeys]:
        """The keys that were ever in force in this log, and those that the bundle states."""
        return [self.keys, *(s.keys for s in self.history if s.keys != self.keys)]

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
    disclosures: Mapping[str, Sequence[str]] = field(default_factory=dict)

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
