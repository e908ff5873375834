"""What a report is made of: a bundle's entries by kind, the verifier's findings, recomputations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit import bundle as bundles
from audit import disclosures, stored, verify
from audit.bundle import Bundle
from audit.evidence import Recompute
from audit.findings import Findings
from audit.kinds import BULK
from audit.sentences import Reference
from audit.stored import Record

_SORTS = 4096
_POINTS = 12  # of a curve; each is a recomputation


@dataclass(frozen=True, slots=True)
class Point:
    """The privacy loss after so many trained rounds of the run."""

    rounds: int
    epsilon: float


@dataclass(slots=True)
class Sort:
    """Entries of a bulk kind in one log that say the same, but for whom: the first and the last."""

    first: Record
    last: Record
    count: int = 1


@dataclass(frozen=True, slots=True)
class Material:
    """A bundle read for a report.

    `entries` counts what was readable of all logs. Of bulk kinds, which may have millions of
    entries, `bulk` has the sorts instead: see `Sort`.
    """

    bundle: Bundle
    findings: Findings
    kept: tuple[Record, ...]
    problems: tuple[Record, ...]
    entries: int
    recompute: Recompute
    release_key: Path | None = None
    bulk: tuple[Sort, ...] = ()

    @property
    def run(self) -> str:
        """The run that the bundle is about."""
        return self.bundle.run

    @property
    def coordinator(self) -> str:
        """The coordinator's name."""
        return self.bundle.coordinator.keys.name

    @property
    def sites(self) -> tuple[str, ...]:
        """The institutions whose logs are in the bundle."""
        return tuple(self.bundle.sites)

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan as the coordinator logged it; empty if it logged none."""
        started = self.of("run-started", self.coordinator)
        return dict(started[0].entry.event.fields["plan"]) if started else {}

    def of(self, kind: str, name: str | None = None) -> list[Record]:
        """The run's entries of a kind, perhaps of one log only."""
        return [
            record
            for record in self.kept
            if record.entry.event.kind == kind
            and record.entry.event.run in (None, self.run)
            and (name is None or record.entry.name == name)
        ]

    def count(self, kind: str) -> int:
        """How many entries of a kind there are: of all runs if it is a bulk kind."""
        if kind in BULK:
            return sum(sort.count for sort in self.bulk if sort.first.entry.event.kind == kind)
        return len(self.of(kind))

    def cited(self, kind: str) -> Record | None:
        """The first entry of a kind."""
        known = [sort.first for sort in self.bulk if sort.first.entry.event.kind == kind]
        return next(iter([*known, *self.of(kind)]), None)

    def check(self, name: str) -> Reference:
        """A reference to a recomputation over this bundle."""
        return Reference("check", name, self.bundle.digest)

    def reserved(self, site: str) -> list[Record]:
        """The reservations of the run's cohort, up to and with that of the run."""
        rows: list[Record] = []
        own: Record | None = None
        for record in self.kept:
            event = record.entry.event
            if record.entry.name != site or event.kind != "budget-reserved":
                continue
            if all(row.entry.event.run != event.run for row in rows):
                rows.append(record)
            if event.run == self.run and own is None:
                own = record
                break
        if own is None:
            return []
        cohort = own.entry.event.fields["cohort_commitment"]
        return [row for row in rows if row.entry.event.fields["cohort_commitment"] == cohort]

    def curve(self, site: str) -> tuple[Point, ...]:
        """The privacy loss after each trained round, recomputed; the first point is before any.

        At most 13 points; empty if nothing was reserved or it cannot be recomputed.
        """
        rows = self.reserved(site)
        rounds = {record.entry.event.round for record in self.of("dp-training", site)}
        if not rows or not rounds:
            return ()
        *before, own = (record.entry.event.fields for record in rows)
        if not own["rounds"] or own["steps"] % own["rounds"]:
            return ()
        steps = own["steps"] // own["rounds"]
        earlier = [_row(fields, fields["steps"]) for fields in before]
        trained = len(rounds)
        shown = sorted({round(trained * i / _POINTS) for i in range(_POINTS + 1)})
        points = []
        for count in shown:
            parts = [*earlier, *([_row(own, steps * count)] if count else [])]
            try:
                value = self.recompute(parts, float(own["delta"])) if parts else 0.0
            except Exception:  # the caller's accountant refuses in its own way
                return ()
            points.append(Point(count, value))
        return tuple(points)


def gather(
    path: Path,
    *,
    recompute: Recompute,
    trust: Mapping[str, str] | None = None,
    release_key: Path | None = None,
    tsa_roots: Path | None = None,
) -> Material:
    """Verify a bundle and read it for a report.

    Args:
        path: the bundle's folder.
        recompute: as for `verify`.
        trust: as for `verify`.
        release_key: the coordinator's public release key (PEM), if it came another way.
        tsa_roots: as for `verify`.

    Raises:
        AuditError: there is no bundle (exit code 2), or its manifest cannot be read.
    """
    findings = verify.verify(path, recompute=recompute, trust=trust, tsa_roots=tsa_roots)
    bundle = bundles.read(path)
    kept: list[Record] = []
    problems: list[Record] = []
    bulk: dict[tuple[str, ...], Sort] = {}
    entries = 0
    for entries, record in enumerate(stored.merged(bundle), start=1):  # noqa: B007
        event = record.entry.event
        if event.kind in BULK:
            _sort(bulk, record)
        elif event.run in (None, bundle.run) or event.kind == "budget-reserved":
            kept.append(record)
        if record.entry.problem:
            problems.append(record)
    return Material(
        bundle,
        findings,
        tuple(kept),
        tuple(problems),
        entries,
        recompute,
        release_key,
        tuple(bulk.values()),
    )


def _sort(bulk: dict[tuple[str, ...], Sort], record: Record) -> None:
    """Add an entry of a bulk kind to those that say the same."""
    fields = record.entry.event.fields
    said = (fields[name] for name in sorted(fields) if not name.endswith(disclosures.ENDING))
    key = (record.entry.name, record.entry.event.kind, *map(str, said))
    if key in bulk:
        bulk[key].last = record
        bulk[key].count += 1
    elif len(bulk) < _SORTS:
        bulk[key] = Sort(record, record)


def ref(record: Record) -> Reference:
    """A reference to an entry."""
    return Reference("entry", record.place, "sha256:" + record.leaf.hex())


def refs(records: Sequence[Record]) -> tuple[Reference, ...]:
    """References to entries."""
    return tuple(ref(record) for record in records)


def moment(record: Record) -> str:
    """When an entry was written, by its log's own clock."""
    return record.entry.event.time.strftime("%Y-%m-%d %H:%M UTC")


def short(digest: str) -> str:
    """A digest as a person compares it: its first 16 digits."""
    return digest[: len("sha256:") + 16]


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    if len(names) < 2:
        return "".join(names) or "nobody"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _row(fields: Mapping[str, Any], steps: int) -> tuple[float, float, int]:
    return float(fields["noise_multiplier"]), float(fields["sample_rate"]), steps
