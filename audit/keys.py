"""The three Ed25519 keys of one institution or coordinator: files of mode 0600, or in a token."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import canonical, hsm, note, vault
from audit import passphrase as secret
from audit.errors import AuditError, Malformed
from audit.signer import Signer

ROLES = ("log", "event", "witness")
_ALGORITHMS = {"log": note.ED25519, "event": note.ED25519, "witness": note.COSIGNATURE_V1}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,62}")
PUBLIC = "public.json"


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """What others must know of one party: its name and three C2SP verifier keys (vkeys)."""

    name: str
    log: str
    event: str
    witness: str

    def to_json(self) -> dict[str, canonical.JSON]:
        """Return the JSON object that `from_json` reads."""
        return {"event": self.event, "log": self.log, "name": self.name, "witness": self.witness}

    @classmethod
    def from_json(cls, value: object) -> PublicKeys:
        """Read the object that `to_json` writes.

        Guarantees: each key is named `<name>/<role>` and has the type of its role.

        Raises:
            Malformed: it is anything else.
        """
        if not isinstance(value, Mapping) or set(value) != {"name", *ROLES}:
            raise Malformed("public keys are not {name, log, event, witness}", code="bad-key")
        if not all(isinstance(item, str) for item in value.values()):
            raise Malformed("public keys are not texts", code="bad-key")
        check_name(value["name"])
        for role in ROLES:
            key = note.parse_key(value[role])
            if key.name != f"{value['name']}/{role}" or key.algorithm != _ALGORITHMS[role]:
                raise Malformed(
                    f"the {role} key of {value['name']!r} has another name or type", code="bad-key"
                )
        return cls(value["name"], value["log"], value["event"], value["witness"])

    @property
    def fingerprint(self) -> str:
        """The log key's fingerprint, to read out over another channel."""
        return note.parse_key(self.log).fingerprint


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The private keys of one party. They never leave its machine."""

    name: str
    log: Signer = field(repr=False)
    event: Signer = field(repr=False)
    witness: Signer = field(repr=False)

    def public(self) -> PublicKeys:
        """Return the part that others may know."""
        vkeys = {
            role: str(
                note.verifier_key(
                    f"{self.name}/{role}",
                    _ALGORITHMS[role],
                    getattr(self, role).public_key().public_bytes_raw(),
                )
            )
            for role in ROLES
        }
        return PublicKeys(name=self.name, **vkeys)


def check_name(name: str) -> None:
    """Check that a party's name can be a folder, a key name and a log origin.

    Raises:
        Malformed: it is not 1 to 63 letters, digits, dots, dashes or underscores.
    """
    if not _NAME.fullmatch(name):
        raise Malformed(
            "a name is not 1 to 63 letters, digits, single dots, dashes or underscores; "
            "choose another",
            code="bad-name",
        )


def create(
    folder: Path, name: str, *, passphrase: bytes | None = None, token: hsm.Token | None = None
) -> KeyRing:
    """Make a party's keys: PKCS #8 PEM files of mode 0600 in `folder` (mode 0700), or in a token.

    Args:
        folder: where the files go, `public.json` in any case.
        name: the party's name.
        passphrase: locks the files; by default the one that the environment names a file for
            (`audit.passphrase`), and without that the files are not locked.
        token: make the keys in this PKCS #11 token, with the passphrase as its PIN.

    Guarantees: an existing key is never overwritten; each file is durable before the call returns.

    Raises:
        AuditError: a key is already there, or the folder cannot be written.
    """
    check_name(name)
    locked = secret.configured() if passphrase is None else passphrase
    if token is None:
        made = [Ed25519PrivateKey.generate() for _ in ROLES]
        files = {f"{role}.pem": pem(key, locked) for role, key in zip(ROLES, made, strict=True)}
        keys = KeyRing(name, *made)
    else:
        pin = locked or secret.find(str(folder))
        keys = KeyRing(name, *(hsm.generate(token, role, pin) for role in ROLES))
        files = {hsm.FILE: hsm.text(token)}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, data in files.items():
            _write_once(folder / file, data)
        _write_once(folder / PUBLIC, canonical.encode(keys.public().to_json()) + b"\n")
    except FileExistsError:
        raise AuditError(
            f"{folder} already holds keys; use them or choose another folder",
            code="keys-exist",
            exit_code=2,
        ) from None
    except OSError as error:
        raise AuditError(
            f"keys cannot be written to {folder} ({error.strerror})", code="keys", exit_code=2
        ) from None
    return keys


def pem(key: Ed25519PrivateKey, passphrase: bytes | None) -> bytes:
    """Return a private key as PEM, locked if there is a passphrase."""
    if passphrase is not None:
        return vault.seal(key, passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_keys(folder: Path) -> PublicKeys:
    """Read the public keys of a keys folder.

    Raises:
        AuditError: there are none.
    """
    try:
        data = (folder / PUBLIC).read_bytes().rstrip(b"\n")
    except OSError as error:
        raise _unreadable(folder, error) from None
    return PublicKeys.from_json(canonical.decode(data, where=PUBLIC))


def load(folder: Path, *, passphrase: bytes | None = None) -> KeyRing:
    """Read a party's keys.

    Args:
        folder: the keys folder.
        passphrase: opens locked keys; by default `audit.passphrase.find` provides it.

    Raises:
        AuditError: a file is missing, unreadable, open to other users, or not the key that the
            folder's public keys name; or the passphrase is wrong or missing.
    """
    stated = public_keys(folder)
    try:
        if (folder / hsm.FILE).exists():
            token = hsm.read(folder / hsm.FILE)
            pin = passphrase or secret.find(str(folder))
            loaded = KeyRing(stated.name, *(hsm.load(token, role, pin) for role in ROLES))
        else:
            loaded = KeyRing(
                stated.name, *(_read_private(folder / f"{role}.pem", passphrase) for role in ROLES)
            )
    except OSError as error:
        raise _unreadable(folder, error) from None
    if loaded.public() != stated:
        raise AuditError(
            f"the private keys in {folder} are not those of {PUBLIC}; restore the folder, or "
            "finish a rotation with privity audit rotate",
            code="keys",
        )
    return loaded


def _unreadable(folder: Path, error: OSError) -> AuditError:
    return AuditError(
        f"keys cannot be read from {folder} ({error.strerror}); create them first",
        code="keys",
        exit_code=2,
    )


def _write_once(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _read_private(path: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    with path.open("rb") as stream:
        if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
            raise AuditError(
                f"{path} can be read by other users; run chmod 600 on it",
                code="keys-exposed",
                exit_code=2,
            )
        data = stream.read(65536)
    if vault.is_sealed(data):
        where = str(path.parent)
        opened = vault.unseal(data, passphrase or secret.find(where))
        if opened is None:
            secret.forget(where)
            raise AuditError(
                f"the passphrase does not open {path}; give the right one",
                code="wrong-passphrase",
                exit_code=2,
            )
        return opened
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise AuditError(f"{path} is not an Ed25519 private key; restore it", code="keys")
    return key
