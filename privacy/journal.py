"""The file under the ledger: one append-only SQLite table, one writer at a time."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from privacy import chain
from privacy.chain import Entry
from privacy.errors import LedgerFault

_APPLICATION = 0x50525659  # "PRVY" in the file's header
_FORMAT = 1
_PATIENCE_S = 60.0  # a competing reservation composes distributions inside its transaction
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
CREATE TABLE entry (
    position INTEGER PRIMARY KEY, body TEXT NOT NULL, digest TEXT NOT NULL UNIQUE
) STRICT;
CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry
    BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER entry_is_never_removed BEFORE DELETE ON entry
    BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
"""


class Journal:
    """The door to one file. Safe across processes, threads and forks: no connection stays open."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty journal, mode 0600, complete or not at all.

        Raises:
            LedgerFault: the file exists already, or cannot be written.
        """
        with _faults(path):
            handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
            os.close(handle)
            try:
                with closing(_connect(Path(draft))) as connection:
                    connection.executescript(_SCHEMA)
                os.link(draft, path)  # unlike a rename, never replaces what is there
                _sync_folder(path.parent)
            except FileExistsError:
                raise LedgerFault(
                    f"a ledger exists already at {path}; open it, "
                    "for a new one would forget what was spent"
                ) from None
            finally:
                os.unlink(draft)

    def read(self) -> tuple[Entry, ...]:
        """Return all entries, oldest first, after checking the format and the whole chain.

        Raises:
            LedgerFault: missing, not a ledger, written by a newer version, or damaged.
        """
        with _faults(self.path), closing(_connect(self.path)) as connection:
            return _entries(connection, self.path)

    @contextmanager
    def write(self) -> Iterator[tuple[tuple[Entry, ...], Callable[[Mapping[str, Any]], Entry]]]:
        """Hold the file for one append, giving its entries and the function that appends.

        Guarantees: nobody else writes meanwhile; on the disk when the block ends; nothing is
        written when the block raises or the process dies in it.

        Raises:
            LedgerFault: as `read`, or the entry could not be made durable.
        """
        with _faults(self.path), closing(_connect(self.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            entries = _entries(connection, self.path)

            def append(body: Mapping[str, Any]) -> Entry:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                entry = chain.link(entries, {**body, "time": now})
                connection.execute(
                    "INSERT INTO entry VALUES (?, ?, ?)", (entry.position, entry.text, entry.digest)
                )
                return entry

            yield entries, append
            connection.execute("COMMIT")  # closing without it rolls back


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_PATIENCE_S
    )
    # FULL: a commit reaches the disk before it returns, in WAL mode too.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    return connection


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn whatever SQLite or the file system says into one sentence with a remedy."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = getattr(error, "sqlite_errorname", None) or os.strerror(
            getattr(error, "errno", None) or errno.EIO
        )
        raise LedgerFault(
            f"the ledger at {path} cannot be used ({reason}), so nothing may be trained; "
            f"{_remedy(reason)}"
        ) from error


_REMEDIES = {
    "SQLITE_FULL": "free some space on its disk and try again",
    "SQLITE_BUSY": "another process holds it; wait for that one and try again",
    "SQLITE_CANTOPEN": "check the path, or make a new institution with privity client init",
    "SQLITE_READONLY": "let this user write to the file and its folder",
    "SQLITE_NOTADB": "it is not a ledger; restore the newest copy",
    "SQLITE_CORRUPT": "restore the newest copy whose head the log has published",
    os.strerror(errno.ENOSPC): "free some space on its disk and try again",
}


def _remedy(reason: str) -> str:
    for prefix, remedy in _REMEDIES.items():
        if reason.startswith(prefix):
            return remedy
    return "check the disk, the path and the permissions"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entries(connection: sqlite3.Connection, path: Path) -> tuple[Entry, ...]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION:
        raise LedgerFault(
            f"the file at {path} is not a ledger; check the path, or restore the newest copy"
        )
    if version != _FORMAT:
        raise LedgerFault(
            f"the ledger at {path} was written by a newer version (its format is {version}, "
            f"this version knows {_FORMAT}); update privity"
        )
    return chain.replay(
        connection.execute("SELECT position, body, digest FROM entry ORDER BY position")
    )
