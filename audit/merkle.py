"""The Merkle tree of RFC 6962: hashes, proofs and their checks (RFC 9162 section 2.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from audit.errors import AuditError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# Hash of the complete subtree over leaves [n * 2**height, + 2**height), by height and n.
Node = Callable[[int, int], bytes]


class ProofFailed(AuditError):
    """An inclusion or consistency proof does not hold."""

    code = "proof-failed"


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 || entry), RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right), RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A Merkle tree that remembers the hash of every complete subtree.

    Guarantees: appending costs amortised one hash, a root or proof O(log n) hashes.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaves: Iterable[bytes] = ()):
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash (32 bytes)."""
        _check_hash(leaf)
        self._levels[0].append(leaf)
        height = 0
        while len(self._levels[height]) % 2 == 0:
            if height + 1 == len(self._levels):
                self._levels.append([])
            left, right = self._levels[height][-2:]
            self._levels[height + 1].append(node_hash(left, right))
            height += 1

    def cut(self, size: int) -> None:
        """Forget all leaves after the first `size`: they were never stored."""
        self._check_size(size)
        for height, level in enumerate(self._levels):
            del level[size >> height :]

    def leaf(self, index: int) -> bytes:
        """Return the hash of leaf `index`."""
        self._check_size(index + 1)
        return self._node(0, index)

    def node(self, height: int, index: int) -> bytes:
        """Return the hash of the complete subtree over leaves [index*2**height, +2**height)."""
        self._check_size((index + 1) << height)
        return self._node(height, index)

    def _node(self, height: int, index: int) -> bytes:
        return self._levels[height][index]

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first `size` leaves (all of them by default)."""
        size = self.size if size is None else size
        self._check_size(size)
        return range_hash(self._node, 0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Return PATH(index, D[size]) of RFC 6962 section 2.1.1."""
        self._check_size(size)
        if not 0 <= index < size:
            raise AuditError(f"no entry {index} in a log of size {size}", code="no-such-entry")
        return path(self._node, index, size)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Return PROOF(old, D[new]) of RFC 6962 section 2.1.2; empty for old 0 or old == new."""
        self._check_size(new)
        if not 0 <= old <= new:
            raise AuditError(f"a log of size {new} cannot extend size {old}", code="bad-sizes")
        if old in (0, new):
            return ()
        proof: list[bytes] = []
        start, end, whole = 0, new, True
        while old != end:
            middle = start + _split(end - start)
            if old <= middle:
                proof.append(range_hash(self._node, middle, end))
                end = middle
            else:
                proof.append(range_hash(self._node, start, middle))
                start, whole = middle, False
        if not whole:
            proof.append(range_hash(self._node, start, end))
        return tuple(reversed(proof))

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise AuditError(
                f"size {size} was asked of a log of {self.size} entries", code="bad-sizes"
            )


def path(node: Node, index: int, size: int) -> tuple[bytes, ...]:
    """Return PATH(index, D[size]) of RFC 6962 section 2.1.1, for 0 <= index < size."""
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(range_hash(node, middle, end))
            end = middle
        else:
            proof.append(range_hash(node, start, middle))
            start = middle
    return tuple(reversed(proof))


def range_hash(node: Node, start: int, end: int) -> bytes:
    """Hash leaves [start, end), where start is a multiple of the next power of two.

    Raises:
        AuditError: there are no leaves.
    """
    peaks: list[bytes] = []
    while start < end:
        height = (end - start).bit_length() - 1
        peaks.append(node(height, start >> height))
        start += 1 << height
    if not peaks:
        raise AuditError("a range of no leaves has no hash", code="bad-sizes")
    value = peaks.pop()
    for peak in reversed(peaks):
        value = node_hash(peak, value)
    return value


def check_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf` stands at `index` of the tree of `size` leaves with this root.

    Silence means that it holds (RFC 9162 section 2.1.3.2).

    Raises:
        ProofFailed: it does not.
    """
    for item in (leaf, root, *proof):
        _check_hash(item)
    if not 0 <= index < size:
        raise ProofFailed(f"no entry {index} can be in a log of size {size}")
    position, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofFailed(f"the inclusion proof of entry {index} is too long")
        if position % 2 == 1 or position == last:
            value = node_hash(sibling, value)
            while position % 2 == 0 and position != 0:
                position, last = position >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or value != root:
        raise ProofFailed(f"entry {index} is not in the log of size {size} with this root")


def check_consistency(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Check that the tree of `new` leaves extends the tree of `old` leaves.

    Silence means that it holds (RFC 9162 section 2.1.4.2).

    Raises:
        ProofFailed: it does not.
    """
    for item in (old_root, new_root, *proof):
        _check_hash(item)
    failed = ProofFailed(f"the log of size {new} does not extend the log of size {old}")
    if not 0 <= old <= new:
        raise failed
    if old in (0, new):
        same = EMPTY_ROOT if old == 0 else new_root
        if proof or old_root != same or (new == 0 and new_root != EMPTY_ROOT):
            raise failed
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise failed
    position, last = old - 1, new - 1
    while position % 2 == 1:
        position, last = position >> 1, last >> 1
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise failed
        if position % 2 == 1 or position == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while position % 2 == 0 and position != 0:
                position, last = position >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or older != old_root or newer != new_root:
        raise failed


def _split(width: int) -> int:
    """Return the largest power of two smaller than `width`."""
    return 1 << ((width - 1).bit_length() - 1)


def _check_hash(value: bytes) -> None:
    if len(value) != HASH_BYTES:
        raise ProofFailed(f"a hash has {len(value)} bytes and not {HASH_BYTES}")
