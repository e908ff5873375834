from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import note
from audit.errors import AuditError, BadSignature, Malformed

# The example of Go's golang.org/x/mod/sumdb/note documentation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb"
    "6KE6RyyBwJnAM=\n"
)
# The cosigned checkpoint that c2sp.org/tlog-cosignature shows.
SPEC_NOTE = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2"
    "q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2"
    "oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
TEXT = note.Checkpoint("example.com/log", 3, bytes(32)).text


def signed() -> str:
    lines = (
        note.sign(TEXT, name="example.com/log", key=KEY),
        note.cosign(TEXT, name="w", key=KEY, time=1_700_000_000),
    )
    return str(note.Note(TEXT, lines))


def test_a_note_and_key_made_by_go_are_accepted() -> None:
    key = note.parse_key(GO_KEY)
    assert str(key) == GO_KEY
    note.check_signed(note.parse(GO_NOTE), key)
    with pytest.raises(BadSignature):
        note.check_signed(note.parse(GO_NOTE.replace("answer", "ansver")), key)


def test_the_checkpoint_of_the_specification_is_read() -> None:
    parsed = note.parse(SPEC_NOTE)
    checkpoint = note.parse_checkpoint(parsed)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert int.from_bytes(parsed.signatures[1].blob[:8], "big") == 1679315147
    assert str(parsed) == SPEC_NOTE
    assert checkpoint.text == parsed.text


def test_a_cosignature_signs_header_time_and_text() -> None:
    """c2sp.org/tlog-cosignature, checked without the code under test."""
    line = note.cosign(TEXT, name="w", key=KEY, time=1_700_000_000)
    message = b"cosignature/v1\ntime 1700000000\n" + TEXT.encode()
    KEY.public_key().verify(line.blob[8:], message)
    assert line.blob[:8] == (1_700_000_000).to_bytes(8, "big")
    key = note.verifier_key("w", note.COSIGNATURE_V1, PUBLIC)
    assert note.check_signature(TEXT, line, key) == 1_700_000_000


def test_a_required_signer_is_not_replaced_by_another_known_key() -> None:
    only_witness = note.Note(TEXT, (note.cosign(TEXT, name="w", key=KEY, time=1),))
    with pytest.raises(BadSignature) as caught:
        note.check_signed(only_witness, note.verifier_key("example.com/log", note.ED25519, PUBLIC))
    assert caught.value.code == "not-signed"


def test_signatures_by_unknown_keys_are_ignored() -> None:
    other = note.sign(TEXT, name="stranger", key=Ed25519PrivateKey.generate())
    mixed = note.Note(TEXT, (other, *note.parse(signed()).signatures))
    note.check_signed(mixed, note.verifier_key("example.com/log", note.ED25519, PUBLIC))


def test_a_false_line_by_a_required_signer_is_not_excused_by_a_true_one() -> None:
    good = note.sign(TEXT, name="a", key=KEY)
    bad = note.Signature("a", good.id, bytes(64))
    with pytest.raises(BadSignature):
        note.check_signed(
            note.Note(TEXT, (good, bad)), note.verifier_key("a", note.ED25519, PUBLIC)
        )


def check_both(data: bytes) -> None:
    parsed = note.parse(data)
    note.check_signed(parsed, note.verifier_key("example.com/log", note.ED25519, PUBLIC))
    note.check_signed(parsed, note.verifier_key("w", note.COSIGNATURE_V1, PUBLIC))


def test_every_bit_flip_of_a_note_is_found() -> None:
    data = signed().encode()
    check_both(data)
    for place in range(len(data)):
        for bit in range(8):
            flipped = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            with pytest.raises(AuditError):
                check_both(flipped)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=80) | st.text(max_size=80))
def test_parsers_raise_nothing_but_their_own_errors(data: bytes | str) -> None:
    text = str(data)
    for read, given_data in (
        (note.parse, data),
        (note.parse_key, text),
        (note.parse_signature, text),
    ):
        with contextlib.suppress(Malformed):
            read(given_data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "origin\n01\n" + "A" * 43 + "=\n",
        "origin\n-1\n" + "A" * 43 + "=\n",
        "origin\n1\nAAAA\n",
        "origin\n1\n",
        "\n1\n" + "A" * 43 + "=\n",
        "origin\n1\n" + "A" * 43 + "=\n\nx\n",
        "origin\n1\n" + "A" * 42 + "B=\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        note.parse_checkpoint(note.Note(text, ()))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\x00"])
def test_key_names_with_spaces_or_plus_are_refused(name: str) -> None:
    with pytest.raises(Malformed):
        note.verifier_key(name, note.ED25519, PUBLIC)


def test_sixteen_signatures_are_accepted_and_thousands_are_not() -> None:
    line = str(note.sign(TEXT, name="a", key=KEY))
    note.parse(f"{TEXT}\n{line * 16}")
    with pytest.raises(Malformed):
        note.parse(f"{TEXT}\n{line * 2000}")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("tampered", [False, True])
def test_openssl_agrees_about_a_note_signature(tmp_path: Path, tampered: bool) -> None:
    (tmp_path / "key.pem").write_bytes(
        KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    text = TEXT.replace("3", "4") if tampered else TEXT
    (tmp_path / "text").write_bytes(text.encode())
    (tmp_path / "sig").write_bytes(note.sign(TEXT, name="a", key=KEY).blob)
    answer = subprocess.run(
        [
            *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem"),
            *("-rawin", "-in", "text", "-sigfile", "sig"),
        ],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (answer.returncode == 0) is not tampered
