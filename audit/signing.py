"""The signature of a release folder: OpenSSF Model Signing v1.0 with an ECDSA P-256 key.

`model.sig` is a Sigstore bundle v0.3 around a DSSE envelope around an in-toto statement that lists
the SHA-256 of every file. `model_signing verify key` of that project accepts it. This verifier is
stricter where the specification leaves room: each file but `model.sig` must be listed, and
symbolic links are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from audit import canonical, digests, dsse
from audit.errors import AuditError

SIGNATURE_FILE = "model.sig"
PUBLIC_SUFFIX = ".pub"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_SERIALIZATION: Mapping[str, canonical.JSON] = {
    "method": "files",
    "hash_type": "sha256",
    "allow_symlinks": False,
    "ignore_paths": [SIGNATURE_FILE],
}
# Other implementations skip these at the top of a model, so a signature over them would not
# verify everywhere.
_SKIPPED_BY_OTHERS = frozenset({".git", ".gitattributes", ".github", ".gitignore"})
_LARGEST_SIGNATURE_BYTES = 16 * 1024 * 1024
_RESIGN = "fetch the release again or ask its coordinator"


@dataclass(frozen=True, slots=True)
class Signed:
    """A folder that now carries a signature.

    Attributes:
        path: the signature file.
        digest: digest of the signature file's bytes; differs each time, as ECDSA is randomised.
        content: digest over the digests of all files (the statement's subject); names the content.
    """

    path: Path
    digest: str
    content: str


def create_key(path: Path) -> Path:
    """Create a P-256 release key (PKCS#8 PEM, mode 0600) and, beside it, the public key.

    Returns the public key's path, `path` with `.pub` appended; that file is no secret.

    Raises:
        AuditError: a file of either name exists, or the folder cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    try:
        for target, data, mode in ((path, secret, 0o600), (public, _pem(key.public_key()), 0o644)):
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as s:
                s.write(data)
                s.flush()
                os.fsync(s.fileno())
    except OSError as error:
        raise AuditError(
            f"the release key {path} cannot be created ({error.strerror}); choose another path",
            code="key-file",
            exit_code=2,
        ) from None
    return public


def sign_folder(folder: Path, key: Path) -> Signed:
    """Sign every file below a folder and write `model.sig` into it, replacing an older one.

    Args:
        folder: the release; its name becomes the statement's subject.
        key: private key file made by `create_key`.

    Guarantees: `verify_folder` with the matching public key accepts the result.

    Raises:
        AuditError: the key is missing, open to others or no P-256 key, or the folder is empty, or
            holds a link, a special file or a file that other verifiers would skip.
    """
    private = _private_key(key)
    resources = _resources(folder)
    if not resources:
        raise AuditError(f"{folder} holds no file to sign", code="empty", exit_code=2)
    for name in resources:
        if PurePosixPath(name).parts[0] in _SKIPPED_BY_OTHERS:
            raise AuditError(
                f"{folder / name} is skipped by other verifiers; remove it before signing",
                code="unsignable",
                exit_code=2,
            )
    content = _root(resources.values())
    statement: dict[str, canonical.JSON] = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": folder.resolve().name, "digest": {"sha256": content}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": _SERIALIZATION,
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest}
                for name, digest in resources.items()
            ],
        },
    }
    payload = canonical.encode(statement)
    bundle = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": _hint(private.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": canonical.to_base64(payload),
            "payloadType": dsse.PAYLOAD_TYPE,
            "signatures": [
                {
                    "sig": canonical.to_base64(
                        private.sign(dsse.pae(payload), ec.ECDSA(hashes.SHA256()))
                    ),
                    "keyid": "",
                }
            ],
        },
    }
    data = json.dumps(bundle).encode()
    path = folder / SIGNATURE_FILE
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return Signed(path=path, digest=canonical.digest(data), content=f"sha256:{content}")


def verify_folder(folder: Path, public_key: Path) -> None:
    """Check that a folder is, file for file and byte for byte, what the key's holder signed.

    Offline. Silence means that it holds at the time of reading; a process that loads the folder
    afterwards relies on nobody else writing into it.

    Raises:
        AuditError: no or a malformed signature, another key's signature, or a file that was
            changed, added, removed, renamed or replaced by a link.
    """
    public = _public_key(public_key)
    stated = _stated_resources(_signed_statement(folder, public), folder)
    found = _resources(folder)
    for name in sorted(stated.keys() | found.keys()):
        if name not in found:
            raise AuditError(f"{folder / name} is missing; {_RESIGN}", code="file-missing")
        if name not in stated:
            raise AuditError(f"{folder / name} was never signed; {_RESIGN}", code="file-extra")
        if stated[name] != found[name]:
            raise AuditError(f"{folder / name} was changed; {_RESIGN}", code="file-changed")


def content_digest(folder: Path) -> str:
    """Digest over the digests of all files except the signature, as the signature states it."""
    return f"sha256:{_root(_resources(folder).values())}"


