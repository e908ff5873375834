"""One party's append-only log: a journal, its Merkle tree, and the static files made from both.

An event is durable when `append` returns. `checkpoint` exports the tiles first, then signs, then
publishes, so that nothing is ever signed that a reader could not fetch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit import canonical, dsse, events, export, kinds, merkle, note, tiles
from audit.canonical import JSON
from audit.errors import AuditError, BadSignature, EventInvalid, LogDamaged
from audit.events import Subject
from audit.grouping import Group
from audit.journal import Journal
from audit.keys import KeyRing, PublicKeys

JOURNAL = "journal.sqlite"
CHECKPOINT = "checkpoint"
_RECENT = 256  # checkpoints that a late cosignature may still belong to

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
        self._keys = keys
        self._now = now
        self._tree = merkle.Tree()
        self._group = Group(journal, begin=self._begin, undo=self._undo)
        self._stored = 0  # leaves of the tree that are in the journal for certain

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        keys: KeyRing,
        origin: str | None = None,
        software: str = "privity",
        now: Clock = _now,
    ) -> Log:
        """Start a log and write its first entry, `log-started`.

        Args:
            folder: created if absent; must not hold a log.
            keys: the party's keys; its name is the emitter of every event.
            origin: the log's name in checkpoints; by default the log key's name.
            software: what writes the log, for the first entry.
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
        log._check()
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
        return self._keys.public()

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
        if kind == "log-started":
            raise EventInvalid("log-started is written when a log is created, and only then")
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
            seq = self._tree.size
            prev = self._tree.leaf(seq - 1) if seq else merkle.EMPTY_ROOT
            time = self._now()
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
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (seq, kind, run, envelope))
            leaf = merkle.leaf_hash(envelope)
            self._tree.append(leaf)
            return Receipt(seq, leaf, envelope, time)

        if kind not in kinds.KINDS:
            raise EventInvalid(f"there is no event of kind {kind[:64]!r}")
        kinds.KINDS[kind].check(fields, kind)  # before others have to wait for it
        return self._group.write(write)

    def checkpoint(self) -> str:
        """Return a signed checkpoint over all entries, with the cosignatures of exactly that size.

        Order: tiles, then the journal's record of the signed note, then the file `checkpoint`.
        """
        with self._journal.write() as db:
            self._catch_up(db)
            self._sign(db, self._tree.size)
        return self._publish()

    def note_for(self, size: int) -> str:
        """Return a signed checkpoint for an earlier size, with its cosignatures.

        Raises:
            AuditError: the log has never been that long.
        """
        with self._journal.write() as db:
            self._catch_up(db)
            self._sign(db, size)
            return self._note(db, size)

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
        """Return the Merkle root over the first `size` entries."""
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
        signature = note.parse_signature(line.removesuffix("\n") + "\n")
        keys = [note.parse_key(witness)] if witness else self._known_witnesses()
        key = next((k for k in keys if (k.name, k.id) == (signature.name, signature.id)), None)
        if key is None or key.algorithm != note.COSIGNATURE_V1:
            raise BadSignature(
                f"a cosignature by {signature.name[:64]!r} is by no witness of this log",
                code="unknown-witness",
            )
        with self._journal.write() as db:
            rows = db.execute(
                "SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT ?", (_RECENT,)
            ).fetchall()
            for size, text in rows:
                try:
                    note.check_signature(note.parse(text).text, signature, key)
                except BadSignature:
                    continue
                db.execute(
                    "INSERT OR REPLACE INTO cosignatures VALUES (?, ?, ?)",
                    (size, key.name, str(signature)),
                )
                break
            else:
                raise BadSignature(
                    f"the cosignature of {key.name!r} covers none of the last {_RECENT} checkpoints"
                )
        self._publish()
        return int(size)

    def _known_witnesses(self) -> list[note.VerifierKey]:
        joined = [entry.event.fields["keys"] for entry in self.entries("institution-joined")]
        return [note.parse_key(PublicKeys.from_json(keys).witness) for keys in reversed(joined)]

    def _begin(self, db: sqlite3.Connection) -> None:
        self._catch_up(db)
        self._stored = self._tree.size

    def _undo(self) -> None:
        self._tree.cut(self._stored)

    def _catch_up(self, db: sqlite3.Connection) -> None:
        """Hash the entries that this process has not seen yet."""
        known = self._tree.size
        for seq, body in db.execute(
            "SELECT seq, body FROM entries WHERE seq >= ? ORDER BY seq", (known,)
        ):
            if seq != self._tree.size or not isinstance(body, bytes):
                raise LogDamaged(
                    f"entry {self._tree.size} of {self.folder} is missing or damaged; restore it"
                )
            self._tree.append(merkle.leaf_hash(body))

    def _sign(self, db: sqlite3.Connection, size: int) -> None:
        """Export and sign the first `size` entries, unless that was done before."""
        if db.execute("SELECT 1 FROM checkpoints WHERE size = ?", (size,)).fetchone():
            return
        stated = note.Checkpoint(self.origin, size, self._tree.root(size))
        export.write(db, self._tree, self.folder, size, rebuild=False)
        signature = note.sign(stated.text, name=f"{self._keys.name}/log", key=self._keys.log)
        signed = str(note.Note(stated.text, (signature,)))
        db.execute("INSERT INTO checkpoints VALUES (?, ?)", (size, signed))

    def _publish(self) -> str:
        """Write the newest signed note to the file `checkpoint`."""
        with self._journal.write() as db:
            size = db.execute("SELECT max(size) FROM checkpoints").fetchone()[0]
            text = self._note(db, size)
            path, data = self.folder / CHECKPOINT, text.encode()
            if not path.exists() or path.read_bytes() != data:
                tiles.write(path, data)
        return text

    def _note(self, db: sqlite3.Connection, size: int) -> str:
        row = db.execute("SELECT note FROM checkpoints WHERE size = ?", (size,)).fetchone()
        lines = db.execute(
            "SELECT line FROM cosignatures WHERE size = ? ORDER BY witness", (size,)
        ).fetchall()
        return str(row[0]) + "".join(str(line[0]) for line in lines)

    def _check(self) -> None:
        """Refuse a journal that contradicts the last signed or published checkpoint."""
        key = note.parse_key(self._keys.public().log)
        with self._journal.write() as db:
            self._catch_up(db)
            row = db.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
            seen = [] if row is None else [str(row[0]).encode()]
            path = self.folder / CHECKPOINT
            seen += [path.read_bytes()] if path.is_file() else []
            signed_size = 0
            for data in seen:
                signed = note.open_checkpoint(data, key=key, origin=self.origin)
                if not signed.size <= self._tree.size:
                    raise LogDamaged(
                        f"the log in {self.folder} has {self._tree.size} entries but signed "
                        f"{signed.size}; it was rolled back, restore the newest journal",
                        code="log-rolled-back",
                    )
                if self._tree.root(signed.size) != signed.root:
                    raise LogDamaged(
                        f"entries of the log in {self.folder} were changed after they were signed; "
                        "restore the journal",
                        code="log-edited",
                    )
                signed_size = max(signed_size, signed.size)
            export.write(db, self._tree, self.folder, signed_size, rebuild=True)
