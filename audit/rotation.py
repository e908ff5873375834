"""A party's keys over time: which were in force for which entries, and how one set follows another.

A `key-rotated` entry is signed by the old event key and carries a note that the old and the new log
key both signed, so neither half of a key pair alone can hand a log over. From the next entry on the
new keys are in force. `key-revoked` says from which size on a key that was rotated away counts for
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit import canonical, note
from audit.errors import BadSignature, Malformed
from audit.events import Event
from audit.keys import KeyRing, PublicKeys


@dataclass(frozen=True, slots=True)
class Segment:
    """Keys in force from entry `first` on, and the time (as in events) when they expire."""

    first: int
    keys: PublicKeys
    expires: str | None = None


def text(origin: str, index: int, keys: PublicKeys) -> str:
    """Return what both log keys sign: the log, the rotation's place in it, and the new keys."""
    digest = canonical.digest(canonical.encode(keys.to_json()))
    return f"{origin}\nkey rotation at entry {index}\n{digest}\n"


def handover(origin: str, index: int, old: KeyRing, new: KeyRing) -> str:
    """Return the note of a rotation, signed by both log keys."""
    stated = text(origin, index, new.public())
    name = f"{old.name}/log"
    lines = tuple(note.sign(stated, name=name, key=keys.log) for keys in (old, new))
    return str(note.Note(stated, lines))


def follow(event: Event, old: PublicKeys) -> Segment:
    """Return the keys that a `key-rotated` event puts in force.

    Raises:
        BadSignature: the old or the new log key did not sign the hand-over.
        Malformed: it hands over something else.
    """
    new = PublicKeys.from_json(event.fields["keys"])
    signed = note.parse(event.fields["note"])
    if new.name != old.name or signed.text != text(event.origin, event.seq, new):
        raise Malformed("a key rotation hands over other keys than it names", code="bad-rotation")
    before = {note.parse_key(key).public for key in (old.log, old.event, old.witness)}
    after = {note.parse_key(key).public for key in (new.log, new.event, new.witness)}
    if before & after:
        raise Malformed("a key rotation keeps an old key", code="bad-rotation")
    for keys in (old, new):
        note.check_signed(signed, note.parse_key(keys.log))
    return Segment(event.seq + 1, new, event.fields.get("keys_expire"))


def in_force(history: Sequence[Segment], size: int) -> PublicKeys:
    """Return the keys that sign a checkpoint over the first `size` entries."""
    return [segment for segment in history if segment.first <= size][-1].keys


def open_note(data: str, history: Sequence[Segment], origin: str) -> note.Checkpoint:
    """Read a checkpoint that must be signed by the log key in force at its size.

    Raises:
        BadSignature: it is signed by nobody known, or by a key that was not in force (code
            `retired-key`).
        Malformed: it is no checkpoint of this log.
    """
    stated = note.parse_checkpoint(note.parse(data))
    key = note.parse_key(in_force(history, stated.size).log)
    try:
        return note.open_checkpoint(data, key=key, origin=origin)
    except BadSignature:
        for segment in history:
            try:
                note.check_signed(note.parse(data), note.parse_key(segment.keys.log))
            except BadSignature:
                continue
            raise BadSignature(
                f"the checkpoint of size {stated.size} is signed by a key of {key.name!r} that "
                "was not in force then",
                code="retired-key",
            ) from None
        raise
