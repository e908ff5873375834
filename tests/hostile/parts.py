"""A message's parts in the hands of who writes them himself: any header, any file of arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from safetensors.numpy import load, save

from privacy.flower import PART_BYTES


def split(records: RecordDict) -> tuple[bytes, bytes]:
    """The header and the arrays' file of a message."""
    whole = b"".join(record[name] for name, record in records.config_records.items())
    length = 8 + int.from_bytes(whole[:8], "big")
    return whole[8:length], whole[length:]


def write(records: RecordDict, header: bytes, file: bytes, *, part: int = PART_BYTES) -> None:
    """Put other contents into a message, in parts of any size."""
    records.clear()
    whole = len(header).to_bytes(8, "big") + header + file
    for number, start in enumerate(range(0, len(whole), part)):
        name = f"part-{number}"
        records[name] = ConfigRecord({name: whole[start : start + part]})


def file(change: Callable[[bytes], bytes]) -> Callable[[RecordDict], None]:
    """An edit of the arrays' file as it stands."""

    def edit(records: RecordDict) -> None:
        header, old = split(records)
        write(records, header, change(old))

    return edit


def arrays(change: Callable[[dict[str, Any], str], Any]) -> Callable[[RecordDict], None]:
    """An edit of the arrays, by name; of any type that the format knows."""

    def edit(records: RecordDict) -> None:
        header, old = split(records)
        values = load(old)
        change(values, min(values))
        write(records, header, save({n: np.ascontiguousarray(v) for n, v in values.items()}))

    return edit


def index(change: Callable[[dict[str, Any], str], Any]) -> Callable[[RecordDict], None]:
    """An edit of the file's own index of names, types, shapes and places."""

    def edit(old: bytes) -> bytes:
        length = int.from_bytes(old[:8], "little")
        entries = json.loads(old[8 : 8 + length])
        change(entries, min(entries))
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text + old[8 + length :]

    return file(edit)


def padded(text: bytes) -> Callable[[RecordDict], None]:
    """White space and more of it behind the file's index, which a reader skips."""

    def edit(old: bytes) -> bytes:
        length = int.from_bytes(old[:8], "little")
        return (length + len(text)).to_bytes(8, "little") + old[8 : 8 + length] + text + (
            old[8 + length :]
        )  # fmt: skip

    return file(edit)
