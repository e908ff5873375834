from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import canonical
from audit.errors import Malformed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(JSON)
def test_canonical_bytes_read_back_as_the_value(value: canonical.JSON) -> None:
    assert canonical.decode(canonical.encode(value), where="x") == value


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, "\ud800", {"\ud800": 1}, {1, 2}])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(Malformed):
        canonical.encode(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [b'{"a": 1}', b'{"b":1,"a":2}', b'{"a":1,"a":1}', b'"\\u0041"', b"{", b"\xff", b"1.0"]
)
def test_a_second_spelling_of_a_value_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        canonical.decode(data, where="x")


@pytest.mark.parametrize("text", ["QQ=", "QR==", "Q Q=", "QQ==\n", "é", "QQ"])
def test_only_canonical_base64_is_read(text: str) -> None:
    assert canonical.from_base64("QQ==", where="x") == b"A"
    with pytest.raises(Malformed):
        canonical.from_base64(text, where="x")


def test_a_digest_has_one_form() -> None:
    assert canonical.is_digest(canonical.digest(b""))
    assert not canonical.is_digest(canonical.digest(b"").upper())
    assert not canonical.is_digest("sha256:00")
