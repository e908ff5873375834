"""The static files of a log, laid out as c2sp.org/tlog-tiles says.

`tile/<level>/<index>[.p/<width>]` holds hashes and `tile/entries/<index>[.p/<width>]` entries, each
preceded by its length in two bytes. Any web server or memory stick will do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.errors import AuditError, Malformed
from audit.merkle import HASH_BYTES, Tree

WIDTH = 256
MAX_ENTRY_BYTES = 65535
ENTRIES = "entries"


@dataclass(frozen=True, slots=True)
class Tile:
    """The place of one file: its level (`entries` or a number), index and width (1 to 256)."""

    level: str
    index: int
    width: int

    @property
    def path(self) -> str:
        """The path below the log's folder."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{'/'.join(groups)}{partial}"

    @property
    def start(self) -> int:
        """Index of the first entry (or hash, within its level)."""
        return self.index * WIDTH


def needed(size: int) -> Iterator[Tile]:
    """Yield every tile and entry bundle of a tree of `size` entries."""
    for index in range(-(-size // WIDTH)):
        width = min(WIDTH, size - index * WIDTH)
        yield Tile(ENTRIES, index, width)
    level, count = 0, size
    while count:
        for index in range(-(-count // WIDTH)):
            yield Tile(str(level), index, min(WIDTH, count - index * WIDTH))
        level, count = level + 1, count // WIDTH


def hashes(tile: Tile, tree: Tree) -> bytes:
    """Return the bytes of one hash tile."""
    height = 8 * int(tile.level)
    return b"".join(tree.node(height, tile.start + i) for i in range(tile.width))


def pack(entries: Sequence[bytes]) -> bytes:
    """Return an entry bundle.

    Raises:
        AuditError: an entry is over 65,535 bytes.
    """
    for entry in entries:
        check_entry(entry)
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def check_entry(entry: bytes) -> None:
    """Check that an entry fits an entry bundle.

    Raises:
        AuditError: it does not.
    """
    if not len(entry) <= MAX_ENTRY_BYTES:
        raise AuditError(
            f"an event of {len(entry)} bytes is over the {MAX_ENTRY_BYTES} bytes that a log entry "
            "may have; log a digest of its largest field",
            code="entry-too-large",
        )


def unpack(data: bytes, width: int) -> list[bytes]:
    """Read an entry bundle of `width` entries.

    Raises:
        Malformed: the bundle does not hold exactly that many; `entries` readable before the fault
            are lost on purpose, since lengths after a damaged one mean nothing. An entry that the
            bundle cuts off ends beyond it, so the end tells.
    """
    entries, offset = [], 0
    for _ in range(width):
        length = int.from_bytes(data[offset : offset + 2], "big")
        entries.append(data[offset + 2 : offset + 2 + length])
        offset += 2 + length
    if offset != len(data):
        raise Malformed(f"an entry bundle does not end after {width} entries", code="bad-tile")
    return entries


def split(data: bytes, width: int) -> list[bytes]:
    """Read a hash tile of `width` hashes.

    Raises:
        Malformed: it does not hold exactly that many.
    """
    if len(data) != width * HASH_BYTES:
        raise Malformed(f"a hash tile does not hold {width} hashes", code="bad-tile")
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def write(path: Path, data: bytes) -> None:
    """Write a file wholly or not at all; it is durable before the call returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
