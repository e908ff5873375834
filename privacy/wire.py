"""The closed set of messages that may cross the border between an institution and the coordinator.

A message is one kind, one header of canonical JSON and, where the kind allows it, arrays of
little-endian float32. Decoding re-encodes and compares, so that no byte of a header is free:
key order, white space, duplicate keys and number spellings cannot carry anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privacy.errors import EgressDenied

Arrays = Mapping[str, npt.NDArray[np.float32]]
Kind = Literal["propose", "round", "close", "answer", "update", "closed"]

HEADER_LIMIT_BYTES = 8 * 1024 * 1024

# What a site may say instead of an answer. Numbers travel in Flower's error code; the words
# beside them are ours and fixed, so an exception's text never leaves the site.
FAILURES: Mapping[int, str] = {
    100: "failed",
    101: "refused-by-gate",
    102: "not-approved",
    103: "budget-exhausted",
    104: "round-already-spent",
    105: "plan-not-acceptable",
    106: "data-not-usable",
    107: "evidence-inconsistent",
    108: "unknown-message",
    109: "runner-stopped",
    110: "ledger-fault",
}
# Why a site declines a plan that it understood.
DECLINES = (
    "none",
    "waiting-for-approval",
    "refused-by-operator",
    "model-not-allowed",
    "model-not-available",
    "plan-not-listed",
    "needs-all-columns",
    "epsilon-over-policy",
    "epsilon-over-budget",
    "delta-mismatch",
    "too-many-steps",
    "plan-inconsistent",
    "records-missing",
    "coordinator-behind",
)

_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
_Count = Annotated[int, Field(ge=0, le=2**31)]
# Signed notes and add-checkpoint bodies: printable ASCII, em dash of C2SP, and line feeds.
_Note = Annotated[str, Field(pattern=r"^[\x0a\x20-\x7e—]*$", max_length=65_536)]
_Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=90_000)]


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Handover(_Header):
    """An entry of the coordinator's log that rotates its keys, and its inclusion proof."""

    entry: _Base64
    proof: tuple[_Base64, ...] = Field(strict=False, max_length=63)


class _Down(_Header):
    """What every message to a site carries.

    Attributes:
        witness: C2SP add-checkpoint body with the coordinator's newest checkpoint.
        cosigned: the site's own checkpoint as the coordinator last cosigned it, or empty.
        have: how many entries of the site's log the coordinator holds.
        handovers: every rotation of the coordinator's keys, the oldest first; left out where there
            was none.
    """

    witness: _Note
    cosigned: _Note
    have: _Count
    handovers: tuple[Handover, ...] = Field(default=(), strict=False, max_length=64)


class Propose(_Down):
    """The plan, before anything is opened; `plan` is its canonical JSON."""

    run: _Name
    plan: Annotated[str, Field(max_length=262_144)]


class Round(_Down):
    """Start one round from the adapter in the arrays."""

    run: _Name
    round: _Count
    plan_digest: _Digest
    input_digest: _Digest


class Close(_Down):
    """The run is over; `release_digest` is the release adapter's, or all zeros without one."""

    run: _Name
    release_digest: _Digest


class _Up(_Header):
    """What every answer of a site carries: its own evidence, and nothing that depends on n.

    Attributes:
        checkpoint: the site's newest signed checkpoint.
        entries: the site's log entries from the coordinator's `have` on, base64.
        witnessed: size of the coordinator's log that the site cosigned last.
        cosignature: its cosignature at that size; empty only with reason `coordinator-behind`,
            when the coordinator asked from an older size and has to ask again.
    """

    checkpoint: _Note
    entries: tuple[_Base64, ...] = Field(strict=False, max_length=10_000)
    witnessed: _Count
    cosignature: _Note


class Answer(_Up):
    """Accepted, declined for a listed reason, or waiting for a person."""

    run: _Name
    plan_digest: _Digest
    decision: Literal["accepted", "declined", "pending"]
    reason: str = Field(pattern="^(" + "|".join(DECLINES) + ")$")


class Update(_Up):
    """One round's change of B is in the arrays; the statement about it stands in the log."""

    run: _Name
    round: _Count
    plan_digest: _Digest
    update_digest: _Digest
    statement_index: _Count


class Closed(_Up):
    """The site has seen the end of the run."""

    run: _Name


Header = Propose | Round | Close | Answer | Update | Closed
_KINDS: Mapping[str, type[_Header]] = {
    "propose": Propose,
    "round": Round,
    "close": Close,
    "answer": Answer,
    "update": Update,
    "closed": Closed,
}
_WITH_ARRAYS = frozenset({"round", "update"})
_H = TypeVar("_H", bound=_Header)


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it crosses: its kind, its header bytes and its arrays."""

    kind: str
    header: bytes = field(repr=False)
    arrays: Arrays = field(repr=False, default_factory=dict)


def pack(header: Header, arrays: Arrays | None = None) -> Message:
    """Encode `header` (and `arrays`, for the kinds that carry them).

    Raises:
        EgressDenied: the kind carries no arrays but some were given, or the other way round.
    """
    kind = type(header).__name__.lower()
    if (kind in _WITH_ARRAYS) is not bool(arrays):
        raise EgressDenied(f"a message of kind '{kind}' has the wrong arrays; this is a defect")
    return Message(kind, _encode(header), dict(arrays or {}))


def unpack(message: Message, expect: type[_H]) -> _H:
    """Decode the header of `message` as `expect`.

    Guarantees: encoding the result again gives the same bytes.

    Raises:
        EgressDenied: another kind, too long, not canonical, an unknown field or a value outside
            its pattern, or arrays where the kind has none. The text names no value.
    """
    if message.kind not in _KINDS or _KINDS[message.kind] is not expect:
        raise EgressDenied("the message is of an unexpected kind; the peer runs another version")
    if not len(message.header) <= HEADER_LIMIT_BYTES:
        raise EgressDenied("the message header is too long; the peer runs another version")
    if (message.kind in _WITH_ARRAYS) is not bool(message.arrays):
        raise EgressDenied("the message has the wrong arrays; the peer runs another version")
    try:
        header = expect.model_validate(json.loads(message.header))
    except (ValidationError, ValueError, RecursionError):
        raise EgressDenied(
            "the message header is not what its kind allows; the peer runs another version"
        ) from None
    if _encode(header) != message.header:
        raise EgressDenied("the message header is not canonical; the peer runs another version")
    return header


def _encode(header: _Header) -> bytes:
    values = header.model_dump(mode="json")
    if not values.get("handovers", True):
        del values["handovers"]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode(
        "ascii"
    )
