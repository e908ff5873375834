"""DSSE envelopes around statements, as securesystemslib and in-toto read them.

https://github.com/secure-systems-lab/dsse: the signature covers the payload's bytes, so that no
reader ever has to write JSON again to check one.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit import canonical
from audit.errors import BadSignature, Malformed
from audit.signer import Signer

FORM = b'{"payload":"%b","payloadType":"%b","signatures":[{"keyid":"%b","sig":"%b"}]}'
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope whose form was checked; `check` says whether its signature holds."""

    payload: bytes
    keyid: str
    signature: bytes

    @property
    def statement(self) -> canonical.JSON:
        """The payload as JSON; raises Malformed unless it is canonical."""
        return canonical.decode(self.payload, where="a statement")


@lru_cache(maxsize=1024)
def keyid(public: bytes) -> str:
    """Return the id that securesystemslib gives to a raw Ed25519 public key."""
    return canonical.digest(
        canonical.encode(
            {"keytype": "ed25519", "keyval": {"public": public.hex()}, "scheme": "ed25519"}
        )
    ).removeprefix("sha256:")


def pae(payload: bytes) -> bytes:
    """Return the pre-authentication encoding of a payload."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, key: Signer) -> bytes:
    """Sign a payload and return the envelope's canonical bytes."""
    # Base64 and hexadecimal need no escapes, so this is canonical as it stands.
    return FORM % (
        base64.b64encode(payload),
        PAYLOAD_TYPE.encode(),
        keyid(key.public_key().public_bytes_raw()).encode(),
        base64.b64encode(key.sign(pae(payload))),
    )


def parse(data: bytes) -> Envelope:
    """Read an envelope with exactly one signature; its signature is not checked yet.

    Raises:
        Malformed: it has any other form.
    """
    value: Any = canonical.decode(data, where="an envelope")
    try:
        payload, kind, signatures = (value[n] for n in ("payload", "payloadType", "signatures"))
        (line,) = signatures
        texts = (payload, line["keyid"], line["sig"])
        exact = len(value) == 3 and len(line) == 2
    except (TypeError, KeyError, ValueError):
        raise Malformed("an envelope is not DSSE with one signature", code="not-dsse") from None
    if kind != PAYLOAD_TYPE or not exact or not all(isinstance(text, str) for text in texts):
        raise Malformed("an envelope is not a signed in-toto statement", code="not-dsse")
    return Envelope(
        payload=canonical.from_base64(texts[0], where="an envelope's payload"),
        keyid=texts[1],
        signature=canonical.from_base64(texts[2], where="an envelope's signature"),
    )


def check(envelope: Envelope, public: bytes) -> None:
    """Check that a raw Ed25519 public key signed the envelope.

    Raises:
        BadSignature: it did not.
    """
    failed = BadSignature("an event is not signed by its emitter's event key")
    if envelope.keyid != keyid(public):
        raise failed
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(envelope.signature, pae(envelope.payload))
    except (InvalidSignature, ValueError):
        raise failed from None
