"""One way to turn a value into bytes (RFC 8785) and bytes into a digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import rfc8785

from audit.errors import Malformed

JSON: TypeAlias = (
    "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"  # what JSON can say
)

_MAX_INT = 2**53 - 1
_MAX_DEPTH = 64
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def encode(value: JSON) -> bytes:
    """Return the RFC 8785 (JCS) bytes of a JSON value.

    Guarantees: equal values give equal bytes on every machine.

    Raises:
        Malformed: the value has no canonical form (NaN, an integer beyond 2**53, a lone surrogate).
    """
    if _plain(value) and (text := _WRITE(value)).isascii():
        return text.encode("ascii")
    try:
        return rfc8785.dumps(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(
            f"a value cannot be written as canonical JSON ({type(error).__name__}); "
            "use finite numbers, integers below 2**53 and valid Unicode",
            code="not-canonical",
        ) from None


def decode(data: bytes, *, where: str) -> JSON:
    """Parse bytes that must already be canonical JSON.

    Guarantees: `encode(decode(data)) == data`, so no two readings of the bytes exist
    (duplicate keys, stray white space and alternative escapes are all refused).

    Raises:
        Malformed: the bytes are not JSON or not in canonical form.
    """
    if data.isascii():
        try:
            quick: JSON = _READ(data.decode("ascii"))
            if _WRITE(quick).encode("ascii") == data:
                return quick
        except (ValueError, RecursionError):
            pass  # the careful way below says what is wrong, or that nothing is
    try:
        value: JSON = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Malformed(f"{where} is not JSON; fetch it again", code="not-json") from None
    if encode(value) != data:
        raise Malformed(f"{where} is not canonical JSON; fetch it again", code="not-canonical")
    return value


def _plain(value: object, depth: int = 0) -> bool:
    """Say whether the standard encoder writes a value as RFC 8785 does, once it is all ASCII.

    The two differ in fractions, in integers beyond 2**53, in keys that are no text, and in the
    order of keys outside the Basic Multilingual Plane.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return -_MAX_INT <= value <= _MAX_INT  # type: ignore[operator]
    if depth > _MAX_DEPTH:
        return False
    if kind is dict:
        return all(
            type(name) is str and _plain(item, depth + 1)
            for name, item in value.items()  # type: ignore[attr-defined]
        )
    return kind is list and all(_plain(item, depth + 1) for item in value)  # type: ignore[attr-defined]


def _whole(text: str) -> int:
    if len(text) > 15:
        raise ValueError("maybe beyond 2**53")
    return int(text)


def _no_fraction(text: str) -> float:
    raise ValueError("a fraction")


_WRITE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
_READ = json.JSONDecoder(
    parse_int=_whole, parse_float=_no_fraction, parse_constant=_no_fraction
).decode


def digest(data: bytes) -> str:
    """Return `"sha256:<hex>"` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Say whether text has the form `"sha256:<64 lower-case hex digits>"`."""
    return _DIGEST.fullmatch(text) is not None


def to_base64(data: bytes) -> str:
    """Return RFC 4648 section 4 base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str, *, where: str) -> bytes:
    """Decode base64 that must be canonical.

    Non-zero padding bits would let two texts stand for the same bytes, so that a changed
    character could go unseen.

    Raises:
        Malformed: the text is not the one canonical base64 encoding of some bytes.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise Malformed(f"{where} is not base64; fetch it again", code="not-base64") from None
    if to_base64(data) != text:
        raise Malformed(f"{where} is not canonical base64; fetch it again", code="not-base64")
    return data
