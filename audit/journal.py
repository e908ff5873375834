"""The SQLite file behind a log: entries, signed checkpoints and cosignatures, never changed.

Write-ahead logging with `synchronous=FULL`: what was committed survives a power cut. Every write
runs under `BEGIN IMMEDIATE`, so processes that share a journal take turns. Local disks only.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit.errors import AuditError, LogDamaged

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x50724C67  # "PrLg"
_BUSY_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE identity (emitter TEXT NOT NULL, origin TEXT NOT NULL);
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, run TEXT, body BLOB NOT NULL
);
CREATE INDEX entries_by_kind ON entries (kind, run);
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL);
CREATE TABLE cosignatures (
    size INTEGER NOT NULL, witness TEXT NOT NULL, line TEXT NOT NULL, PRIMARY KEY (size, witness)
);
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER checkpoints_stay BEFORE UPDATE ON checkpoints
    BEGIN SELECT RAISE(ABORT, 'checkpoints are append-only'); END;
CREATE TRIGGER checkpoints_remain BEFORE DELETE ON checkpoints
    BEGIN SELECT RAISE(ABORT, 'checkpoints are append-only'); END;
"""


class Journal:
    """One connection to a journal; threads share it, processes open their own."""

    def __init__(self, path: Path, db: sqlite3.Connection):
        self.path = path
        self._db = db
        self._lock = threading.RLock()

    @classmethod
    def create(cls, path: Path, *, emitter: str, origin: str) -> Journal:
        """Make a new journal file of mode 0600.

        Raises:
            AuditError: there is one already, or it cannot be written.
        """
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise AuditError(
                f"{path} exists already; open that log or choose another folder",
                code="log-exists",
                exit_code=2,
            ) from None
        except OSError as error:
            raise AuditError(
                f"{path} cannot be created ({error.strerror})", code="log-unavailable", exit_code=2
            ) from None
        journal = cls._connect(path)
        with journal.write() as db:
            for line in _statements(_SCHEMA):
                db.execute(line)
            db.execute("INSERT INTO identity VALUES (?, ?)", (emitter, origin))
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open an existing journal.

        Raises:
            AuditError: there is none, it is no journal, or a newer version wrote it.
        """
        if not path.is_file():
            raise AuditError(
                f"{path} does not exist; create the log first", code="no-log", exit_code=2
            )
        journal = cls._connect(path)
        with journal.read() as db:
            found = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
        if found != _APPLICATION_ID:
            raise LogDamaged(f"{path} is not a log's journal; restore it", code="not-a-log")
        if not version <= SCHEMA_VERSION:
            raise AuditError(
                f"{path} was written by a newer version (format {version}, this one reads "
                f"{SCHEMA_VERSION}); update privity",
                code="newer-format",
                exit_code=2,
            )
        return journal

    @classmethod
    def _connect(cls, path: Path) -> Journal:
        try:
            db = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise LogDamaged(f"{path} cannot be opened ({error}); restore it") from None
        return cls(path, db)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run the body as the only writer of all processes; it is durable when the body ends."""
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the other threads of this process from reading and writing."""
        with self._lock:
            yield

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Run the body on what is committed."""
        with self._guard():
            yield self._db

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.DatabaseError as error:
                raise LogDamaged(
                    f"{self.path} cannot be used ({error}); check the disk, then restore the log",
                    code="log-unavailable",
                ) from None


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements (`executescript` would commit the transaction)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
