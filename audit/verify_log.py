"""Read one log of a bundle: checkpoint, tiles, entries; name every entry that is damaged."""

from __future__ import annotations

from collections.abc import Sequence

from audit import bundle as bundles
from audit import dsse, events, merkle, note, tiles
from audit.bundle import Bundle, Source
from audit.errors import AuditError
from audit.evidence import Collector, LogView
from audit.keys import PublicKeys


def read(
    bundle: Bundle,
    where: str,
    source: Source,
    witnesses: Sequence[note.VerifierKey],
    found: Collector,
) -> LogView | None:
    """Read and check one log; None if it has no readable checkpoint."""
    name = f"{where}/{bundles.CHECKPOINT}"
    try:
        data = bundles.load(bundle.path, name, most=note.MAX_NOTE_BYTES)
        stated = note.open_checkpoint(data, key=note.parse_key(source.keys.log), origin=None)
        if not 0 < -(-stated.size // tiles.WIDTH) <= len(bundle.files):
            raise AuditError(
                f"the checkpoint states {stated.size} entries, for which the bundle has no files",
                code="absurd-size",
            )
    except AuditError as error:
        found.add("bytes", error.code, name, str(error))
        return None
    entries = _read_tiles(bundle, where, stated.size, tiles.ENTRIES, found)
    stored = _read_tiles(bundle, where, stated.size, "0", found)
    tree = _check_root(where, stated, entries, stored, found)
    _check_upper(bundle, where, stated.size, tree, found)
    event_key = note.parse_key(source.keys.event).public
    checked = [
        _read_entry(index, entry, event_key, source.keys, stated.origin, where, found)
        for index, entry in enumerate(entries)
        if entry is not None
    ]
    log = LogView(
        keys=source.keys,
        where=where,
        checkpoint=stated,
        tree=tree,
        events=tuple(event for event in checked if event is not None),
        cosigned_by=_witnesses(note.parse(data), source, witnesses, name, found),
    )
    _check_first(log, found)
    return log


def _read_tiles(
    bundle: Bundle, where: str, size: int, level: str, found: Collector
) -> list[bytes | None]:
    """Read the entries, or the leaf hashes, of a log; None stands for what cannot be read."""
    items: list[bytes | None] = []
    for tile in tiles.needed(size):
        if tile.level != level:
            continue
        name = f"{where}/{tile.path}"
        try:
            data = bundles.load(bundle.path, name, most=bundles.MAX_TILE_BYTES)
            read = tiles.unpack if level == tiles.ENTRIES else tiles.split
            items += read(data, tile.width)
        except AuditError as error:
            last = tile.start + tile.width - 1
            items += [None] * tile.width
            found.add("bytes", error.code, f"{name} (entries {tile.start} to {last})", str(error))
    return items


def _check_root(
    where: str,
    stated: note.Checkpoint,
    entries: Sequence[bytes | None],
    stored: Sequence[bytes | None],
    found: Collector,
) -> merkle.Tree:
    """Recompute the root from the entries; if it differs, find out which entries do not fit."""
    missing = bytes(merkle.HASH_BYTES)
    leaves = [missing if entry is None else merkle.leaf_hash(entry) for entry in entries]
    tree = merkle.Tree(leaves)
    holds = tree.root() == stated.root
    if not holds and None not in entries:
        found.add(
            "bytes", "wrong-root", where, "the entries do not have the root that the log signed"
        )
    for index, (leaf, kept) in enumerate(zip(leaves, stored, strict=True)):
        if kept is not None and entries[index] is not None and leaf != kept:
            code = "damaged-tile" if holds else "damaged-entry"
            found.add("bytes", code, f"{where} entry {index}", "entry and hash tile do not match")
    return tree


def _check_upper(
    bundle: Bundle, where: str, size: int, tree: merkle.Tree, found: Collector
) -> None:
    """Compare the hash tiles above the leaves with the recomputed ones."""
    for tile in tiles.needed(size):
        if tile.level in (tiles.ENTRIES, "0"):
            continue
        name = f"{where}/{tile.path}"
        try:
            data = bundles.load(bundle.path, name, most=bundles.MAX_TILE_BYTES)
        except AuditError as error:
            found.add("bytes", error.code, name, str(error))
            continue
        if data != tiles.hashes(tile, tree):
            found.add("bytes", "damaged-tile", name, "the hash tile is not that of the entries")


def _read_entry(
    index: int,
    entry: bytes,
    event_key: bytes,
    keys: PublicKeys,
    origin: str,
    where: str,
    found: Collector,
) -> events.Event | None:
    """Check one entry's signature and form, and that it is of this party and this log."""
    place = f"{where} entry {index}"
    try:
        envelope = dsse.parse(entry)
        dsse.check(envelope, event_key)
        event = events.read(envelope.statement)
        if event.emitter != keys.name or event.origin != origin:
            raise AuditError("the event is of another party or another log", code="foreign-event")
    except AuditError as error:
        found.add("bytes", error.code, place, str(error))
        return None
    return event


def _check_first(log: LogView, found: Collector) -> None:
    """Check that the log begins by naming itself and its keys, and does so once."""
    first = log.events[0] if log.events else None
    if (
        first is None
        or first.kind != "log-started"
        or first.fields["origin"] != log.checkpoint.origin
        or first.fields["keys"] != log.keys.to_json()
    ):
        found.add(
            "bytes",
            "wrong-start",
            log.place(0),
            "the log does not begin with a log-started event of this origin and these keys",
        )
    for index, _ in log.of("log-started"):
        if index:
            found.add("bytes", "wrong-start", log.place(index), "the log starts a second time")


def _witnesses(
    signed: note.Note,
    source: Source,
    witnesses: Sequence[note.VerifierKey],
    where: str,
    found: Collector,
) -> tuple[str, ...]:
    """Return who cosigned; a line that names a known witness and does not verify is a fault."""
    names = []
    for key in witnesses:
        if str(key) == source.keys.witness:
            continue  # nobody is a witness of himself
        try:
            note.check_signed(signed, key)
        except AuditError as error:
            if error.code != "not-signed":
                found.add("bytes", "bad-cosignature", where, str(error))
            continue
        names.append(key.name.removesuffix("/witness"))
    return tuple(sorted(names))
