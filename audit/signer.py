"""What signs: a private key in memory, or one that never leaves its token."""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Signer(Protocol):
    """An Ed25519 key; `cryptography`'s private keys have this form."""

    def sign(self, data: bytes, /) -> bytes:
        """Return the 64-byte signature of `data` (RFC 8032)."""

    def public_key(self) -> Ed25519PublicKey:
        """Return the public key."""
