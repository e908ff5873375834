"""Keys in a PKCS #11 token: generated there, never extractable, used through a session.

The keys folder then holds `pkcs11.json` (module, token, label prefix) in place of the private keys.
The PIN comes from where a passphrase would. Needs the extra `hsm`.
"""

from __future__ import annotations

import atexit
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit.errors import AuditError

FILE = "pkcs11.json"
_ED25519 = b"\x13\x0cedwards25519"  # PrintableString, as PKCS #11 v3.0 section 2.3.3 names it
_sessions: dict[tuple[str, str], Any] = {}


@dataclass(frozen=True, slots=True)
class Token:
    """Where keys lie: the module's library, the token's label, and what key labels begin with."""

    module: str
    token: str
    prefix: str


class HsmKey:
    """One key in a token; see `audit.signer.Signer`."""

    def __init__(self, private: Any, public: Ed25519PublicKey) -> None:
        self._private = private
        self._public = public

    def sign(self, data: bytes, /) -> bytes:
        """Return the 64-byte Ed25519 signature of `data`, made in the token."""
        from pkcs11 import Mechanism, PKCS11Error

        try:
            return bytes(self._private.sign(data, mechanism=Mechanism.EDDSA))
        except PKCS11Error as error:
            raise _failed(error) from None

    def public_key(self) -> Ed25519PublicKey:
        """Return the public key."""
        return self._public


def read(path: Path) -> Token:
    """Read `pkcs11.json`.

    Raises:
        AuditError: it is not one.
    """
    try:
        value = json.loads(path.read_bytes())
        return Token(str(value["module"]), str(value["token"]), str(value["prefix"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise AuditError(
            f"{path} does not name a module, a token and a prefix; restore it",
            code="keys",
            exit_code=2,
        ) from None


def text(token: Token) -> bytes:
    """Return the content of `pkcs11.json`."""
    return json.dumps(asdict(token), indent=2, sort_keys=True).encode() + b"\n"


def generate(token: Token, role: str, pin: bytes) -> HsmKey:
    """Make a key for a role in the token.

    Raises:
        AuditError: the token refuses, or has such a key already.
    """
    session = _session(token, pin)
    from pkcs11 import Attribute, KeyType, ObjectClass, PKCS11Error

    label = f"{token.prefix}/{role}"
    try:
        if any(session.get_objects({Attribute.LABEL: label})):
            raise AuditError(
                f"the token {token.token!r} holds a key {label!r} already; choose another prefix",
                code="keys-exist",
                exit_code=2,
            )
        domain = session.create_domain_parameters(
            KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _ED25519}, local=True
        )
        domain.generate_keypair(
            store=True,
            label=label,
            private_template={Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True},
        )
        found = list(
            session.get_objects({Attribute.LABEL: label, Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        )
        if not found or found[0][Attribute.EXTRACTABLE]:
            raise AuditError(f"the token {token.token!r} would give the key away", code="keys")
    except PKCS11Error as error:
        raise _failed(error) from None
    return load(token, role, pin)


def load(token: Token, role: str, pin: bytes) -> HsmKey:
    """Return the key of a role.

    Raises:
        AuditError: the token or the key is not there, or the PIN is wrong.
    """
    session = _session(token, pin)
    from pkcs11 import Attribute, KeyType, ObjectClass, PKCS11Error

    label = f"{token.prefix}/{role}"
    try:
        private = session.get_key(
            object_class=ObjectClass.PRIVATE_KEY, key_type=KeyType.EC_EDWARDS, label=label
        )
        public = session.get_key(
            object_class=ObjectClass.PUBLIC_KEY, key_type=KeyType.EC_EDWARDS, label=label
        )
        # An OCTET STRING around the 32 bytes.
        point = bytes(public[Attribute.EC_POINT])[-32:]
    except PKCS11Error as error:
        raise _failed(error) from None
    return HsmKey(private, Ed25519PublicKey.from_public_bytes(point))


def _session(token: Token, pin: bytes) -> Any:
    try:
        import pkcs11
    except ImportError:
        raise AuditError(
            "keys in a token need the extra hsm; run pip install 'privity[hsm]'",
            code="no-pkcs11",
            exit_code=2,
        ) from None
    known = _sessions.get((token.module, token.token))
    if known is not None:
        return known
    try:
        library = pkcs11.lib(token.module)
        opened = library.get_token(token_label=token.token).open(rw=True, user_pin=pin.decode())
    except (pkcs11.PKCS11Error, RuntimeError, UnicodeDecodeError) as error:
        raise _failed(error) from None
    _sessions[token.module, token.token] = opened
    atexit.register(_close, token)
    return opened


def _close(token: Token) -> None:
    session = _sessions.pop((token.module, token.token), None)
    if session is not None:
        session.close()


def _failed(error: Exception) -> AuditError:
    return AuditError(
        f"the token cannot be used ({type(error).__name__}); check module, token and PIN",
        code="token",
        exit_code=2,
    )
