"""Subkeys, the commitments to them, and the chips that a subkey determines.

A subkey has two halves: one marks the modules of even layers, the other those of odd layers. A
commitment can be opened for one half alone, because whoever knows a half can subtract its mark.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audit import canonical
from audit.errors import AuditError

Float32 = npt.NDArray[np.float32]

KEY_BYTES = 32
OWNER = ""  # the name under which the mark common to all copies is derived
TABLE_DIGEST = "sha256:44dbd9420ea7d2cad80cb77e1cd7d22f925a70dd26a6b733ac3e1f1b532af36d"
HALVES = (0, 1)
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class Opening:
    """One half of a committed subkey, with what shows that it was committed to.

    Attributes:
        half: 0 for the modules of even layers, 1 for those of odd ones.
        key: the half's 32 bytes.
        nonce: the half's nonce.
        other: digest of the half that stays closed.
    """

    half: int
    key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    other: str

    @property
    def commitment(self) -> str:
        """The commitment that this opens."""
        mine = _closed(self.key, self.nonce)
        return _join((mine, self.other) if self.half == 0 else (self.other, mine))


def derive(
    master: bytes, *, origin: str, size: int, root: str, release: str, recipient: str
) -> bytes:
    """Derive the 32-byte subkey of one recipient (or `OWNER`) of one release.

    HMAC-SHA-256 under the master key over the newest signed tree head (origin, size and root, RFC
    6962) of the coordinator's log. That head fixes the key in time: it cannot have been chosen to
    fit a model that was published before it.

    Raises:
        AuditError: the master key has fewer than 32 bytes, or a part of the context is empty.
    """
    if len(master) < KEY_BYTES:
        raise AuditError(
            f"the watermark master key has {len(master)} bytes; make one of at least {KEY_BYTES}",
            code="weak-key",
            exit_code=2,
        )
    if not (origin and root and release):
        raise AuditError(
            "a watermark subkey needs a tree head and a release id; give both",
            code="no-context",
            exit_code=2,
        )
    parts = ("privity-watermark-v2", origin, str(size), root, release, recipient)
    encoded = [text.encode() for text in parts]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
    return hmac.digest(master, message, "sha256")


def halves(subkey: bytes) -> dict[int, bytes]:
    """Both halves of a subkey.

    Raises:
        AuditError: the subkey is not 32 bytes long.
    """
    if len(subkey) != KEY_BYTES:
        raise AuditError(
            f"a watermark subkey has {KEY_BYTES} bytes; this one has {len(subkey)}",
            code="bad-key",
            exit_code=2,
        )
    return {half: hmac.digest(subkey, b"half-%d" % half, "sha256") for half in HALVES}


def commitment(subkey: bytes, nonce: bytes) -> str:
    """Return the `"sha256:<hex>"` over the digests of both halves, to be logged beforehand.

    Raises:
        AuditError: a part is not 32 bytes long.
    """
    return opening(subkey, nonce, 0).commitment


def opening(subkey: bytes, nonce: bytes, half: int) -> Opening:
    """Open one half of a commitment and leave the other closed.

    Raises:
        AuditError: a part is not 32 bytes long.
    """
    keys, nonces = halves(subkey), halves(nonce)
    rest = 1 - half
    return Opening(half, keys[half], nonces[half], _closed(keys[rest], nonces[rest]))


def half_of(module: str) -> int:
    """Which half marks a module: by its layer's number; modules outside of layers are even.

    >>> half_of("model.layers.3.mlp.up_proj"), half_of("model.layers.12.self_attn.v_proj")
    (1, 0)
    """
    found = _NUMBER.search(module)
    return int(found.group(1)) % 2 if found else 0


def draw(keys: Mapping[int, bytes], module: str, shape: tuple[int, ...]) -> Float32 | None:
    """Standard normal chips of one key in one module; None if the module's half is not given.

    SHAKE-256 -> uint16 little endian -> the shipped table of the conditional means of 65,536
    equally likely parts of a normal: their moment generating function is at most exp(t²/2).
    """
    key = keys.get(half_of(module))
    if key is None:
        return None
    count = int(np.prod(shape))
    stream = hashlib.shake_256(b"privity-chips-v2|" + key + module.encode()).digest(2 * count)
    drawn: Float32 = _table().take(np.frombuffer(stream, dtype="<u2"), mode="clip")
    return drawn.reshape(shape)


def table_digest() -> str:
    """Digest of the chip table as installed.

    Raises:
        AuditError: the installed table is not the one that this code was written for.
    """
    _table()
    return TABLE_DIGEST


def _closed(key: bytes, nonce: bytes) -> str:
    return canonical.digest(b"privity-half|" + key + nonce)


def _join(digests: tuple[str, str]) -> str:
    return canonical.digest("|".join(("privity-subkey", *digests)).encode())


@functools.cache
def _table() -> Float32:
    data = importlib.resources.files("audit").joinpath("chips.f32").read_bytes()
    if canonical.digest(data) != TABLE_DIGEST:
        raise AuditError(
            "audit/chips.f32 is not the table that this version ships; install privity again",
            code="bad-table",
        )
    return np.frombuffer(data, dtype="<f4")
