"""A Merkle tree that keeps one hash for each 256 leaves, for logs of any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from audit.errors import LogDamaged
from audit.merkle import Tree, node_hash

WIDTH = 256
_HEIGHT = 8


class BlockTree(Tree):
    """As `Tree`, but leaves of full blocks of 256 are fetched again when a proof needs them.

    Guarantees: a quarter of a byte of memory for each leaf; leaves that are fetched again are
    checked against what was hashed first, so a file that changes in between is noticed.
    """

    __slots__ = ("_fetch", "_full", "_last", "_tail")

    def __init__(self, fetch: Callable[[int], Sequence[bytes]]):
        """Make an empty tree.

        Args:
            fetch: returns the 256 leaf hashes of one full block.
        """
        super().__init__()
        self._fetch = fetch
        self._full = Tree()  # its leaves are the roots of the full blocks
        self._tail = Tree()
        self._last: tuple[int, Tree] | None = None

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._full.size * WIDTH + self._tail.size

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash (32 bytes)."""
        self._tail.append(leaf)
        if self._tail.size == WIDTH:
            self._full.append(self._tail.root())
            self._tail = Tree()

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaf hashes; a whole block at once where that fits."""
        if self._tail.size or len(leaves) != WIDTH:
            for leaf in leaves:
                self.append(leaf)
            return
        level = list(leaves)
        while len(level) > 1:
            level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
        self._full.append(level[0])

    def _node(self, height: int, index: int) -> bytes:
        start = index << height
        base = self._full.size * WIDTH
        if start >= base:
            return self._tail.node(height, (start - base) >> height)
        if height >= _HEIGHT:
            return self._full.node(height - _HEIGHT, index)
        return self._block(start // WIDTH).node(height, (start % WIDTH) >> height)

    def _block(self, index: int) -> Tree:
        if self._last is None or self._last[0] != index:
            block = Tree(self._fetch(index))
            if block.size != WIDTH or block.root() != self._full.leaf(index):
                raise LogDamaged("a log changed while it was read; read it again")
            self._last = (index, block)
        return self._last[1]
