"""The closed set of messages: one spelling for each, and nothing outside it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import wire
from privacy.errors import EgressDenied
from privacy.wire import (
    DECLINES,
    FAILURES,
    Answer,
    Close,
    Closed,
    Message,
    Propose,
    Round,
    Update,
    pack,
    unpack,
)

DIGEST = "sha256:" + "ab" * 32
DOWN: dict[str, Any] = {"witness": "old 0\n\nnote\n", "cosigned": "", "have": 0, "run": "triage"}
UP: dict[str, Any] = {
    "checkpoint": "origin\n1\nroot\n", "entries": ("YWJj",), "witnessed": 3,
    "cosignature": "— hub/witness AAAA\n", "run": "triage",
}  # fmt: skip
ARRAYS = {"m.B": np.ones((2, 2), np.float32)}
HEADERS: list[tuple[Any, Any]] = [
    (Propose(**DOWN, plan='{"format":1}'), None),
    (Round(**DOWN, round=0, plan_digest=DIGEST, input_digest=DIGEST), ARRAYS),
    (Close(**DOWN, release_digest=DIGEST), None),
    (Answer(**UP, plan_digest=DIGEST, decision="accepted", reason="none"), None),
    (Update(**UP, round=0, plan_digest=DIGEST, update_digest=DIGEST, statement_index=4), ARRAYS),
    (Closed(**UP), None),
]
IDS = [type(header).__name__ for header, _ in HEADERS]
ALL = pytest.mark.parametrize(("header", "arrays"), HEADERS, ids=IDS)


@ALL
def test_every_kind_comes_back_as_it_was_sent(header: Any, arrays: Any) -> None:
    message = pack(header, arrays)
    assert unpack(message, type(header)) == header
    assert message.kind == type(header).__name__.lower()
    assert "triage" not in repr(message)


@ALL
def test_arrays_where_none_belong_and_none_where_some_do_are_refused(
    header: Any, arrays: Any
) -> None:
    other = None if arrays else ARRAYS
    with pytest.raises(EgressDenied):
        pack(header, other)
    message = pack(header, arrays)
    with pytest.raises(EgressDenied):
        unpack(Message(message.kind, message.header, other or {}), type(header))


@ALL
def test_another_kind_than_expected_is_refused(header: Any, arrays: Any) -> None:
    message = pack(header, arrays)
    for kind in ("", "update2", *(name.lower() for name in IDS)):
        if kind != message.kind:
            with pytest.raises(EgressDenied):
                unpack(Message(kind, message.header, message.arrays), type(header))


def _spellings(header: bytes) -> dict[str, bytes]:
    values = json.loads(header)
    tight = {"sort_keys": True, "separators": (",", ":")}
    return {
        "a space": header.replace(b":", b": ", 1),
        "a line feed at the end": header + b"\n",
        "a space at the front": b" " + header,
        "another order": json.dumps(dict(reversed(values.items())), separators=(",", ":")).encode(),
        "a key twice": b'{"run":"leak",' + header[1:],
        "an unknown key": json.dumps(values | {"zz": 1}, **tight).encode(),
        "an escape": header.replace(b'"triage"', b'"\\u0074riage"'),
        "not JSON": b"leak",
        "a list": b"[]",
        "a number": b"1",
        "no bytes": b"",
        "not UTF-8": b"\xff\xfe",
        "deeply nested": b"[" * 100_000,
        "a missing key": json.dumps(
            {k: v for k, v in values.items() if k != "run"}, **tight
        ).encode(),
        "a run that is no name": json.dumps(values | {"run": "Anna Smith"}, **tight).encode(),
        "a run with a line feed": json.dumps(values | {"run": "triage\n"}, **tight).encode(),
    }


@ALL
@pytest.mark.parametrize("way", _spellings(b'{"run":"triage"}'))
def test_no_other_spelling_of_a_header_passes(header: Any, arrays: Any, way: str) -> None:
    message = pack(header, arrays)
    other = _spellings(message.header)[way]
    assert other != message.header
    with pytest.raises(EgressDenied) as refusal:
        unpack(Message(message.kind, other, message.arrays), type(header))
    assert "leak" not in str(refusal.value)
    assert "Anna" not in str(refusal.value)


@pytest.mark.parametrize(
    ("header", "field", "value"),
    [
        (HEADERS[3][0], "reason", "because of Anna Smith"),
        (HEADERS[3][0], "reason", "none\n"),
        (HEADERS[3][0], "decision", "maybe"),
        (HEADERS[3][0], "plan_digest", "sha256:" + "AB" * 32),
        (HEADERS[4][0], "round", -1),
        (HEADERS[4][0], "round", 1.0),
        (HEADERS[4][0], "round", True),
        (HEADERS[4][0], "round", "1"),
        (HEADERS[4][0], "statement_index", 2**40),
        (HEADERS[4][0], "entries", ["a text with spaces"]),
        (HEADERS[4][0], "entries", ["YWJj\n"]),
        (HEADERS[4][0], "checkpoint", "tab\there"),
        (HEADERS[4][0], "checkpoint", "病历"),
        (HEADERS[5][0], "cosignature", "x" * 70_000),
    ],
)
def test_values_outside_their_pattern_are_refused(header: Any, field: str, value: Any) -> None:
    message = pack(header, ARRAYS if isinstance(header, Update) else None)
    values = json.loads(message.header) | {field: value}
    bad = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(EgressDenied):
        unpack(Message(message.kind, bad, message.arrays), type(header))


def test_a_header_over_the_limit_is_not_even_parsed() -> None:
    with pytest.raises(EgressDenied, match="too long"):
        unpack(Message("closed", b" " * (wire.HEADER_LIMIT_BYTES + 1)), Closed)


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_no_bytes_make_a_header_fail_in_another_way(data: bytes) -> None:
    for header, arrays in HEADERS:
        with pytest.raises(EgressDenied):
            unpack(Message(type(header).__name__.lower(), data, arrays or {}), type(header))


def test_every_word_that_may_leave_is_short_and_plain() -> None:
    for word in (*FAILURES.values(), *DECLINES):
        assert word.replace("-", "").isalpha()
        assert word == word.lower()
        assert len(word) <= 24
    assert len(set(FAILURES.values())) == len(FAILURES)
