"""Wire messages as Flower records, both ways; the same codec on both sides of the border."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from privacy.errors import EgressDenied
from privacy.wire import Message

# Flower fixes the first word of a message type; the second is ours.
TYPES = {
    "propose": "query.propose",
    "round": "train.round",
    "close": "query.close",
}
ANSWERS = {"query.propose": "answer", "train.round": "update", "query.close": "closed"}
_HEADER = "privity"
_ARRAYS = "arrays"


def to_records(message: Message) -> RecordDict:
    """`message` as Flower records: one config record with the header, at most one of arrays."""
    records = RecordDict({_HEADER: ConfigRecord({_HEADER: message.header})})
    if message.arrays:
        records[_ARRAYS] = ArrayRecord(
            {name: Array(np.ascontiguousarray(a)) for name, a in sorted(message.arrays.items())}
        )
    return records


def from_records(records: RecordDict, *, kind: str) -> Message:
    """Read what `to_records` wrote, and nothing else.

    Guarantees: writing the result again gives the same records, byte for byte: extra records,
        keys, metadata or padding inside an array's serialisation cannot pass.

    Raises:
        EgressDenied: any difference.
    """
    try:
        if not records.keys() <= {_HEADER, _ARRAYS}:
            raise ValueError
        header = records[_HEADER]
        if not isinstance(header, ConfigRecord) or header.keys() != {_HEADER}:
            raise ValueError
        text = header[_HEADER]
        if not isinstance(text, bytes):
            raise ValueError
        arrays: dict[str, Any] = {}
        if _ARRAYS in records:
            for name, array in records.array_records[_ARRAYS].items():
                values = array.numpy()
                if values.dtype.str != "<f4":
                    raise ValueError
                again = Array(np.ascontiguousarray(values))
                if (again.dtype, tuple(again.shape), again.stype, again.data) != (
                    array.dtype,
                    tuple(array.shape),
                    array.stype,
                    array.data,
                ):
                    raise ValueError
                arrays[name] = values
    except EgressDenied:
        raise
    except Exception:
        raise EgressDenied(
            "the message holds records that its kind does not allow; the peer runs another version"
        ) from None
    return Message(kind, text, arrays)
