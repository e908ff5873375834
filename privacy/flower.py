"""Wire messages as Flower records, both ways; the same codec on both sides of the border.

Flower moves every array of a record as two objects, each with a request of its own that costs the
SuperLink several milliseconds, on either side of it. So a message crosses as few objects: its
header and its arrays as one run of bytes, in as many parts as the size of a request asks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.supercore.inflatable import inflatable_utils
from safetensors.numpy import load, save

from privacy.errors import EgressDenied
from privacy.wire import Message

# Flower fixes the first word of a message type; the second is ours.
TYPES = {
    "propose": "query.propose",
    "round": "train.round",
    "close": "query.close",
}
ANSWERS = {"query.propose": "answer", "train.round": "update", "query.close": "closed"}
PART_BYTES = 4 * 1024 * 1024
_LENGTH_BYTES = 8
# Who asks for a part that its sender is still handing over asks again: Flower after a second, then
# after two, four, eight. Two hours in all, as with Flower.
_PATIENCE = {"initial_backoff": 0.05, "backoff_cap": 2.0, "max_tries_per_object": 3600}


def to_records(message: Message) -> RecordDict:
    """`message` as Flower records: `part-0`, `part-1`, ... with one value of bytes each.

    The parts, joined, are the header's length (8 bytes, big-endian), the header, and the arrays as
    one safetensors file, or nothing where there are none.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    whole = len(message.header).to_bytes(_LENGTH_BYTES, "big") + message.header
    if arrays:
        whole += save(arrays)
    return RecordDict(
        {
            _name(number): ConfigRecord({_name(number): whole[start : start + PART_BYTES]})
            for number, start in enumerate(range(0, len(whole), PART_BYTES))
        }
    )


def from_records(records: RecordDict, *, kind: str) -> Message:
    """Read what `to_records` wrote, and nothing else.

    Guarantees: writing the result again gives the same records, byte for byte: extra records,
        keys, metadata or padding inside the arrays' serialisation cannot pass.

    Raises:
        EgressDenied: any difference.
    """
    try:
        whole = b"".join(_part(records, _name(number)) for number in range(len(records)))
        length = _LENGTH_BYTES + int.from_bytes(whole[:_LENGTH_BYTES], "big")
        if not _LENGTH_BYTES <= length <= len(whole):
            raise ValueError
        file = whole[length:]
        message = Message(kind, whole[_LENGTH_BYTES:length], _read(file) if file else {})
        again = to_records(message)
        if again.keys() != records.keys():
            raise ValueError
        if any(_part(again, name) != _part(records, name) for name in again):
            raise ValueError
    except Exception:
        raise EgressDenied(
            "the message holds records that its kind does not allow; the peer runs another version"
        ) from None
    return message


def hasten() -> None:
    """Let this process ask soon for parts of a message that are still on their way."""
    for pull in (
        inflatable_utils.pull_objects,
        inflatable_utils.pull_and_inflate_object_from_tree,
    ):
        pull.__kwdefaults__.update(_PATIENCE)


def _name(number: int) -> str:
    return f"part-{number}"


def _part(records: RecordDict, name: str) -> bytes:
    """The bytes of one part, which holds nothing else.

    Raises:
        ValueError, KeyError: it is another record, or holds more or other values.
    """
    record = records[name]
    if not isinstance(record, ConfigRecord) or record.keys() != {name}:
        raise ValueError
    data = record[name]
    if not isinstance(data, bytes):
        raise ValueError
    return data


def _read(file: bytes) -> dict[str, Any]:
    arrays: dict[str, Any] = load(file)
    if any(array.dtype.str != "<f4" for array in arrays.values()):
        raise ValueError
    return dict(sorted(arrays.items()))
