"""Choices that look random, follow from the site's secret, and come out alike every time."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, field

_LABEL = b"privity prepare 1"


@dataclass(frozen=True, slots=True)
class Draws:
    """Numbers by name, under a key that follows from the site's secret.

    What is drawn for one name says nothing about another, and nobody without the secret can tell
    who stands on which side or recognise a person by a digest.
    """

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> Draws:
        """The draws of a site."""
        return cls(hmac.digest(secret, _LABEL, "sha256"))

    def share(self, *name: str | int) -> float:
        """A number from [0, 1) that belongs to this name."""
        return int.from_bytes(self._digest("draw", *name)[:7], "big") / 2**56

    def digest(self, *name: str | int) -> str:
        """A keyed digest of a name, such as a person's."""
        return f"hmac-sha256:{self._digest('digest', *name).hex()}"

    def bytes_digest(self, content: bytes) -> str:
        """A keyed digest of a file's content."""
        return f"hmac-sha256:{hmac.digest(self.key, b'content' + content, 'sha256').hex()}"

    def _digest(self, *name: str | int) -> bytes:
        packed = json.dumps(name, separators=(",", ":")).encode()
        return hmac.digest(self.key, packed, "sha256")
