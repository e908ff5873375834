"""One message as one file, for institutions whose network is closed.

A parcel is a safetensors file: the message's arrays, and in its metadata the signed facts that name
sender, addressee, run, message and exchange. Every byte is determined by what is signed: a reader
writes the file again and compares. Nothing in it is code, and reading it runs none.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from privacy.errors import PrivacyError
from privacy.wire import FAILURES, HEADER_LIMIT_BYTES, Message

# A header of JSON inside JSON, with room for the names of the arrays.
_HEAD_LIMIT_BYTES = 2 * HEADER_LIMIT_BYTES + 4 * 1024 * 1024
LIMIT_BYTES = 4 * 1024**3
_DOMAIN = b"privity/exchange/1\n"
_KEY = "privity"

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class ParcelInvalid(PrivacyError):
    """A file is no parcel, was altered, or is for somebody or something else."""

    code = "not-a-parcel"
    exit_code = 4


class Facts(BaseModel):
    """What a parcel says of itself, under its sender's signature.

    Attributes:
        direction: down to a site, or up from it.
        exchange: names the question; its answer repeats it.
        site: who is asked or answers.
        run: the run that it belongs to.
        round: the round that is asked for, -1 outside of one.
        kind: of the message, or "failure".
        failure: a word of the closed list where the site has no other answer.
        header: the message's header.
        arrays: digest of the arrays' bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    format: Literal[1] = 1
    direction: Literal["down", "up"]
    exchange: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    site: _Name
    run: _Name
    round: Annotated[int, Field(ge=-1, le=1000)]
    kind: Literal["propose", "round", "close", "answer", "update", "closed", "failure"]
    failure: Annotated[str, Field(pattern="^(|" + "|".join(FAILURES.values()) + ")$")] = ""
    header: Annotated[str, Field(max_length=HEADER_LIMIT_BYTES)] = ""
    arrays: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A parcel whose signature and bytes were checked; `message` is None for a failure."""

    facts: Facts
    message: Message | None = field(repr=False)


def write(
    message: Message | None,
    *,
    sign: Callable[[bytes], bytes],
    **facts: Any,
) -> bytes:
    """The file's bytes for `message`, or for the failure word in `facts`."""
    arrays = dict(message.arrays) if message else {}
    body = Facts.model_validate(
        {
            **facts,
            "kind": message.kind if message else "failure",
            "header": message.header.decode("ascii") if message else "",
            "arrays": _digest(arrays),
        }
    )
    return _encode(body, arrays, sign(_signed(body)))


def read(data: bytes, *, check: Callable[[Facts, bytes, bytes], None]) -> Parcel:
    """Read a parcel.

    Args:
        data: the whole file.
        check: called with the facts, the bytes that are signed and the signature; raises unless
            the right party signed them.

    Guarantees: writing what is returned again gives `data`, so that no byte of it is free.

    Raises:
        ParcelInvalid: not a parcel, of a newer version, or altered; `check` raises its own.
    """
    if not 8 <= len(data) <= LIMIT_BYTES:
        raise ParcelInvalid("the file is no message of privity; ask for it again")
    length = int.from_bytes(data[:8], "little")
    if not length <= min(_HEAD_LIMIT_BYTES, len(data) - 8):
        raise ParcelInvalid("the file is no message of privity or was cut short; ask for it again")
    try:
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        outer = json.loads(metadata[_KEY])
        text, signature = outer["facts"], base64.b64decode(outer["signature"], validate=True)
        values = json.loads(text)
        newer = isinstance(values["format"], int) and values["format"] > 1
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ParcelInvalid("the file is no message of privity; ask for it again") from None
    if newer:
        raise ParcelInvalid(
            "the file was written by a newer version; install the newer privity",
            code="newer-format",
        )
    try:
        facts = Facts.model_validate(values)
    except (ValidationError, RecursionError):
        raise ParcelInvalid("the file is no message of privity; ask for it again") from None
    check(facts, _signed(facts), signature)
    try:
        arrays = load(data)
        same = _encode(facts, arrays, signature) == data and _digest(arrays) == facts.arrays
    except (SafetensorError, ValueError, TypeError, KeyError, UnicodeEncodeError):
        same, arrays = False, {}
    if not same or (facts.kind == "failure") is not bool(facts.failure):
        raise ParcelInvalid(
            "the file was altered after it was signed; ask for it again", code="altered-file"
        )
    message = None
    if facts.kind != "failure":
        message = Message(facts.kind, facts.header.encode("ascii"), arrays)
    return Parcel(facts, message)


def _signed(facts: Facts) -> bytes:
    return _DOMAIN + _canonical(facts.model_dump(mode="json")).encode("ascii")


def _encode(facts: Facts, arrays: dict[str, Any], signature: bytes) -> bytes:
    outer = {
        "facts": _canonical(facts.model_dump(mode="json")),
        "signature": base64.b64encode(signature).decode("ascii"),
    }
    return bytes(save(arrays, metadata={_KEY: _canonical(outer)}))


def _digest(arrays: dict[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(save(arrays)).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
