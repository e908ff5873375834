"""Where a time-stamp's checkpoint comes from, and where the token goes: a log, or a bundle."""

from __future__ import annotations

from pathlib import Path

from audit import bundle as bundles
from audit import keys, note, tiles
from audit.log import Log


def newest(place: Path, *, bundled: bool) -> tuple[int, bytes]:
    """Return size and bytes of the newest checkpoint: of a party's log, or of a bundle's hub.

    Raises:
        AuditError: there is neither log nor bundle.
    """
    if bundled:
        bundles.read(place)
        name = f"{bundles.COORDINATOR}/{bundles.CHECKPOINT}"
        data = bundles.load(place, name, most=note.MAX_NOTE_BYTES)
    else:
        opened = Log.open(place / "log", keys=keys.load(place / "keys"))
        try:
            data = opened.checkpoint().encode()
        finally:
            opened.close()
    return note.parse_checkpoint(note.parse(data)).size, data


def keep(place: Path, size: int, checkpoint: bytes, token: bytes, *, bundled: bool) -> Path:
    """Keep a token beside the checkpoint that it stamps; return where it lies."""
    if bundled:
        inside = f"{bundles.STAMPS}/{bundles.read(place).coordinator.keys.name}/{size}"
        bundles.add(place, {f"{inside}.checkpoint": checkpoint, f"{inside}.tsr": token})
        return place / f"{inside}.tsr"
    beside = place / "log" / bundles.STAMPS / str(size)
    tiles.write(beside.with_suffix(".checkpoint"), checkpoint)
    tiles.write(beside.with_suffix(".tsr"), token)
    return beside.with_suffix(".tsr")
