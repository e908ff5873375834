"""Frames between the runner and the trainer: one line's worth of JSON, and float arrays.

The reader bounds both before it reads them, and knows no other content: no code, no objects.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from client.errors import ClientError

HEAD_BYTES = 1 << 20
_LENGTHS = struct.Struct(">IQ")
_PART_BYTES = 1 << 20
_KEYED = "hmac-sha256:"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message over the pipe: `kind`, plain values, and arrays."""

    kind: str
    facts: Mapping[str, Any] = field(repr=False, default_factory=dict)
    arrays: Mapping[str, Any] = field(repr=False, default_factory=dict)


def joined(**parts: Mapping[str, Any]) -> dict[str, Any]:
    """Several tables of arrays as one: each array under "<part>/<name>"; `part` takes them out."""
    return {
        f"{title}/{name}": array for title, table in parts.items() for name, array in table.items()
    }


def part(arrays: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The arrays of one part of what `joined` put together."""
    start = f"{title}/"
    return {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}


def numbers(digests: Sequence[str]) -> npt.NDArray[np.float32]:
    """Keyed digests as an array of their bytes, shape (count, 32)."""
    packed = b"".join(bytes.fromhex(digest.removeprefix(_KEYED)) for digest in digests)
    return np.frombuffer(packed, np.uint8).astype(np.float32).reshape(len(digests), 32)


def digests(array: Any) -> tuple[str, ...]:
    """The keyed digests in an array of `numbers`.

    Raises:
        ClientError: it is none.
    """
    if array.ndim != 2 or array.shape[1] != 32 or array.dtype != np.float32:
        raise strange()
    if not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise strange()
    return tuple(_KEYED + bytes(row.astype(np.uint8)).hex() for row in array)


def send(pipe: socket.socket, frame: Frame) -> None:
    """Write one frame.

    Raises:
        ClientError: the other side is gone.
    """
    head = json.dumps({"kind": frame.kind, "facts": dict(frame.facts)}).encode()
    body = save_arrays(dict(frame.arrays)) if frame.arrays else b""
    try:
        pipe.sendall(_LENGTHS.pack(len(head), len(body)) + head)
        pipe.sendall(body)
    except OSError:
        raise _gone() from None


def receive(pipe: socket.socket, *, most_bytes: int = 0) -> Frame:
    """Read one frame whose arrays take at most `most_bytes`.

    Raises:
        ClientError: the other side is gone, or what it wrote is no frame or too large.
    """
    head_bytes, body_bytes = _LENGTHS.unpack(_read(pipe, _LENGTHS.size))
    if not head_bytes <= HEAD_BYTES or not body_bytes <= most_bytes:
        raise strange()
    head, body = _read(pipe, head_bytes), _read(pipe, body_bytes)
    try:
        values = json.loads(head)
        kind, facts = values["kind"], values["facts"]
        arrays = load_arrays(body) if body else {}
    except Exception:  # whatever a parser of foreign bytes may raise
        raise strange() from None
    if type(kind) is not str or type(facts) is not dict or values.keys() != {"kind", "facts"}:
        raise strange()
    return Frame(kind, facts, arrays)


def _read(pipe: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        try:
            part = pipe.recv(min(_PART_BYTES, length - len(parts)))
        except OSError:
            raise _gone() from None
        if not part:
            raise _gone()
        parts += part
    return bytes(parts)


def _gone() -> ClientError:
    return ClientError(
        "the trainer stopped, so this round has no answer; read its last lines above, and free "
        "memory if it was the system that stopped it",
        code="trainer-stopped",
        exit_code=1,
    )


def strange() -> ClientError:
    """What to raise about a frame that no trainer of ours writes."""
    return ClientError(
        "the trainer wrote what it never writes; nothing of it was used, stop the client and "
        "install privity again",
        code="trainer-strange",
        exit_code=1,
    )