def _signed_statement(folder: Path, public: ec.EllipticCurvePublicKey) -> Mapping[str, Any]:
    """Return the statement in `model.sig` once its signature has been checked."""
    path = folder / SIGNATURE_FILE
    try:
        if path.is_symlink() or not path.stat().st_size <= _LARGEST_SIGNATURE_BYTES:
            raise _malformed(path)
        bundle = json.loads(path.read_bytes())
        envelope = bundle["dsseEnvelope"]
        hint = bundle["verificationMaterial"]["publicKey"].get("hint", "")
        (signature,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        mark = base64.b64decode(signature["sig"], validate=True)
        kinds = (bundle["mediaType"], envelope["payloadType"])
    except OSError as error:
        raise AuditError(
            f"{path} cannot be read ({error.strerror}), so the release is unsigned; {_RESIGN}",
            code="unsigned",
        ) from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        binascii.Error,
    ):
        raise _malformed(path) from None
    if kinds != (_MEDIA_TYPE, dsse.PAYLOAD_TYPE):
        raise _malformed(path)
    if hint and hint != _hint(public):
        raise AuditError(
            f"{path} was made with another key; use the release key of the right coordinator",
            code="wrong-key",
        )
    try:
        public.verify(mark, dsse.pae(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise AuditError(
            f"the signature in {path} does not verify with this key; {_RESIGN}",
            code="bad-signature",
        ) from None
    try:
        statement = json.loads(payload)
    except ValueError:
        raise _malformed(path) from None
    if not isinstance(statement, dict):
        raise _malformed(path)
    return statement


def _stated_resources(statement: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return file name -> hex SHA-256 as signed, refusing all that this verifier cannot check."""
    path = folder / SIGNATURE_FILE
    try:
        predicate = statement["predicate"]
        serialization = predicate["serialization"]
        (subject,) = statement["subject"]
        stated = {item["name"]: item["digest"] for item in predicate["resources"]}
        holds = (
            statement["_type"] == _STATEMENT_TYPE
            and statement["predicateType"] == PREDICATE_TYPE
            and serialization["method"] == "files"
            and serialization["hash_type"] == "sha256"
            and serialization["allow_symlinks"] is False
            and set(serialization.get("ignore_paths", ())) <= {SIGNATURE_FILE, *_SKIPPED_BY_OTHERS}
            and all(item["algorithm"] == "sha256" for item in predicate["resources"])
            and len(stated) == len(predicate["resources"]) > 0
            and subject["digest"]["sha256"] == _root(stated.values())
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _malformed(path) from None
    if not holds:
        raise _malformed(path)
    return stated


def _resources(folder: Path) -> dict[str, str]:
    """Return relative name -> hex SHA-256 of each file below a folder but the signature.

    In the order of path components, as the reference implementation sorts them.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise AuditError(
            f"{folder} is not a folder; give the release folder", code="no-folder", exit_code=2
        )
    names: list[PurePosixPath] = []
    for root, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(root, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise AuditError(
                    f"{path} is a link or a special file; replace it by the file itself",
                    code="not-a-file",
                )
            if stat.S_ISREG(mode) and path != folder / SIGNATURE_FILE:
                names.append(PurePosixPath(path.relative_to(folder).as_posix()))
    return {
        str(name): digests.file_digest(folder / name).removeprefix("sha256:")
        for name in sorted(names)
    }


def _raise(error: OSError) -> None:
    raise AuditError(
        f"{error.filename} cannot be read ({error.strerror}); check its permissions",
        code="unreadable",
    )


def _root(hexes: Iterable[str]) -> str:
    """SHA-256 over the raw digests in order: the statement's subject (OMS v1.0)."""
    state = hashlib.sha256()
    for text in hexes:
        state.update(bytes.fromhex(text))
    return state.hexdigest()


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    """How a bundle names its key: hex SHA-256 of the public key's PEM."""
    return hashlib.sha256(_pem(key)).hexdigest()


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        if path.stat().st_mode & 0o077:
            raise AuditError(
                f"the release key {path} can be read by others; run chmod 600 on it",
                code="key-file",
                exit_code=2,
            )
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise _bad_key(path) from None
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and _is_p256(key.curve)):
        raise _bad_key(path)
    return key


def _public_key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, TypeError):
        raise _bad_key(path) from None
    if not (isinstance(key, ec.EllipticCurvePublicKey) and _is_p256(key.curve)):
        raise _bad_key(path)
    return key


def _is_p256(curve: ec.EllipticCurve) -> bool:
    return isinstance(curve, ec.SECP256R1)


def _bad_key(path: Path) -> AuditError:
    return AuditError(
        f"{path} is not a readable ECDSA P-256 key in PEM form; give the release key",
        code="key-file",
        exit_code=2,
    )


def _malformed(path: Path) -> AuditError:
    return AuditError(
        f"{path} is not an OpenSSF Model Signing v1.0 signature over files; {_RESIGN}",
        code="bad-signature-file",
    )
