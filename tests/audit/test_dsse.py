from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from audit import canonical, dsse
from audit.errors import AuditError, BadSignature, Malformed

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
PAYLOAD = canonical.encode({"a": 1})


def test_securesystemslib_accepts_our_envelope_and_refuses_a_changed_one() -> None:
    theirs = SSlibKey.from_crypto(KEY.public_key())
    envelope = Envelope.from_dict(json.loads(dsse.seal(PAYLOAD, KEY)))
    assert set(envelope.verify([theirs], 1)) == {dsse.keyid(PUBLIC)}
    envelope.payload = canonical.encode({"a": 2})
    with pytest.raises(VerificationError):
        envelope.verify([theirs], 1)


def test_the_pre_authentication_encoding_is_that_of_the_specification() -> None:
    assert dsse.pae(b"hello") == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"


def test_every_bit_flip_of_an_envelope_is_found() -> None:
    data = dsse.seal(PAYLOAD, KEY)
    dsse.check(dsse.parse(data), PUBLIC)
    for place in range(len(data)):
        for bit in range(8):
            flipped = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            with pytest.raises(AuditError):
                dsse.check(dsse.parse(flipped), PUBLIC)


def test_another_key_does_not_verify() -> None:
    envelope = dsse.parse(dsse.seal(PAYLOAD, Ed25519PrivateKey.generate()))
    with pytest.raises(BadSignature):
        dsse.check(envelope, PUBLIC)


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "text/plain"},
        {"signatures": []},
        {"signatures": [{"keyid": "x"}]},
        {"signatures": [1]},
        {"payload": 1},
        {"extra": 1},
    ],
)
def test_envelopes_of_another_form_are_refused(change: dict[str, object]) -> None:
    value = {**json.loads(dsse.seal(PAYLOAD, KEY)), **change}
    with pytest.raises(Malformed):
        dsse.parse(canonical.encode(value))


@pytest.mark.parametrize("data", [b"[]", b"null", b"1", b'"x"', b"{}", b"\xff"])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        dsse.parse(data)
