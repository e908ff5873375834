"""How long what lies beside a log is kept, and its erasure when that time is over.

The log itself is evidence and stays whole. What ends is the erasable table of disclosures, by the
kind of entry that commits to a value, and what a root keeps in files of its own. One entry says
which term ended and how much was erased; a verifier then calls those values redacted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from audit import disclosures, events, keys
from audit.canonical import JSON
from audit.errors import AuditError
from audit.kinds import ACCESS, KINDS
from audit.log import Log

LEAST_DAYS = 183
"""The shortest term of what lies behind entries: six months."""
CLASSES = {
    "access": ACCESS,
    "evidence": frozenset(KINDS) - ACCESS,
}
"""Which kinds of entries commit to the values of a class; `ops` has no such values."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Days that values are kept; None keeps them.

    Raises:
        AuditError: exit code 2; a term is shorter than `LEAST_DAYS`.
    """

    access: int | None = 2192
    evidence: int | None = 3653

    def __post_init__(self) -> None:
        for name in CLASSES:
            days = getattr(self, name)
            if days is not None and not days >= LEAST_DAYS:
                raise AuditError(
                    f"the retention of {name} is {days} days; the least is {LEAST_DAYS}",
                    code="bad-retention",
                    exit_code=2,
                )


@dataclass(frozen=True, slots=True)
class Due:
    """Something of a root's own whose term ended: a file or rows of a table.

    `name` says what it is, without a person's name; `digest` is a file's SHA-256, empty for rows.
    """

    name: str
    count: int = 1
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one class lost: values, files, rows, and the entry that says so (None: a dry run)."""

    retention: str
    before: datetime
    disclosures: int
    files: int
    rows: int
    entry: int | None


def prune(
    folder: Path, terms: Terms, *, now: datetime | None = None, dry_run: bool = False
) -> tuple[Pruned, ...]:
    """Erase the values behind entries whose term ended; nothing is logged where nothing is due.

    Args:
        folder: the party's folder, with `keys/` and `log/`.
        terms: how long values are kept.
        now: the time; by default this machine's.
        dry_run: say what is due, and leave it.

    Guarantees: the entry is durable before anything is erased; interrupted in between, the same
        call erases it.
    """
    now = now or datetime.now(UTC)
    table = disclosures.Table(folder / "log")
    log = Log.open(folder / "log", keys=keys.load(folder / "keys"))
    done = []
    try:
        for name, kinds in CLASSES.items():
            days = getattr(terms, name)
            if days is None:
                continue
            before = now - timedelta(days=days)
            held = table.get(_committed(log, kinds, before))
            if not held:
                continue
            index = None
            if not dry_run:
                fields: dict[str, JSON] = {
                    "retention": name,
                    "before": events.timestamp(before),
                    "disclosures": len(held),
                }
                index = log.append("retention-pruned", fields).index
                table.erase(held)
            done.append(Pruned(name, before, len(held), 0, 0, index))
        if done and not dry_run:
            log.checkpoint()
    finally:
        log.close()
    return tuple(done)


def note_removed(folder: Path, due: Sequence[Due], *, before: datetime) -> int:
    """Log what a root is about to remove of its own; the entry is durable before it returns.

    The list of names, counts and digests is a commitment: it says nothing without its salt.

    Returns:
        The entry's index.
    """
    files = [item for item in due if item.digest]
    rows = [item for item in due if not item.digest]
    text = "".join(f"{item.name}\t{item.count}\t{item.digest}\n" for item in due)
    # A disclosure has room for so much; the counts are exact all the same.
    most = disclosures.MOST_BYTES // 2
    kept = disclosures.Table(folder / "log").commit({"listed": text[:most]})
    log = Log.open(folder / "log", keys=keys.load(folder / "keys"))
    try:
        fields: dict[str, JSON] = {
            "retention": "ops",
            "before": events.timestamp(before),
            "disclosures": 0,
            "files": sum(item.count for item in files),
            "rows": sum(item.count for item in rows),
            **kept,
        }
        index = log.append("retention-pruned", fields).index
        log.checkpoint()
        return index
    finally:
        log.close()


def _committed(log: Log, kinds: frozenset[str], before: datetime) -> list[str]:
    """The commitments of entries of some kinds that were written before a time."""
    return [
        str(value)
        for entry in log.entries()
        if entry.event.kind in kinds and entry.event.time < before
        for name, value in entry.event.fields.items()
        if name.endswith(disclosures.ENDING)
    ]
