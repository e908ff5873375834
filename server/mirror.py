"""The coordinator's copy of one site's log, kept in step with every answer, and its witness."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit import dsse, events, merkle, note, rotation, tiles
from audit.canonical import from_base64, to_base64
from audit.errors import InconsistentLog
from audit.events import Event
from audit.keys import PublicKeys
from audit.rotation import Segment
from audit.witness import Witness
from configs import files
from server.errors import ServerError

_ENTRIES = "entries.json"
_CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Head:
    """What the mirror holds: so many entries under this root, and the note that says so."""

    size: int
    root: str
    checkpoint: str


def own_note(cosigned: str) -> str:
    """A site's checkpoint as it signed it, without the cosignature that we added."""
    signed = note.parse(cosigned)
    return str(note.Note(signed.text, signed.signatures[:1]))


class Mirror:
    """One site's log as the coordinator received it; laid out like any published log."""

    def __init__(self, folder: Path, keys: PublicKeys, origin: str) -> None:
        self.folder = folder
        self._keys = keys
        self._origin = origin
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._entries = self._read()

    @property
    def size(self) -> int:
        """How many entries are held."""
        return len(self._entries)

    @property
    def cosigned(self) -> str:
        """The newest checkpoint with the coordinator's cosignature, or empty."""
        path = self.folder / _CHECKPOINT
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def event(self, index: int) -> Event:
        """One entry as a checked event.

        Raises:
            ServerError: there is no such entry.
        """
        if not 0 <= index < self.size:
            raise ServerError("the site's log has no such entry", code="no-such-entry", exit_code=4)
        return events.read(dsse.parse(self._entries[index]).statement)

    def events(self) -> list[Event]:
        """Every entry as a checked event."""
        return [self.event(index) for index in range(self.size)]

    def leaf(self, index: int) -> str:
        """Leaf digest of one entry."""
        return "sha256:" + merkle.leaf_hash(self._entries[index]).hex()

    def extend(self, entries: Sequence[str], checkpoint: str, witness: Witness) -> Head:
        """Take over new entries if they, under the site's signature, extend what is held.

        Guarantees: every entry is signed by the site's event key and is a known kind of event; the
            checkpoint is signed by the site's log key and states exactly these entries; afterwards
            it carries the coordinator's cosignature, and both are on disk.

        Raises:
            AuditError: any of these does not hold; the mirror is unchanged.
        """
        grown = [*self._entries, *(from_base64(text, where="an entry") for text in entries)]
        history = self._follow(grown)
        stated = rotation.open_note(checkpoint, history, self._origin)
        tree = merkle.Tree()
        for body in grown:
            tree.append(merkle.leaf_hash(body))
        if stated.size != tree.size or stated.root != tree.root(tree.size):
            self._check_contradiction(stated, checkpoint)
            raise ServerError(
                f"the log of {self._keys.name} does not match its entries; its operator must look",
                code="log-mismatch",
                exit_code=4,
            )
        known = witness.last(self._origin)
        old = known[0] if known else 0
        line = witness.cosign(
            checkpoint,
            old_size=old,
            proof=tree.consistency(old, tree.size) if old else (),
            log_key=history[-1].keys.log,
            origin=self._origin,
        )
        self._write(grown, tree, checkpoint + line)
        return Head(tree.size, "sha256:" + stated.root.hex(), checkpoint)

    @property
    def origin(self) -> str:
        """The name of the site's log."""
        return self._origin

    def _check_contradiction(self, stated: note.Checkpoint, checkpoint: str) -> None:
        """Refuse a checkpoint that the held one, signed by the same site, shows to be of a fork.

        Raises:
            InconsistentLog: with both notes.
        """
        if not stated.size <= self.size or not self.cosigned:
            return
        tree = merkle.Tree()
        for body in self._entries:
            tree.append(merkle.leaf_hash(body))
        if (
            tree.root(stated.size) != stated.root
        ):  # an answer that is merely late has a root of ours
            raise InconsistentLog(
                f"the log of {self._keys.name} is not, any more, the one that was cosigned; its "
                "operator must look",
                older=own_note(self.cosigned),
                newer=checkpoint,
                code="log-forked",
            )

    def keys(self) -> PublicKeys:
        """The site's keys in force at the end of what is held."""
        return self._follow(self._entries)[-1].keys

    def keys_after(self, entries: Sequence[str]) -> PublicKeys:
        """The site's keys in force once it has handed over these entries too.

        Raises:
            AuditError, ServerError: they do not follow from what is held.
        """
        bodies = [from_base64(text, where="an entry") for text in entries]
        return self._follow([*self._entries, *bodies])[-1].keys

    def _follow(self, entries: Sequence[bytes]) -> list[Segment]:
        """Check each entry's signature and form, and follow the site's keys.

        Raises:
            AuditError: an entry is not signed by the key in force, or the site's keys never were
                those that it enrolled with.
        """
        history: list[Segment] = []
        for body in entries:
            envelope = dsse.parse(body)
            event = events.read(envelope.statement)
            if not history:
                known = event.kind == "log-started"
                keys = PublicKeys.from_json(event.fields["keys"]) if known else self._keys
                history.append(Segment(0, keys))
            dsse.check(envelope, note.parse_key(history[-1].keys.event).public)
            if event.kind == "key-rotated":
                history.append(rotation.follow(event, history[-1].keys))
        history = history or [Segment(0, self._keys)]
        if self._keys not in [segment.keys for segment in history]:
            raise ServerError(
                f"the log of {self._keys.name} begins with other keys than were enrolled; its "
                "operator must look",
                code="log-mismatch",
                exit_code=4,
            )
        return history

    def _read(self) -> list[bytes]:
        path = self.folder / _ENTRIES
        if not path.exists():
            return []
        return [
            from_base64(text, where="a mirrored entry") for text in json.loads(path.read_text())
        ]

    def _write(self, entries: list[bytes], tree: merkle.Tree, checkpoint: str) -> None:
        for tile in tiles.needed(len(entries)):
            if tile.level == tiles.ENTRIES:
                data = tiles.pack(entries[tile.start : tile.start + tile.width])
            else:
                data = tiles.hashes(tile, tree)
            tiles.write(self.folder / tile.path, data)
        files.replace(
            self.folder / _ENTRIES, json.dumps([to_base64(body) for body in entries]).encode()
        )
        files.replace(self.folder / _CHECKPOINT, checkpoint.encode())
        self._entries = entries
