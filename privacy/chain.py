"""The ledger's hash chain: an entry's digest covers its text and its predecessor's digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from privacy.errors import LedgerFault


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


GENESIS = _digest(b"privity ledger 1\n")

# Every field of every kind; an entry with one more or one less is not ours.
_FIELDS: Mapping[str, Mapping[str, type]] = {
    "reservation": {
        "cohort": str,
        "run": str,
        "plan_digest": str,
        "noise_multiplier": float,
        "sample_rate": float,
        "steps": int,
        "rounds": int,
        "delta": float,
        "epsilon_before": float,
        "epsilon_after": float,
        "cap": float,
    },
    "round": {"run": str, "round": int, "input_digest": str},
}
_HEADER: Mapping[str, type] = {"kind": str, "time": str}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its place from 0, its fields, the exact text that was hashed, its digest."""

    position: int
    body: Mapping[str, Any]
    text: str
    digest: str


def head(entries: Sequence[Entry]) -> str:
    """Return the digest of the newest entry, or `GENESIS` if there is none."""
    return entries[-1].digest if entries else GENESIS


def link(entries: Sequence[Entry], body: Mapping[str, Any]) -> Entry:
    """Make the entry that follows `entries`; its digest is SHA-256(previous, newline, text)."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _entry(len(entries), head(entries), text)


def replay(stored: Iterable[tuple[int, str, str]]) -> tuple[Entry, ...]:
    """Rebuild the chain from stored (position, text, digest), oldest first.

    Raises:
        LedgerFault: an entry was changed, removed, moved or inserted, or is of an unknown kind.
    """
    entries: list[Entry] = []
    previous = GENESIS
    for place, (position, text, digest) in enumerate(stored):
        entry = _entry(place, previous, text)
        if position != place or digest != entry.digest:
            raise LedgerFault(
                f"entry {place} of the ledger does not follow from the one before it: the file was "
                "damaged or edited; restore the newest copy whose head the log has published"
            )
        entries.append(entry)
        previous = digest
    return tuple(entries)


def _entry(position: int, previous: str, text: str) -> Entry:
    digest = _digest(f"{previous}\n{text}".encode())
    return Entry(position, _body(position, text), text, digest)


def _body(position: int, text: str) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
        fields = _HEADER | _FIELDS[body["kind"]]  # type: ignore[operator]
        known = set(body) == set(fields) and all(type(body[key]) is fields[key] for key in fields)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise LedgerFault(
            f"entry {position} of the ledger is of a kind that this version does not know; "
            "restore the newest copy, or update privity if a newer version wrote it"
        )
    return body  # type: ignore[no-any-return]
