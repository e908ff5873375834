"""Read a bundle's logs entry by entry, without holding them: for the report, the index, exports.

Nothing here judges; `audit.verify` does. What cannot be read is left out here and a fault there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from audit import bundle as bundles
from audit import dsse, events, merkle, note, tiles
from audit.bundle import Bundle, Source
from audit.entries import Entry, Proven
from audit.errors import AuditError
from audit.receipt import Receipt

_TILE_HEIGHT = 8  # a hash tile holds 2**8 hashes


@dataclass(frozen=True, slots=True)
class Record:
    """One entry as it stands in its log: the entry and its leaf hash (32 bytes)."""

    entry: Entry
    leaf: bytes

    @property
    def place(self) -> str:
        """`NAME:INDEX`, as `privity audit show --entry` takes it."""
        return f"{self.entry.name}:{self.entry.index}"


@dataclass(frozen=True, slots=True)
class Exact:
    """One entry with everything that a receipt needs.

    `envelope` is the entry's bytes and `checkpoint` the log's signed note with all cosignatures.
    """

    proven: Proven
    envelope: bytes
    checkpoint: str

    @property
    def receipt(self) -> str:
        """The text of a c2sp.org/tlog-proof@v1 file about this entry."""
        return str(Receipt(self.proven.index, tuple(self.proven.proof), self.checkpoint))


def logs(bundle: Bundle) -> Mapping[str, tuple[str, Source]]:
    """Every log by its party's name, the coordinator's first: (folder in the bundle, source)."""
    found = {bundle.coordinator.keys.name: (bundles.COORDINATOR, bundle.coordinator)}
    for name, source in bundle.sites.items():
        found.setdefault(name, (f"{bundles.SITES}/{name}", source))
    return found


def stated(bundle: Bundle, where: str, source: Source) -> tuple[note.Checkpoint, str]:
    """Return a log's signed checkpoint and the note that says it.

    Raises:
        AuditError: it cannot be read, or its log did not sign it.
    """
    name = f"{where}/{bundles.CHECKPOINT}"
    data = bundles.load(bundle.path, name, most=note.MAX_NOTE_BYTES)
    return note.open_checkpoint(
        data, key=note.parse_key(source.keys.log), origin=None
    ), data.decode()


def records(bundle: Bundle, name: str) -> Iterator[Record]:
    """Yield what can be read of one log, in order; holds one tile of 256 entries at a time."""
    where, source = logs(bundle)[name]
    try:
        size = stated(bundle, where, source)[0].size
    except AuditError:
        return
    for tile in tiles.needed(size):
        if tile.level != tiles.ENTRIES or len(bundle.files) * tiles.WIDTH < tile.start:
            break  # the entries come first
        try:
            path = f"{where}/{tile.path}"
            data = bundles.load(bundle.path, path, most=bundles.MAX_TILE_BYTES)
            bodies = tiles.unpack(data, tile.width)
        except AuditError:
            continue
        for index, body in enumerate(bodies, start=tile.start):
            try:
                event = events.read(dsse.parse(body).statement)
            except AuditError:
                continue
            yield Record(Entry(name, index, event), merkle.leaf_hash(body))


def merged(bundle: Bundle) -> Iterator[Record]:
    """Yield the entries of all logs by time; each log keeps its own order."""
    return heapq.merge(
        *(records(bundle, name) for name in logs(bundle)), key=lambda item: item.entry.event.time
    )


def prove(bundle: Bundle, name: str, index: int) -> Exact:
    """Read one entry and check its signature and its place under the signed root.

    Reads one entry bundle and at most a few hash tiles, however long the log is.

    Raises:
        AuditError: no such log or entry (exit code 2), or the entry is not what was signed.
    """
    known = logs(bundle)
    if name not in known:
        raise AuditError(
            f"no log of that name; the bundle has {', '.join(known)}", code="no-log", exit_code=2
        )
    where, source = known[name]
    checkpoint, text = stated(bundle, where, source)
    size = checkpoint.size
    if not 0 <= index < size:
        raise AuditError(
            f"the log of {name} has no entry {index}; its entries are 0 to {size - 1}",
            code="no-such-entry",
            exit_code=2,
        )
    tile = _tile(tiles.ENTRIES, index, size)
    data = bundles.load(bundle.path, f"{where}/{tile.path}", most=bundles.MAX_TILE_BYTES)
    body = tiles.unpack(data, tile.width)[index - tile.start]
    leaf = merkle.leaf_hash(body)
    proof = _Stored(bundle, where, size).inclusion(index)
    merkle.check_inclusion(leaf, index, size, proof, checkpoint.root)
    envelope = dsse.parse(body)
    dsse.check(envelope, note.parse_key(source.keys.event).public)
    proven = Proven(name, index, envelope.statement, leaf, size, checkpoint.root, proof)
    return Exact(proven, body, text)


def root(bundle: Bundle, name: str, size: int) -> bytes:
    """Return the root over the first `size` entries of a log, from its stored hash tiles.

    Raises:
        AuditError: the log is not that long, or a tile cannot be read.
    """
    where, source = logs(bundle)[name]
    now = stated(bundle, where, source)[0].size
    if not 0 < size <= now:
        raise AuditError(f"the log of {name} has {now} entries and not {size}", code="bad-sizes")
    return _Stored(bundle, where, now).root(size)


def _tile(level: str, index: int, count: int) -> tiles.Tile:
    """The tile that holds item `index` of a level with `count` items."""
    number = index // tiles.WIDTH
    return tiles.Tile(level, number, min(tiles.WIDTH, count - number * tiles.WIDTH))


class _Stored:
    """A log's Merkle tree as its hash tiles have it; every answer is checked by who asks."""

    def __init__(self, bundle: Bundle, where: str, size: int) -> None:
        self._bundle = bundle
        self._where = where
        self._size = size
        self._read: dict[tiles.Tile, list[bytes]] = {}

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Return PATH(index, D[size]) of RFC 6962 section 2.1.1."""
        return merkle.path(self._node, index, self._size)

    def root(self, size: int) -> bytes:
        """Return the root over the first `size` leaves."""
        return merkle.range_hash(self._node, 0, size)

    def _node(self, height: int, index: int) -> bytes:
        """Hash of the complete subtree over leaves [index * 2**height, + 2**height)."""
        level, above = divmod(height, _TILE_HEIGHT)
        first, count = index << above, 1 << above
        tile = _tile(str(level), first, self._size >> (_TILE_HEIGHT * level))
        if tile not in self._read:
            path = f"{self._where}/{tile.path}"
            data = bundles.load(self._bundle.path, path, most=bundles.MAX_TILE_BYTES)
            self._read[tile] = tiles.split(data, tile.width)
        row = self._read[tile][first - tile.start : first - tile.start + count]
        while len(row) > 1:
            row = [merkle.node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
        return row[0]
