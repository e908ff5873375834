"""What a log shows to others: signed checkpoints, their cosignatures, and the files beside them.

Order: tiles, then the journal's record of the signed note, then the file `checkpoint`, so that
nothing is ever signed that a reader could not fetch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from audit import export, merkle, note, rotation, tiles
from audit.errors import AuditError, BadSignature, LogDamaged
from audit.journal import Journal
from audit.keys import KeyRing
from audit.rotation import Segment

CHECKPOINT = "checkpoint"
_RECENT = 256  # checkpoints that a late cosignature may still belong to


class Publisher:
    """The published side of one log. Every method runs inside one of the journal's transactions."""

    def __init__(self, folder: Path, journal: Journal, tree: merkle.Tree, origin: str):
        self._folder = folder
        self._journal = journal
        self._tree = tree
        self._origin = origin

    def sign(self, db: sqlite3.Connection, size: int, keys: KeyRing, since: int) -> None:
        """Export and sign the first `size` entries, unless that was done before.

        Args:
            db: the journal.
            size: how many entries.
            keys: the keys in force.
            since: the size from which on they are.
        """
        if db.execute("SELECT 1 FROM checkpoints WHERE size = ?", (size,)).fetchone():
            return
        if not size >= since:
            raise AuditError(
                f"the keys that signed the first {size} entries were rotated away; ask for a "
                "later checkpoint",
                code="retired-key",
            )
        stated = note.Checkpoint(self._origin, size, self._tree.root(size))
        export.write(db, self._tree, self._folder, size, rebuild=False)
        signature = note.sign(stated.text, name=f"{keys.name}/log", key=keys.log)
        signed = str(note.Note(stated.text, (signature,)))
        db.execute("INSERT INTO checkpoints VALUES (?, ?)", (size, signed))

    def publish(self) -> str:
        """Write the newest signed note to the file `checkpoint`, and return it."""
        with self._journal.write() as db:
            size = db.execute("SELECT max(size) FROM checkpoints").fetchone()[0]
            text = self.signed_note(db, size)
            path, data = self._folder / CHECKPOINT, text.encode()
            if not path.exists() or path.read_bytes() != data:
                tiles.write(path, data)
        return text

    def signed_note(self, db: sqlite3.Connection, size: int) -> str:
        """Return a signed note with its cosignatures."""
        row = db.execute("SELECT note FROM checkpoints WHERE size = ?", (size,)).fetchone()
        lines = db.execute(
            "SELECT line FROM cosignatures WHERE size = ? ORDER BY witness", (size,)
        ).fetchall()
        return str(row[0]) + "".join(str(line[0]) for line in lines)

    def keep(self, db: sqlite3.Connection, line: str, keys: Iterable[note.VerifierKey]) -> int:
        """Keep a cosignature by one of some witnesses; return the size that it covers.

        Raises:
            BadSignature: the witness is unknown, or the line covers none of the last checkpoints.
        """
        signature = note.parse_signature(line.removesuffix("\n") + "\n")
        key = next((k for k in keys if (k.name, k.id) == (signature.name, signature.id)), None)
        if key is None or key.algorithm != note.COSIGNATURE_V1:
            raise BadSignature(
                f"a cosignature by {signature.name[:64]!r} is by no witness of this log",
                code="unknown-witness",
            )
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
            return int(size)
        raise BadSignature(
            f"the cosignature of {key.name!r} covers none of the last {_RECENT} checkpoints"
        )

    def check(self, db: sqlite3.Connection, history: Sequence[Segment]) -> None:
        """Refuse a journal that contradicts the last signed or published checkpoint.

        Afterwards the published files are those of the journal again, whatever they were.
        """
        row = db.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        seen = [] if row is None else [str(row[0])]
        path = self._folder / CHECKPOINT
        seen += [path.read_bytes().decode("utf-8", "replace")] if path.is_file() else []
        signed_size = 0
        for data in seen:
            size = note.parse_checkpoint(note.parse(data)).size
            if not size <= self._tree.size:
                raise LogDamaged(
                    f"the log in {self._folder} has {self._tree.size} entries but signed {size}; "
                    "it was rolled back, restore the newest journal",
                    code="log-rolled-back",
                )
            signed = rotation.open_note(data, history, self._origin)
            if self._tree.root(size) != signed.root:
                raise LogDamaged(
                    f"entries of the log in {self._folder} were changed after they were signed; "
                    "restore the journal",
                    code="log-edited",
                )
            signed_size = max(signed_size, size)
        export.write(db, self._tree, self._folder, signed_size, rebuild=True)
