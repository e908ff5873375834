"""Wire messages as Flower records: nothing but what our own codec writes comes through."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from privacy import flower
from privacy.errors import EgressDenied
from privacy.wire import Message

ARRAYS = {"m.B": np.arange(6, dtype=np.float32).reshape(3, 2), "k.B": np.ones((2, 2), np.float32)}


def _over(records: RecordDict) -> RecordDict:
    """Through Flower's own serialisation and back."""
    contents = {name: part.deflate() for name, part in get_all_nested_objects(records).items()}
    whole: Any = inflate_object_from_contents(records.object_id, contents)
    return whole


def _npy(array: Any, *, pad: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getvalue()
    if not pad:
        return data
    # The header's own length field is adjusted, so that numpy reads the same array.
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length].rstrip(b"\n") + pad + b"\n"
    return data[:8] + len(header).to_bytes(2, "little") + header + data[10 + length :]


@settings(max_examples=40)
@given(
    header=st.binary(max_size=200),
    arrays=st.dictionaries(
        st.text("abc.B", min_size=1, max_size=8),
        arrays_of.arrays(np.float32, arrays_of.array_shapes(max_dims=2, max_side=4)),
        max_size=3,
    ),
)
def test_a_message_survives_the_way_byte_for_byte(header: bytes, arrays: dict[str, Any]) -> None:
    message = Message("update", header, arrays)
    back = flower.from_records(_over(flower.to_records(message)), kind="update")
    assert (back.kind, back.header) == ("update", header)
    assert back.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back.arrays[name].tobytes() == array.tobytes()
        assert back.arrays[name].shape == array.shape


def _replaced(name: str, array: Array) -> Callable[[RecordDict], None]:
    def change(records: RecordDict) -> None:
        records.array_records["arrays"][name] = array

    return change


def _padded(pad: bytes) -> Array:
    return Array("float32", (3, 2), "numpy.ndarray", _npy(ARRAYS["m.B"], pad=pad))


HOSTILE: dict[str, Callable[[RecordDict], None]] = {
    "another config record": lambda r: r.update({"note": ConfigRecord({"text": "leak"})}),
    "a metric record": lambda r: r.update({"metrics": MetricRecord({"loss": 0.5})}),
    "a second array record": lambda r: r.update({"more": ArrayRecord([np.ones(2, np.float32)])}),
    "another config key": lambda r: r.config_records["privity"].update({"note": "leak"}),
    "a text as the header": lambda r: r.config_records["privity"].update({"privity": "{}"}),
    "a list as the header": lambda r: r.config_records["privity"].update({"privity": [1, 2]}),
    "float64": _replaced("m.B", Array(ARRAYS["m.B"].astype(np.float64))),
    "float16": _replaced("m.B", Array(ARRAYS["m.B"].astype(np.float16))),
    "big endian": _replaced("m.B", Array(ARRAYS["m.B"].astype(">f4"))),
    "texts": _replaced("m.B", Array(np.array(["leak"]))),
    "column order": _replaced(
        "m.B", Array("float32", (3, 2), "numpy.ndarray", _npy(np.asfortranarray(ARRAYS["m.B"])))
    ),
    "a padded array header": _replaced("m.B", _padded(b" " * 64)),
    "bytes behind the array": _replaced(
        "m.B", Array("float32", (3, 2), "numpy.ndarray", _npy(ARRAYS["m.B"]) + b"leak")
    ),
    "a false shape": _replaced(
        "m.B", Array("float32", (2, 3), "numpy.ndarray", _npy(ARRAYS["m.B"]))
    ),
    "a false dtype": _replaced("m.B", Array("leak", (3, 2), "numpy.ndarray", _npy(ARRAYS["m.B"]))),
    "another encoding": _replaced("m.B", Array("float32", (3, 2), "leak", _npy(ARRAYS["m.B"]))),
    "no array at all": _replaced("m.B", Array("float32", (3, 2), "numpy.ndarray", b"leak")),
    "no header": lambda r: r.pop("privity"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_records_with_anything_more_or_else_are_refused(name: str) -> None:
    records = flower.to_records(Message("update", b"{}", ARRAYS))
    assert flower.from_records(_over(records), kind="update").header == b"{}"
    HOSTILE[name](records)
    with pytest.raises(EgressDenied) as refusal:
        flower.from_records(_over(records), kind="update")
    assert "leak" not in str(refusal.value)


def test_a_pickled_array_is_never_opened() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("an array was unpickled",))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    records = flower.to_records(Message("update", b"{}", ARRAYS))
    _replaced("m.B", Array("float32", (1,), "numpy.ndarray", buffer.getvalue()))(records)
    with pytest.raises(EgressDenied):
        flower.from_records(_over(records), kind="update")
