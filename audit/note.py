"""Signed notes, checkpoints and cosignatures, to the letter of C2SP.

c2sp.org/signed-note v1.0.0, c2sp.org/tlog-checkpoint v1.0.0, c2sp.org/tlog-cosignature v1.0.1
(type 0x04). Any tool that reads those formats reads these.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit.canonical import from_base64, to_base64
from audit.errors import BadSignature, Malformed
from audit.merkle import HASH_BYTES
from audit.signer import Signer

ED25519 = 0x01
COSIGNATURE_V1 = 0x04
MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 1024
_MAX_TIME = (1 << 63) - 1
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name: what a vkey line `name+id+base64(type||key)` says."""

    name: str
    id: bytes
    algorithm: int
    public: bytes

    def __str__(self) -> str:
        material = to_base64(bytes([self.algorithm]) + self.public)
        return f"{self.name}+{self.id.hex()}+{material}"

    @property
    def fingerprint(self) -> str:
        """First 128 bits of SHA-256 over the raw public key, in groups of four hex digits."""
        text = hashlib.sha256(self.public).hexdigest()[:32]
        return " ".join(text[start : start + 4] for start in range(0, 32, 4))


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: key name, 4-byte key id, and the bytes after it."""

    name: str
    id: bytes
    blob: bytes

    def __str__(self) -> str:
        return f"— {self.name} {to_base64(self.id + self.blob)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note's text (with its last newline) and its signature lines, nothing verified yet."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return f"{self.text}\n" + "".join(str(signature) for signature in self.signatures)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log states about itself: how many entries, and their Merkle root (32 bytes)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The note text of this checkpoint."""
        return "".join(
            f"{line}\n"
            for line in (self.origin, str(self.size), to_base64(self.root), *self.extensions)
        )


