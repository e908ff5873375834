"""Read one log of a bundle: checkpoint, tiles, entries; name every entry that is damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from audit import bundle as bundles
from audit import dsse, events, merkle, note, tiles
from audit.blocks import BlockTree
from audit.bundle import Bundle, Source
from audit.errors import AuditError, LogDamaged
from audit.evidence import Collector, Events, LogView
from audit.reading import EACH, Reader, first_keys
from audit.tiles import Tile

T = TypeVar("T")
_LAST_SECOND = 253402300799  # of the year 9999
_MISSING = bytes(merkle.HASH_BYTES)


def read(
    bundle: Bundle,
    where: str,
    source: Source,
    witnesses: Sequence[note.VerifierKey],
    found: Collector,
    *,
    every: bool = False,
) -> LogView | None:
    """Read and check one log; None if it has no readable checkpoint.

    Args:
        bundle: the bundle.
        where: the log's folder in it.
        source: the log's files and the keys in force at its end, as the bundle states them.
        witnesses: the witness keys of all parties.
        found: takes the faults.
        every: check each entry's own signature, however long the log is.
    """
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
    files = _Files(bundle, where, stated.size)
    tree = BlockTree(files.leaves)
    reader, differing = _read_entries(files, tree, source, stated.origin, found, every=every)
    _check_root(files, stated, tree, differing, found)
    _check_upper(bundle, where, stated.size, tree, found)
    for wrong in reader.bytes_:
        found.add("bytes", wrong.code, f"{where} entry {wrong.index}", wrong.sentence)
    log = LogView(
        keys=source.keys,
        where=where,
        checkpoint=stated,
        tree=tree,
        events=Events(reader.kinds, reader.kept, lambda index: files.event(index, tree)),
        cosigned_by=(),
        history=tuple(reader.history),
        revoked=tuple(reader.revoked),
        chain=tuple(reader.chain),
        clock=tuple(reader.clock),
        chained=reader.chained,
    )
    _check_first(log, reader, found)
    return replace(log, cosigned_by=witnesses_of(bundle, log, witnesses, found))


class _Files:
    """The tiles of one log in a bundle."""

    def __init__(self, bundle: Bundle, where: str, size: int) -> None:
        self.where = where
        self.size = size
        self.broken = False  # whether a bundle of entries cannot be read
        self._held: tuple[int, list[bytes]] | None = None  # the last block that was read again
        self._root = bundle.path

    def tile(self, level: str, index: int) -> Tile:
        return Tile(level, index, min(tiles.WIDTH, self.size - index * tiles.WIDTH))

    def name(self, tile: Tile) -> str:
        return f"{self.where}/{tile.path}"

    def entries(self, tile: Tile) -> list[bytes]:
        data = bundles.load(self._root, self.name(tile), most=bundles.MAX_TILE_BYTES)
        return tiles.unpack(data, tile.width)

    def stored(self, tile: Tile) -> bytes:
        data = bundles.load(self._root, self.name(tile), most=bundles.MAX_TILE_BYTES)
        return b"".join(tiles.split(data, tile.width))

    def leaves(self, block: int) -> list[bytes]:
        return [merkle.leaf_hash(entry) for entry in self.entries(self.tile(tiles.ENTRIES, block))]

    def event(self, index: int, tree: merkle.Tree) -> events.Event:
        """Read one event again; what is not what was hashed first is refused."""
        block = index // tiles.WIDTH
        if self._held is None or self._held[0] != block:
            self._held = block, self.entries(self.tile(tiles.ENTRIES, block))
        entry = self._held[1][index % tiles.WIDTH]
        if merkle.leaf_hash(entry) != tree.leaf(index):
            raise LogDamaged(f"{self.where} changed while it was read; read it again")
        return events.read(dsse.parse(entry).statement)


def _read_entries(
    files: _Files,
    tree: BlockTree,
    source: Source,
    origin: str,
    found: Collector,
    *,
    every: bool,
) -> tuple[Reader, list[int]]:
    """Read all entries into the tree; also return where entry and hash tile differ."""
    reader: Reader | None = None
    differing: list[int] = []
    for block in range(-(-files.size // tiles.WIDTH)):
        tile, hashes = files.tile(tiles.ENTRIES, block), files.tile("0", block)
        entries = _load(files, tile, files.entries, found)
        stored = _load(files, hashes, files.stored, found)
        if reader is None:
            first = first_keys(entries[0]) if entries else None
            each = every or files.size <= EACH
            keys = source.keys if first is None or first.name != source.keys.name else first
            reader = Reader(origin, keys, each)
        if entries is None:
            files.broken = True
            reader.skip(tile.width)
            tree.extend([_MISSING] * tile.width)
            continue
        leaves = reader.read(entries)
        tree.extend(leaves)
        if stored is not None and b"".join(leaves) != stored:
            differing += [
                tile.start + place
                for place, leaf in enumerate(leaves)
                if leaf != stored[place * merkle.HASH_BYTES : (place + 1) * merkle.HASH_BYTES]
            ]
    assert reader is not None  # noqa: S101 - a checkpoint of no entries was refused
    reader.finish()
    return reader, differing


def _load(files: _Files, tile: Tile, read: Callable[[Tile], T], found: Collector) -> T | None:
    try:
        return read(tile)
    except AuditError as error:
        last = tile.start + tile.width - 1
        place = f"{files.name(tile)} (entries {tile.start} to {last})"
        found.add("bytes", error.code, place, str(error))
        return None


def _check_root(
    files: _Files,
    stated: note.Checkpoint,
    tree: merkle.Tree,
    differing: Sequence[int],
    found: Collector,
) -> None:
    """Compare the root with the signed one; if it differs, say which entries do not fit."""
    holds = tree.root() == stated.root
    if not holds and not files.broken:
        text = "the entries do not have the root that the log signed"
        found.add("bytes", "wrong-root", files.where, text)
    for index in differing:
        code = "damaged-tile" if holds else "damaged-entry"
        place = f"{files.where} entry {index}"
        found.add("bytes", code, place, "entry and hash tile do not match")


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


def _check_first(log: LogView, reader: Reader, found: Collector) -> None:
    """Check that the log names itself and its keys first and once, and ends with these keys."""
    starts = dict(log.events.of("log-started"))
    first = starts.pop(0, None)
    if (
        first is None
        or first.fields["origin"] != log.checkpoint.origin
        or first.fields["keys"] != log.history[0].keys.to_json()
    ):
        found.add(
            "bytes",
            "wrong-start",
            log.place(0),
            "the log does not begin with a log-started event of this origin and these keys",
        )
    for index in starts:
        found.add("bytes", "wrong-start", log.place(index), "the log starts in its middle")
    if reader.keys != log.keys:
        text = "the keys that the bundle states are not those in force at the log's end"
        found.add("bytes", "wrong-keys", f"{log.where}/{bundles.CHECKPOINT}", text)


def witnesses_of(
    bundle: Bundle, log: LogView, witnesses: Sequence[note.VerifierKey], found: Collector
) -> tuple[str, ...]:
    """Return who cosigned; a line that names a known witness and does not verify is a fault.

    A witness's time is a clock that is not the log's own: after the log key had expired it counts
    as a fault too.
    """
    where = f"{log.where}/{bundles.CHECKPOINT}"
    signed = note.parse(bundles.load(bundle.path, where, most=note.MAX_NOTE_BYTES))
    names = set()
    expires = log.history[-1].expires
    own = {keys.witness for keys in log.everyone()}
    for key in witnesses:
        if str(key) in own:
            continue  # nobody is a witness of himself
        try:
            time = note.check_signed(signed, key)
        except AuditError as error:
            if error.code != "not-signed":
                found.add("bytes", "bad-cosignature", where, str(error))
            continue
        name = key.name.removesuffix("/witness")
        names.add(name)
        seen = events.timestamp(datetime.fromtimestamp(min(time or 0, _LAST_SECOND), UTC))
        if expires is not None and not seen <= expires:
            text = f"{name} saw this checkpoint after its key had expired at {expires}"
            found.add("bytes", "expired-key", where, text)
    return tuple(sorted(names))
