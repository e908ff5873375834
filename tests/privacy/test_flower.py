"""Wire messages as Flower records: nothing but what our own codec writes comes through."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors.numpy import save

from privacy import flower
from privacy.errors import EgressDenied
from privacy.wire import Message
from tests.hostile import parts

ARRAYS = {"m.B": np.arange(6, dtype=np.float32).reshape(3, 2), "k.B": np.ones((2, 2), np.float32)}


def _over(records: RecordDict) -> RecordDict:
    """Through Flower's own serialisation and back."""
    contents = {name: part.deflate() for name, part in get_all_nested_objects(records).items()}
    whole: Any = inflate_object_from_contents(records.object_id, contents)
    return whole


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


HOSTILE: dict[str, Callable[[RecordDict], Any]] = {
    "another config record": lambda r: r.update({"note": ConfigRecord({"text": "leak"})}),
    "a part that nobody asked for": lambda r: r.update(
        {"part-1": ConfigRecord({"part-1": b"leak"})}
    ),
    "an empty part more": lambda r: r.update({"part-1": ConfigRecord({"part-1": b""})}),
    "a metric record": lambda r: r.update({"metrics": MetricRecord({"loss": 0.5})}),
    "an array record": lambda r: r.update({"more": ArrayRecord([np.ones(2, np.float32)])}),
    "an array record as a part": lambda r: r.update(
        {"part-1": ArrayRecord([np.ones(2, np.float32)])}
    ),
    "another key in a part": lambda r: r.config_records["part-0"].update({"note": "leak"}),
    "a text as the part": lambda r: r.config_records["part-0"].update({"part-0": "{}"}),
    "a list as the part": lambda r: r.config_records["part-0"].update({"part-0": [1, 2]}),
    "parts of another size": lambda r: parts.write(r, *parts.split(r), part=50),
    "no part at all": lambda r: r.clear(),
    "less than a length": lambda r: r.config_records["part-0"].update({"part-0": b"leak"}),
    "a header that ends beyond the message": lambda r: r.config_records["part-0"].update(
        {"part-0": (1 << 40).to_bytes(8, "big") + b"{}"}
    ),
    "float64": parts.arrays(lambda a, n: a.update({n: a[n].astype(np.float64)})),
    "float16": parts.arrays(lambda a, n: a.update({n: a[n].astype(np.float16)})),
    "whole numbers": parts.arrays(lambda a, n: a.update({n: a[n].astype(np.int32)})),
    "a file without arrays": parts.file(lambda old: save({})),
    "no file": parts.file(lambda old: b"leak"),
    "bytes behind the file": parts.file(lambda old: old + b"leak"),
    "a shorter file": parts.file(lambda old: old[:-4]),
    "white space behind the index": parts.padded(b" " * 64),
    "text behind the index": parts.padded(b"leak    "),
    "facts beside the arrays": parts.index(
        lambda entries, n: entries.update({"__metadata__": {"note": "leak"}})
    ),
    "a field more in the index": parts.index(lambda entries, n: entries[n].update(note="leak")),
    "a false shape": parts.index(lambda entries, n: entries[n].update(shape=[7, 7])),
    "a false type": parts.index(lambda entries, n: entries[n].update(dtype="LEAK")),
    "an array of no bytes more": parts.index(
        lambda entries, n: entries.update(
            {"a": {"shape": [0], "dtype": "F32", "data_offsets": [0, 0]}}
        )
    ),
    "another order in the index": parts.index(
        lambda entries, n: entries.update({n: entries.pop(n)})
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_records_with_anything_more_or_else_are_refused(name: str) -> None:
    records = flower.to_records(Message("update", b"{}", ARRAYS))
    before = records.object_id
    assert flower.from_records(_over(records), kind="update").header == b"{}"
    HOSTILE[name](records)
    assert records.object_id != before, "the edit edits nothing"
    with pytest.raises(EgressDenied) as refusal:
        flower.from_records(_over(records), kind="update")
    assert "leak" not in str(refusal.value)


def test_a_message_is_one_object_a_part_and_two_more() -> None:
    small = flower.to_records(Message("update", b"{}", ARRAYS))
    assert len(get_all_nested_objects(small)) == 2  # and Flower's message around them
    large = {f"m.{n}": np.ones((n + 1, 100_000), np.float32) for n in range(4)}
    records = flower.to_records(Message("update", b"{}", large))
    assert list(records) == ["part-0"]
    assert len(records["part-0"]["part-0"]) < flower.PART_BYTES
    large["m.4"] = np.ones((5, 100_000), np.float32)
    records = flower.to_records(Message("update", b"{}", large))
    assert list(records) == ["part-0", "part-1"]
    back = flower.from_records(_over(records), kind="update")
    assert {name: array.shape for name, array in back.arrays.items()} == {
        name: array.shape for name, array in large.items()
    }
    records["part-0"], records["part-1"] = records["part-1"], records["part-0"]
    with pytest.raises(EgressDenied):
        flower.from_records(_over(records), kind="update")


def test_a_pickled_array_is_never_opened() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("an array was unpickled",))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    records = flower.to_records(Message("update", b"{}", ARRAYS))
    parts.file(lambda old: buffer.getvalue())(records)
    with pytest.raises(EgressDenied):
        flower.from_records(_over(records), kind="update")
