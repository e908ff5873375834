"""Signed records of generated answers: DSSE under a payload type that no log entry has."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit import canonical, dsse
from audit.errors import BadSignature, Malformed
from audit.signer import Signer

PAYLOAD_TYPE = "application/vnd.privity.response+json"


def seal(document: dict[str, canonical.JSON], key: Signer) -> dict[str, Any]:
    """Sign a record; the envelope is a JSON object."""
    payload = canonical.encode(document)
    public = key.public_key().public_bytes_raw()
    return {
        "payload": canonical.to_base64(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": dsse.keyid(public), "sig": canonical.to_base64(key.sign(_pae(payload)))}
        ],
    }


def check(envelope: Any, public: bytes, *, answer: str) -> dict[str, canonical.JSON]:
    """Check that a raw Ed25519 public key signed the record of this answer, and return it.

    Raises:
        Malformed: it is no such envelope.
        BadSignature: another key signed it, or it is of another answer.
    """
    try:
        (line,) = envelope["signatures"]
        known = (envelope["payloadType"], line["keyid"]) == (PAYLOAD_TYPE, dsse.keyid(public))
        payload = canonical.from_base64(envelope["payload"], where="a record's payload")
        signature = canonical.from_base64(line["sig"], where="a record's signature")
    except (TypeError, KeyError, ValueError):
        raise Malformed("a record is not DSSE with one signature", code="not-dsse") from None
    try:
        if not known:
            raise ValueError
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _pae(payload))
    except (InvalidSignature, ValueError):
        raise BadSignature("the record is not signed by this institution's event key") from None
    document = canonical.decode(payload, where="a record")
    if not isinstance(document, dict) or document.get("answer_digest") != canonical.digest(
        answer.encode()
    ):
        raise BadSignature("the record is of another answer")
    return document


def _pae(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
