"""Receipts: one entry's proof in a file of its own. c2sp.org/tlog-proof, ending `.tlog-proof`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from audit import merkle, note
from audit.canonical import from_base64, to_base64
from audit.errors import Malformed
from audit.policy import Policy

HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_MOST_PROOF = 63


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry's index, its inclusion proof and the signed checkpoint that the proof leads to."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    def __str__(self) -> str:
        extra = [] if self.extra is None else [f"extra {to_base64(self.extra)}"]
        lines = [HEADER, *extra, f"index {self.index}", *map(to_base64, self.proof), "", ""]
        return "\n".join(lines) + self.checkpoint

    def check(self, entry: bytes, policy: Policy) -> note.Checkpoint:
        """Check that an entry is in a log that the policy trusts.

        Raises:
            BadSignature: the checkpoint is not signed and witnessed as the policy asks.
            ProofFailed: the entry is not at that index under it.
        """
        stated = policy.check(self.checkpoint)
        leaf = merkle.leaf_hash(entry)
        merkle.check_inclusion(leaf, self.index, stated.size, self.proof, stated.root)
        return stated


def parse(data: bytes) -> Receipt:
    """Read a receipt; nothing in it is trusted yet.

    Guarantees: `str(parse(x)).encode() == x`.

    Raises:
        Malformed: it is not one.
    """
    failed = Malformed("a receipt is not a transparency log proof", code="bad-receipt")
    if len(data) > note.MAX_NOTE_BYTES:
        raise failed
    try:
        head, blank, checkpoint = data.decode("utf-8").partition("\n\n")
    except UnicodeError:
        raise failed from None
    first, *lines = head.split("\n")
    if first != HEADER or not blank or not lines:
        raise failed
    extra = None
    if lines[0].startswith("extra "):
        extra = from_base64(lines.pop(0).removeprefix("extra "), where="a receipt's extra data")
    index = _INDEX.fullmatch(lines[0]) if lines else None
    if index is None or not len(lines) - 1 <= _MOST_PROOF:
        raise failed
    proof = tuple(from_base64(line, where="a receipt's proof") for line in lines[1:])
    if any(len(item) != merkle.HASH_BYTES for item in proof):
        raise failed
    note.parse_checkpoint(note.parse(checkpoint))
    return Receipt(int(index[1]), proof, checkpoint, extra)
