"""One party's append-only log: a journal, its Merkle tree, and the static files made from both.

An event is durable when `append` returns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from audit import canonical, dsse, events, kinds, merkle, note, rotation, tenure, tiles
from audit.canonical import JSON
from audit.errors import AuditError, EventInvalid, LogDamaged
from audit.events import Subject
from audit.grouping import Group
from audit.journal import Journal
from audit.keys import KeyRing, PublicKeys
from audit.publishing import Publisher
from audit.tenure import Tenure

JOURNAL = "journal.sqlite"
_JUMP = timedelta(seconds=1)  # backwards; less is the clock being set right


Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an append answers: the entry's index, leaf hash (32 bytes), envelope and time."""

    index: int
    leaf: bytes
    envelope: bytes
    time: datetime

    @property
    def leaf_digest(self) -> str:
        """The leaf hash as `"sha256:<hex>"`."""
        return "sha256:" + self.leaf.hex()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry read back: its index and its in-toto statement."""

    index: int
    statement: dict[str, Any]

    @property
    def event(self) -> events.Event:
        """The statement as a checked event."""
        return events.read(self.statement)


def _now() -> datetime:
    return datetime.now(UTC)


class Log:
    """A party's own log in one folder. Several processes may hold it at once."""

    def __init__(self, folder: Path, journal: Journal, keys: KeyRing, origin: str, now: Clock):
        self.folder = folder
        self.origin = origin
        self._journal = journal
        self._keys, self._public = keys, keys.public()
        self._now = now
        self._tree = merkle.Tree()
        self._group = Group(journal, begin=self._begin, undo=self._undo)
        self._publisher = Publisher(folder, journal, self._tree, origin)
        self._stored = 0  # leaves of the tree that are in the journal for certain
        self._tenure = Tenure(folder)
        self._last: datetime | None = None  # time of the newest entry

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        keys: KeyRing,
        origin: str | None = None,
        software: str = "privity",
        expires: datetime | None = None,
        now: Clock = _now,
    ) -> Log:
        """Start a log and write its first entry, `log-started`.

        Args:
            folder: created if absent; must not hold a log.
            keys: the party's keys; its name is the emitter of every event.
            origin: the log's name in checkpoints; by default the log key's name.
            software: what writes the log, for the first entry.
            expires: when the keys end; nothing is appended after that but a rotation.
            now: the clock.

        Raises:
            AuditError: a log is already there, or the folder cannot be written.
        """
        origin = f"{keys.name}/log" if origin is None else origin
        started: dict[str, JSON] = {
            "origin": origin,
            "software": software,
            "keys": keys.public().to_json(),
        }
        started |= {} if expires is None else {"keys_expire": events.timestamp(expires)}
        kinds.KINDS["log-started"].check(started, "log-started")
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal.create(folder / JOURNAL, emitter=keys.name, origin=origin)
        log = cls(folder, journal, keys, origin, now)
        log._write_entry("log-started", started)
        return log

    @classmethod
    def open(cls, folder: Path, *, keys: KeyRing, now: Clock = _now) -> Log:
        """Open a log and check its journal against what it has signed and published.

        Guarantees: every Merkle hash comes from the entries' bytes, none from a stored column.

        Raises:
            LogDamaged: the journal was edited, cut or rolled back since the last checkpoint.
            AuditError: there is no log, it is another party's, or a newer version wrote it.
        """
        journal = Journal.open(folder / JOURNAL)
        with journal.read() as db:
            identity = db.execute("SELECT emitter, origin FROM identity").fetchone()
        if identity is None or identity[0] != keys.name:
            raise AuditError(
                f"the log in {folder} is not that of {keys.name!r}; check folder and keys",
                code="wrong-keys",
                exit_code=2,
            )
        log = cls(folder, journal, keys, identity[1], now)
        with journal.write() as db:
            log._catch_up(db)
            log._tenure.check(keys.public())
            log._publisher.check(db, log._tenure.history)
        return log

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    @property
    def size(self) -> int:
        """Number of entries, those of other processes included."""
        with self._journal.read() as db:
            self._catch_up(db)
            return self._tree.size

    @property
    def keys(self) -> PublicKeys:
        """The public keys of the log's owner."""
        return self._public

    def append(
        self,
        kind: str,
        fields: Mapping[str, JSON],
        *,
        subjects: Sequence[Subject] = (),
        run: str | None = None,
        round: int | None = None,  # noqa: A002 - the word of the log format
    ) -> Receipt:
        """Sign an event and write it as the next entry.

        Guarantees: durable before the call returns; `seq` and `prev` are set under the journal's
        write lock, so concurrent processes leave no gap and no fork. Threads that append at once
        wait for the disk together.

        Raises:
            EventInvalid: the event is not in the table of events.
            AuditError: the entry is over 65,535 bytes, or the journal cannot be written.
        """
        if kind in tenure.KINDS:
            raise EventInvalid(f"{kind} is written by what it is about, and only then")
        return self._write_entry(kind, fields, subjects=subjects, run=run, round=round)

    def _write_entry(
        self,
        kind: str,
        fields: Mapping[str, JSON],
        *,
        subjects: Sequence[Subject] = (),
        run: str | None = None,
        round: int | None = None,  # noqa: A002 - as above
    ) -> Receipt:
        def write(db: sqlite3.Connection) -> Receipt:
            time = self._now()
            self._tenure.check(self._public, time)
            if kind != "log-started":
                self._note_clock(db, time)
            return self._insert(db, time, kind, fields, subjects=subjects, run=run, round=round)

        if kind not in kinds.KINDS:
            raise EventInvalid(f"there is no event of kind {kind[:64]!r}")
        kinds.KINDS[kind].check(fields, kind)  # before others have to wait for it
        return self._group.write(write)

    def rotate(self, new: KeyRing, *, reason: str, expires: datetime | None = None) -> Receipt:
        """Hand the log over to new keys of the same party; from the next entry on they sign it.

        Guarantees: the entry is signed by the old event key and the hand-over by both log keys;
        other processes that hold the log with the old keys append nothing afterwards.

        Raises:
            AuditError: the new keys are another party's or share a key with the old ones.
        """

        def write(db: sqlite3.Connection) -> Receipt:
            time = self._now()
            self._tenure.check(self._keys.public())
            self._note_clock(db, time)
            fields: dict[str, JSON] = {
                "keys": new.public().to_json(),
                "reason": reason,
                "note": rotation.handover(self.origin, self._tree.size, self._keys, new),
            }
            fields |= {} if expires is None else {"keys_expire": events.timestamp(expires)}
            receipt = self._insert(db, time, "key-rotated", fields)
            self._keys, self._public = new, new.public()
            return receipt

        if new.name != self._keys.name:
            raise AuditError("the new keys are of another party", code="wrong-keys", exit_code=2)
        old = self._keys
        try:
            return self._group.write(write)
        except BaseException:
            self._keys, self._public = old, old.public()
            raise

    def _insert(
        self,
        db: sqlite3.Connection,
        time: datetime,
        kind: str,
        fields: Mapping[str, JSON],
        *,
        subjects: Sequence[Subject] = (),
        run: str | None = None,
        round: int | None = None,  # noqa: A002 - as above
    ) -> Receipt:
        seq = self._tree.size
        prev = self._tree.leaf(seq - 1) if seq else merkle.EMPTY_ROOT
        statement = events.statement(
            kind,
            fields,
            emitter=self._keys.name,
            origin=self.origin,
            seq=seq,
            prev="sha256:" + prev.hex(),
            time=time,
            subjects=subjects,
            run=run,
            round=round,
        )
        envelope = dsse.seal(canonical.encode(statement), self._keys.event)
        tiles.check_entry(envelope)
        if kind in tenure.KINDS:
            self._tenure.follow(events.read(statement))
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (seq, kind, run, envelope))
        leaf = merkle.leaf_hash(envelope)
        self._tree.append(leaf)
        self._last = time
        return Receipt(seq, leaf, envelope, time)

    def checkpoint(self) -> str:
        """Return a signed checkpoint over all entries, with the cosignatures of exactly that size.

        Order: tiles, then the journal's record of the signed note, then the file `checkpoint`.
        """
        with self._journal.write() as db:
            self._catch_up(db)
            self._sign(db, self._tree.size)
        return self._publisher.publish()

    def note_for(self, size: int) -> str:
        """Return a signed checkpoint for an earlier size, with its cosignatures.

        Raises:
            AuditError: the log has never been that long.
        """
        with self._journal.write() as db:
            self._catch_up(db)
            self._sign(db, size)
            return self._publisher.signed_note(db, size)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Return the proof that entry `index` is in the log of `size` entries."""
        with self._journal.read() as db:
            self._catch_up(db)
            return self._tree.inclusion(index, size)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Return the proof that the log of `new` entries extends the log of `old` entries."""
        with self._journal.read() as db:
            self._catch_up(db)
            return self._tree.consistency(old, new)

    def root(self, size: int) -> bytes:
        """Return the root over the first `size` entries."""
        with self._journal.read() as db:
            self._catch_up(db)
            return self._tree.root(size)

    def entry(self, index: int) -> bytes:
        """Return the envelope of one entry.

        Raises:
            AuditError: there is no such entry.
        """
        with self._journal.read() as db:
            row = db.execute("SELECT body FROM entries WHERE seq = ?", (index,)).fetchone()
        if row is None:
            raise AuditError(f"the log has no entry {index}", code="no-such-entry", exit_code=2)
        return bytes(row[0])

    def entries(self, kind: str | None = None, run: str | None = None) -> Iterator[Entry]:
        """Yield the entries in order, perhaps only those of one kind or run."""
        with self._journal.read() as db:
            rows = db.execute(
                "SELECT seq, body FROM entries WHERE (?1 IS NULL OR kind = ?1)"
                " AND (?2 IS NULL OR run = ?2) ORDER BY seq",
                (kind, run),
            ).fetchall()
        for seq, body in rows:
            statement = dsse.parse(bytes(body)).statement
            if not isinstance(statement, dict):
                raise LogDamaged(
                    f"entry {seq} of {self.folder} is not a statement; restore the log"
                )
            yield Entry(seq, statement)

    def add_cosignature(self, line: str, *, witness: str | None = None) -> int:
        """Keep a witness's cosignature for the newest checkpoint that it covers.

        Args:
            line: one signature line, with or without its newline.
            witness: the witness's vkey; by default it is looked up among the parties that joined
                in this log.

        Returns:
            The size of the checkpoint that it covers.

        Raises:
            BadSignature: the witness is unknown, or the line covers none of the last checkpoints.
        """
        keys = [note.parse_key(witness)] if witness else self._known_witnesses()
        with self._journal.write() as db:
            size = self._publisher.keep(db, line, keys)
        self._publisher.publish()
        return size

    def _known_witnesses(self) -> list[note.VerifierKey]:
        joined = [entry.event.fields["keys"] for entry in self.entries("institution-joined")]
        return [note.parse_key(PublicKeys.from_json(keys).witness) for keys in reversed(joined)]

    def _begin(self, db: sqlite3.Connection) -> None:
        self._catch_up(db)
        self._stored = self._tree.size

    def _undo(self) -> None:
        self._tree.cut(self._stored)
        self._tenure.forget(self._stored)
        self._last = None

    def _note_clock(self, db: sqlite3.Connection, time: datetime) -> None:
        """Log that the clock went back, if it did: times in the log are its owner's claim."""
        if self._last is None and self._tree.size:
            row = db.execute(
                "SELECT body FROM entries WHERE seq = ?", (self._tree.size - 1,)
            ).fetchone()
            self._last = events.read(dsse.parse(bytes(row[0])).statement).time
        if self._last is not None and time < self._last - _JUMP:
            seen = {"before": events.timestamp(self._last), "seen": events.timestamp(time)}
            self._insert(db, time, "clock-anomaly", seen)

    def _sign(self, db: sqlite3.Connection, size: int) -> None:
        self._tenure.check(self._public)
        self._publisher.sign(db, size, self._keys, self._tenure.since)

    def _catch_up(self, db: sqlite3.Connection) -> None:
        """Hash the entries that this process has not seen yet."""
        known = self._tree.size
        for seq, kind, body in db.execute(
            "SELECT seq, kind, body FROM entries WHERE seq >= ? ORDER BY seq", (known,)
        ):
            if seq != self._tree.size or not isinstance(body, bytes):
                raise LogDamaged(
                    f"entry {self._tree.size} of {self.folder} is missing or damaged; restore it"
                )
            self._tree.append(merkle.leaf_hash(body))
            self._last = None
            if kind in tenure.KINDS or not self._tenure.history:
                self._tenure.follow(events.read(dsse.parse(body).statement))
