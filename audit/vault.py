"""Private keys under a passphrase: PKCS #8 with scrypt and AES-256-CBC, which openssl reads too.

PBES2 of RFC 8018 with the scrypt of RFC 7914, N = 2**14, r = 8, p = 5. `cryptography` reads that
form and writes only PBKDF2, so the few DER bytes around the ciphertext are made here.
"""

from __future__ import annotations

import base64
import os
from functools import lru_cache

from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from audit.errors import AuditError

LEAST_LENGTH = 12
_N, _R, _P = 1 << 14, 8, 5
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES256_CBC = bytes.fromhex("060960864801650304012a")
_HEAD, _FOOT = b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"-----END ENCRYPTED PRIVATE KEY-----"


def seal(key: Ed25519PrivateKey, passphrase: bytes) -> bytes:
    """Return the key as encrypted PEM.

    Raises:
        AuditError: the passphrase is shorter than 12 bytes.
    """
    if not len(passphrase) >= LEAST_LENGTH:
        raise AuditError(
            f"the passphrase has fewer than {LEAST_LENGTH} bytes; choose a longer one",
            code="weak-passphrase",
            exit_code=2,
        )
    plain = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    salt, iv = os.urandom(16), os.urandom(16)
    derived = Scrypt(salt=salt, length=32, n=_N, r=_R, p=_P).derive(passphrase)
    pad = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(derived), modes.CBC(iv)).encryptor()
    hidden = encryptor.update(pad.update(plain) + pad.finalize()) + encryptor.finalize()
    numbers = b"".join(_der(0x02, _integer(number)) for number in (_N, _R, _P))
    derive = _der(0x30, _SCRYPT + _der(0x30, _der(0x04, salt) + numbers))
    encrypt = _der(0x30, _AES256_CBC + _der(0x04, iv))
    how = _der(0x30, _PBES2 + _der(0x30, derive + encrypt))
    whole = base64.b64encode(_der(0x30, how + _der(0x04, hidden)))
    lines = [whole[start : start + 64] for start in range(0, len(whole), 64)]
    return b"\n".join([_HEAD, *lines, _FOOT, b""])


def is_sealed(pem: bytes) -> bool:
    """Say whether a PEM file is encrypted."""
    return pem.lstrip().startswith(_HEAD)


@lru_cache(maxsize=16)  # scrypt is slow on purpose, and a command opens its keys more than once
def unseal(pem: bytes, passphrase: bytes) -> Ed25519PrivateKey | None:
    """Return the key, or None if the passphrase is wrong or it is no Ed25519 key."""
    try:
        key = serialization.load_pem_private_key(pem, password=passphrase)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x81, size])
    if not size < 256:
        raise AuditError("a key is too long to be written", code="keys")
    return bytes([tag]) + length + content


def _integer(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")