def key_id(name: str, algorithm: int, public: bytes) -> bytes:
    """Return SHA-256(name || LF || type || key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:4]


def verifier_key(name: str, algorithm: int, public: bytes) -> VerifierKey:
    """Name a raw 32-byte Ed25519 public key.

    Raises:
        Malformed: the name or the key is not one that the specification allows.
    """
    _check_name(name)
    if algorithm not in (ED25519, COSIGNATURE_V1) or len(public) != 32:
        raise Malformed(
            f"the key of {name!r} is not an Ed25519 key of a known type", code="bad-key"
        )
    return VerifierKey(name, key_id(name, algorithm, public), algorithm, public)


def parse_key(vkey: str) -> VerifierKey:
    """Parse `name+hexid+base64(type||key)`.

    Raises:
        Malformed: the text is not such a key, or its id is not the hash of the rest.
    """
    parts = vkey.split("+", 2)
    if len(parts) != 3:
        raise Malformed("a verifier key lacks its parts name+id+key", code="bad-key")
    name, identity, material = parts
    data = from_base64(material, where=f"the verifier key of {name[:64]!r}")
    if len(data) != 33:
        raise Malformed(f"the verifier key of {name[:64]!r} has a wrong length", code="bad-key")
    key = verifier_key(name, data[0], data[1:])
    if identity != key.id.hex():
        raise Malformed(f"the verifier key of {name!r} has a wrong key id", code="bad-key")
    return key


def parse(data: str | bytes) -> Note:
    """Parse a signed note; nothing is trusted yet.

    Guarantees: `str(parse(x)) == x`, so that no byte of the input is ignored.

    Raises:
        Malformed: the data is not a signed note.
    """
    try:
        raw = data.encode("utf-8") if isinstance(data, str) else data
        text = raw.decode("utf-8")
    except UnicodeError:
        raise Malformed("a note is not valid UTF-8; fetch it again", code="bad-note") from None
    if len(raw) > MAX_NOTE_BYTES:
        raise Malformed(f"a note is over {MAX_NOTE_BYTES} bytes", code="bad-note")
    if any(ord(char) < 0x20 and char != "\n" for char in text):
        raise Malformed("a note holds control characters; fetch it again", code="bad-note")
    body, _, tail = text.rpartition("\n\n")
    if not body or not tail.endswith("\n"):
        raise Malformed("a note has no text, blank line and signatures", code="bad-note")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Malformed(f"a note has over {MAX_SIGNATURES} signatures", code="bad-note")
    return Note(body + "\n", tuple(parse_signature(line + "\n") for line in lines))


def parse_signature(line: str) -> Signature:
    """Parse one signature line with its newline.

    Raises:
        Malformed: it is not one.
    """
    parts = line.removesuffix("\n").split(" ")
    if not line.endswith("\n") or len(parts) != 3 or parts[0] != "—":
        raise Malformed("a signature line is not '— name base64'", code="bad-note")
    _check_name(parts[1])
    data = from_base64(parts[2], where=f"the signature of {parts[1][:64]!r}")
    if len(data) < 5:
        raise Malformed(f"the signature of {parts[1]!r} is too short", code="bad-note")
    return Signature(parts[1], data[:4], data[4:])


def parse_checkpoint(note: Note) -> Checkpoint:
    """Read a note's text as a checkpoint.

    Raises:
        Malformed: it is not one.
    """
    lines = note.text[:-1].split("\n")
    if len(lines) < 3 or not all(lines) or not _SIZE.fullmatch(lines[1]):
        raise Malformed("a note is not a checkpoint: origin, size, root", code="bad-checkpoint")
    root = from_base64(lines[2], where="a checkpoint's root")
    if len(root) != HASH_BYTES:
        raise Malformed("a checkpoint's root is not 32 bytes long", code="bad-checkpoint")
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:]))


def sign(text: str, *, name: str, key: Signer) -> Signature:
    """Sign a note text (type 0x01)."""
    if not text.endswith("\n"):
        raise Malformed("a note text ends in a newline", code="bad-note")
    public = key.public_key().public_bytes_raw()
    return Signature(name, verifier_key(name, ED25519, public).id, key.sign(text.encode()))


def cosign(text: str, *, name: str, key: Signer, time: int) -> Signature:
    """Cosign a checkpoint text as of `time` (POSIX seconds; type 0x04)."""
    if not 0 <= time <= _MAX_TIME:
        raise Malformed("a cosignature's time is out of range", code="bad-time")
    public = key.public_key().public_bytes_raw()
    identity = verifier_key(name, COSIGNATURE_V1, public).id
    return Signature(name, identity, time.to_bytes(8, "big") + key.sign(_cosigned(text, time)))


def check_signature(text: str, signature: Signature, key: VerifierKey) -> int | None:
    """Check one signature by a known key over a note text.

    Returns:
        The cosignature's time in POSIX seconds, or None for a plain signature.

    Raises:
        BadSignature: the line is not by this key, or does not verify.
    """
    failed = BadSignature(f"the signature of {key.name!r} does not verify")
    if (signature.name, signature.id) != (key.name, key.id):
        raise BadSignature(f"a signature line is not by {key.name!r}")
    time: int | None = None
    message, blob = text.encode("utf-8"), signature.blob
    if key.algorithm == COSIGNATURE_V1:
        time, blob = int.from_bytes(blob[:8], "big"), blob[8:]
        if time > _MAX_TIME:
            raise failed
        message = _cosigned(text, time)
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(blob, message)
    except (InvalidSignature, ValueError):
        raise failed from None
    return time


def check_signed(note: Note, key: VerifierKey) -> int | None:
    """Check that a named key signed a note: any known key is not enough, this one must have.

    Lines by other keys are ignored, as the specification demands; every line that claims to be by
    this key must verify.

    Returns:
        The newest cosignature time, or None for a plain signature.

    Raises:
        BadSignature: no line is by this key, or one of them does not verify.
    """
    lines = [s for s in note.signatures if (s.name, s.id) == (key.name, key.id)]
    if not lines:
        raise BadSignature(f"the note is not signed by {key.name!r}", code="not-signed")
    times = [check_signature(note.text, line, key) for line in lines]
    known = [time for time in times if time is not None]
    return max(known) if known else None


def open_checkpoint(data: str | bytes, *, key: VerifierKey, origin: str | None) -> Checkpoint:
    """Parse a checkpoint, check the log's own signature and, unless None, its origin.

    Raises:
        Malformed: it is not a checkpoint, or is another log's.
        BadSignature: it is not signed by `key`.
    """
    note = parse(data)
    check_signed(note, key)
    checkpoint = parse_checkpoint(note)
    if origin is not None and checkpoint.origin != origin:
        raise Malformed(
            f"the checkpoint is of log {checkpoint.origin[:128]!r} and not of {origin!r}",
            code="wrong-origin",
        )
    return checkpoint


def _cosigned(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _check_name(name: str) -> None:
    odd = any(c.isspace() or ord(c) < 0x20 or "\ud800" <= c <= "\udfff" for c in name)
    if not name or "+" in name or odd:
        raise Malformed("a key name is empty or holds a space or plus sign", code="bad-key")
