"""Values that may be personal: the log has a salted digest, an erasable table beside it the value.

A disclosure is that of RFC 9901 section 4.2.1: base64url of the JSON array [salt, name, value],
with a salt of 128 random bits. The log's commitment is the SHA-256 of its ASCII bytes (section
4.2.3), written as `"sha256:<hex>"`. Who has the disclosure can check it against the log; once it is
erased, nobody can tell the value from the digest, and every proof over the log still holds.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit import canonical
from audit.canonical import JSON
from audit.errors import AuditError, Malformed

FILE = "disclosures.sqlite"
ENDING = "_commitment"
MOST_BYTES = 65536
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Disclosure:
    """A value that a commitment stands for. Its text is as personal as the value."""

    name: str
    value: str
    text: str

    def __repr__(self) -> str:
        return f"Disclosure({self.name!r})"

    @property
    def digest(self) -> str:
        """The commitment that the log has."""
        return canonical.digest(self.text.encode("ascii"))


def make(name: str, value: str) -> Disclosure:
    """Salt a value; every call gives another digest."""
    salt = _encode(secrets.token_bytes(_SALT_BYTES))
    return Disclosure(name, value, _encode(json.dumps([salt, name, value]).encode()))


def parse(text: str) -> Disclosure:
    """Read a disclosure; whether a log has its digest is for the caller to check.

    Raises:
        Malformed: it is not one.
    """
    failed = Malformed(
        "a disclosure is not base64url of [salt, name, value]", code="bad-disclosure"
    )
    if not len(text) <= MOST_BYTES:
        raise failed
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        parts: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise failed from None
    exact = isinstance(parts, list) and len(parts) == 3 and all(isinstance(p, str) for p in parts)
    if not exact or _encode(data) != text:
        raise failed
    return Disclosure(parts[1], parts[2], text)


class Table:
    """The erasable table beside one log, a file of mode 0600."""

    def __init__(self, folder: Path):
        """Open the table in a log's folder; it is made when something is first added."""
        self.path = folder / FILE

    def commit(self, values: Mapping[str, str]) -> dict[str, JSON]:
        """Keep values and return the fields that an event has in their place.

        Args:
            values: by field name without `_commitment`.

        Guarantees: durable before the call returns, so that an event never commits to a value that
        its owner has lost.
        """
        made = [make(name, value) for name, value in values.items()]
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT INTO disclosures VALUES (?, ?, ?, ?)",
                [(each.digest, each.name, each.value, each.text) for each in made],
            )
            db.execute("COMMIT")
        return {f"{each.name}{ENDING}": each.digest for each in made}

    def get(self, digests: Iterable[str]) -> dict[str, Disclosure]:
        """Return what is still held for some commitments, by digest."""
        if not self.path.exists():
            return {}
        found = {}
        with self._open() as db:
            for digest in digests:
                row = db.execute(
                    "SELECT text FROM disclosures WHERE digest = ?", (digest,)
                ).fetchone()
                if row is not None:
                    found[digest] = parse(str(row[0]))
        return found

    def matching(self, value: str) -> frozenset[str]:
        """Return the commitments to one value."""
        if not self.path.exists():
            return frozenset()
        with self._open() as db:
            rows = db.execute("SELECT digest FROM disclosures WHERE value = ?", (value,))
            return frozenset(str(row[0]) for row in rows)

    def erase(self, digests: Iterable[str]) -> int:
        """Erase values for good; return how many there were.

        Guarantees: afterwards neither the file nor its write-ahead log holds their bytes (SQLite's
        secure_delete, a truncating checkpoint, VACUUM). Copies elsewhere, and what a disk keeps of
        overwritten blocks, are beyond this program.
        """
        if not self.path.exists():
            return 0
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            count = sum(
                db.execute("DELETE FROM disclosures WHERE digest = ?", (digest,)).rowcount
                for digest in digests
            )
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            try:
                for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                    db.execute(f"PRAGMA {pragma}")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS disclosures (digest TEXT PRIMARY KEY,"
                    " name TEXT NOT NULL, value TEXT NOT NULL, text TEXT NOT NULL) WITHOUT ROWID"
                )
                yield db
            finally:
                db.close()
        except (sqlite3.Error, OSError) as error:
            raise AuditError(
                f"{self.path} cannot be used ({type(error).__name__}); restore it",
                code="disclosures-unavailable",
            ) from None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
