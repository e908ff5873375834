"""A release folder verifies exactly as signed, here and with the reference implementation."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import dsse, signing
from audit.errors import AuditError

PRESENT = importlib.util.find_spec("model_signing") and importlib.util.find_spec("OpenSSL")
interop = pytest.mark.skipif(
    not PRESENT,
    reason="model-signing and pyOpenSSL are not installed; they are the second verifier",
)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signing.create_key(tmp_path / "release.pem")
    return tmp_path / "release.pem"


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_name(key.name + signing.PUBLIC_SUFFIX)


@pytest.fixture
def folder(tmp_path: Path, key: Path) -> Path:
    made = tmp_path / "release"
    for name in ("adapter_model.safetensors", "README.md", "a/x", "a-b/x", "a/y z"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(name.encode() * 3)
    signing.sign_folder(made, key)
    return made


def refused(folder: Path, public: Path, code: str) -> None:
    with pytest.raises(AuditError) as caught:
        signing.verify_folder(folder, public)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_signed_folder_verifies(folder: Path, public: Path) -> None:
    signing.verify_folder(folder, public)


def test_signing_again_replaces_the_signature_and_keeps_the_content(folder, key, public) -> None:
    first, second = signing.sign_folder(folder, key), signing.sign_folder(folder, key)
    assert first.content == second.content == signing.content_digest(folder)
    assert first.digest != second.digest
    signing.verify_folder(folder, public)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_changed_byte_is_refused(folder: Path, public: Path, data) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "model.sig")
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    flipped = before[at] ^ data.draw(st.integers(1, 255))
    path.write_bytes(before[:at] + bytes([flipped]) + before[at + 1 :])
    try:
        refused(folder, public, "file-changed")
    finally:
        path.write_bytes(before)


def test_a_missing_added_or_renamed_file_is_refused(folder: Path, public: Path) -> None:
    (folder / "README.md").rename(folder / "README.txt")
    refused(folder, public, "file-missing")
    (folder / "README.txt").rename(folder / "README.md")
    (folder / ".hidden").write_text("x")
    refused(folder, public, "file-extra")
    (folder / ".hidden").unlink()
    signing.verify_folder(folder, public)


def test_another_key_is_refused(folder: Path, public: Path, tmp_path: Path) -> None:
    refused(folder, signing.create_key(tmp_path / "other.pem"), "wrong-key")


def test_a_foreign_signature_without_a_hint_is_refused(folder, public, tmp_path) -> None:
    signing.create_key(tmp_path / "other.pem")
    signing.sign_folder(folder, tmp_path / "other.pem")
    bundle = json.loads((folder / "model.sig").read_text())
    del bundle["verificationMaterial"]["publicKey"]["hint"]
    (folder / "model.sig").write_text(json.dumps(bundle))
    refused(folder, public, "bad-signature")


def test_links_are_refused_when_signing_and_when_verifying(folder, key, public, tmp_path) -> None:
    target = tmp_path / "outside"
    shutil.copy(folder / "README.md", target)
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(target)  # the same bytes, but not in the folder
    refused(folder, public, "not-a-file")
    with pytest.raises(AuditError, match="link"):
        signing.sign_folder(folder, key)
    (folder / "README.md").unlink()
    shutil.copy(target, folder / "README.md")
    (folder / "dir").symlink_to(tmp_path)
    refused(folder, public, "not-a-file")
    (folder / "dir").unlink()
    os.mkfifo(folder / "pipe")
    refused(folder, public, "not-a-file")


def test_a_linked_folder_or_signature_is_refused(folder: Path, public: Path, tmp_path) -> None:
    (tmp_path / "link").symlink_to(folder)
    refused(tmp_path / "link", public, "no-folder")
    (folder / "model.sig").rename(tmp_path / "model.sig")
    (folder / "model.sig").symlink_to(tmp_path / "model.sig")
    with pytest.raises(AuditError):
        signing.verify_folder(folder, public)


def resign(folder: Path, key: Path, change) -> None:
    """Sign a changed statement with the right key, as a faulty signer might."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    bundle = json.loads((folder / "model.sig").read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    signature = private.sign(dsse.pae(payload), ec.ECDSA(hashes.SHA256()))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    (folder / "model.sig").write_text(json.dumps(bundle))


def test_resigning_without_a_change_still_verifies(folder, key, public) -> None:
    resign(folder, key, lambda s: None)
    signing.verify_folder(folder, public)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(predicateType="https://model_signing/Digests/v0.1"),
        lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda s: s["subject"].append(s["subject"][0]),
        lambda s: s["subject"][0]["digest"].update(sha256="0" * 64),
        lambda s: s["predicate"]["serialization"].update(method="shards"),
        lambda s: s["predicate"]["serialization"].update(allow_symlinks=True),
        lambda s: s["predicate"]["serialization"].update(ignore_paths=["model.sig", "README.md"]),
        lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b"),
        lambda s: s["predicate"]["resources"][0].update(digest="zz"),
        lambda s: s["predicate"].update(resources=[]),
        lambda s: s.pop("predicate"),
    ],
)
def test_a_statement_that_cannot_be_checked_is_refused(folder, key, public, change) -> None:
    resign(folder, key, change)
    refused(folder, public, "bad-signature-file")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"mediaType": 1}', b"\xff\xfe"])
def test_a_malformed_signature_file_is_refused(folder: Path, public: Path, data: bytes) -> None:
    (folder / "model.sig").write_bytes(data)
    refused(folder, public, "bad-signature-file")


def test_an_unsigned_folder_is_refused(folder: Path, public: Path) -> None:
    (folder / "model.sig").unlink()
    refused(folder, public, "unsigned")


def test_the_private_key_is_private_and_never_replaced(key: Path, folder: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AuditError, match="cannot be created"):
        signing.create_key(key)
    key.chmod(0o640)
    with pytest.raises(AuditError, match="chmod 600"):
        signing.sign_folder(folder, key)


def test_other_kinds_of_key_are_refused(folder: Path, tmp_path: Path) -> None:
    for other in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        path = tmp_path / "other"
        path.unlink(missing_ok=True)
        path.write_bytes(
            other.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        refused(folder, path, "key-file")
    refused(folder, tmp_path / "absent", "key-file")


def test_a_folder_that_other_verifiers_would_read_differently_is_not_signed(folder, key) -> None:
    (folder / ".gitattributes").write_text("*")
    with pytest.raises(AuditError, match="other verifiers"):
        signing.sign_folder(folder, key)


def by_reference(folder: Path, public: Path) -> int:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / "model.sig"), "--public_key", str(public)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode


@interop
def test_the_reference_implementation_accepts_ours_and_refuses_its_twins(
    folder: Path, public: Path, tmp_path: Path
) -> None:
    assert by_reference(folder, public) == 0
    assert by_reference(folder, signing.create_key(tmp_path / "other.pem")) != 0
    (folder / "extra").write_text("x")
    assert by_reference(folder, public) != 0
    (folder / "extra").unlink()
    (folder / "README.md").write_bytes(b"changed")
    assert by_reference(folder, public) != 0
    (folder / "README.md").unlink()
    assert by_reference(folder, public) != 0


@interop
def test_we_accept_what_the_reference_implementation_signs(folder, key, public) -> None:
    (folder / "model.sig").unlink()
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(folder)]
    command += ["--signature", str(folder / "model.sig"), "--private_key", str(key)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    signing.verify_folder(folder, public)
    (folder / ".gitattributes").write_text("*")  # which the reference implementation overlooks
    refused(folder, public, "file-extra")
