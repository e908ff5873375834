"""Write a log's static files from its journal; they can be made again at any time."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from audit import tiles
from audit.merkle import Tree


def write(db: sqlite3.Connection, tree: Tree, folder: Path, size: int, *, rebuild: bool) -> None:
    """Write the tiles and entry bundles of the first `size` entries.

    Args:
        db: the journal, inside a transaction.
        tree: the log's Merkle tree, of at least `size` leaves.
        folder: the log's folder.
        size: how many entries a checkpoint is about to state.
        rebuild: also compare the files that exist, and replace those that differ.

    Guarantees: every file is durable before the call returns. A partial tile goes only when the
    full one is there, as c2sp.org/tlog-tiles allows.
    """
    for tile in tiles.needed(size):
        path = folder / tile.path
        if path.exists() and not rebuild:
            continue
        if tile.level == tiles.ENTRIES:
            rows = db.execute(
                "SELECT body FROM entries WHERE seq >= ? AND seq < ? ORDER BY seq",
                (tile.start, tile.start + tile.width),
            )
            data = tiles.pack([bytes(row[0]) for row in rows])
        else:
            data = tiles.hashes(tile, tree)
        if not path.exists() or path.read_bytes() != data:
            tiles.write(path, data)
        if tile.width == tiles.WIDTH:
            shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)
