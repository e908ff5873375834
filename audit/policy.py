"""Trust policies: which logs and witnesses count, and how many of them. c2sp.org/tlog-policy.

A policy is the whole of what a verifier who knows nothing else must be given. Names are opaque
octets in that format, so a policy is read as Latin-1 here and compared octet by octet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit import note
from audit.errors import AuditError, BadSignature, Malformed

NONE = "none"
MOST_BYTES = 1 << 20
_MOST_LINES = 4096
_BLANK = re.compile(r"[ \t]+")


@dataclass(frozen=True, slots=True)
class Group:
    """Members (names of witnesses or groups) of which at least `least` must have witnessed."""

    least: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Known logs (by key), known witnesses (by name) and the quorum (a name, or `none`)."""

    logs: tuple[note.VerifierKey, ...]
    witnesses: Mapping[str, note.VerifierKey]
    groups: Mapping[str, Group]
    quorum: str

    def check(self, signed: str | bytes) -> note.Checkpoint:
        """Check that a known log signed a checkpoint and that the quorum of witnesses cosigned it.

        Returns:
            The checkpoint; its origin is the log key's name.

        Raises:
            Malformed: it is no checkpoint.
            BadSignature: no known log signed it, or the quorum is not met (code `quorum-not-met`).
        """
        parsed = note.parse(signed)
        stated = note.parse_checkpoint(parsed)
        for key in self.logs:
            if key.name == stated.origin and _signed(parsed, key):
                break
        else:
            raise BadSignature(
                f"no log of the policy signed the checkpoint of {stated.origin[:128]!r}",
                code="unknown-log",
            )
        counted = {name: _signed(parsed, key) for name, key in self.witnesses.items()}
        for name, group in self.groups.items():  # members stand before their groups
            counted[name] = sum(counted[member] for member in group.members) >= group.least
        if self.quorum != NONE and not counted[self.quorum]:
            raise BadSignature(
                f"the checkpoint of {stated.origin[:128]!r} lacks the policy's quorum of witnesses",
                code="quorum-not-met",
            )
        return stated


def parse(data: bytes) -> Policy:
    """Read a policy file.

    Raises:
        Malformed: it breaks any rule of the format; the sentence names the line.
    """
    if len(data) > MOST_BYTES or data.count(b"\n") > _MOST_LINES:
        raise Malformed("a trust policy is too long", code="bad-policy")
    text = data.decode("latin-1")
    if any((char < " " and char not in "\t\n") or char == "\x7f" for char in text):
        raise Malformed("a trust policy holds control characters", code="bad-policy")
    if text and not text.endswith("\n"):
        raise Malformed("a trust policy does not end with a newline", code="bad-policy")
    reading = _Reading()
    for number, line in enumerate(text.split("\n")[:-1], 1):
        words = [word for word in _BLANK.split(line) if word]
        if not words or words[0].startswith("#"):
            continue
        try:
            reading.take(words)
        except (AuditError, ValueError) as error:
            said = str(error) if isinstance(error, AuditError) else "this is no rule of a policy"
            raise Malformed(f"line {number} of the policy: {said}", code="bad-policy") from None
    if reading.quorum is None:
        raise Malformed("a trust policy has no quorum line", code="bad-policy")
    return Policy(tuple(reading.logs), reading.witnesses, reading.groups, reading.quorum)


def text(
    logs: Sequence[str], witnesses: Mapping[str, str], *, least: int, urls: Mapping[str, str] = {}
) -> str:
    """Write a policy: any of some logs, cosigned by at least `least` of some witnesses."""
    lines = [f"log {key}" for key in logs]
    lines += [
        " ".join(["witness", name, key, *([urls[name]] if name in urls else [])])
        for name, key in witnesses.items()
    ]
    if least:
        lines += [f"group witnesses {least} {' '.join(witnesses)}", "quorum witnesses"]
    else:
        lines.append(f"quorum {NONE}")
    written = "\n".join(lines) + "\n"
    parse(written.encode())
    return written


class _Reading:
    def __init__(self) -> None:
        self.logs: list[note.VerifierKey] = []
        self.witnesses: dict[str, note.VerifierKey] = {}
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None
        self._free: set[str] = set()  # names that no group has yet

    def take(self, words: Sequence[str]) -> None:
        """Take one line; ValueError stands for a wrong number of words."""
        if words[0] == "log":
            _, key, *url = words
            self._log(note.parse_key(key), url)
        elif words[0] == "witness":
            _, name, key, *url = words
            self._witness(name, note.parse_key(key), url)
        elif words[0] == "group":
            _, name, least, *members = words
            self._group(name, least, members)
        elif words[0] == "quorum":
            _, name = words
            if self.quorum is not None:
                raise Malformed("there are two quorum lines")
            if name != NONE and name not in self._names():
                raise Malformed("the quorum is a name that was not defined before")
            self.quorum = name
        else:
            raise ValueError

    def _log(self, key: note.VerifierKey, url: Sequence[str]) -> None:
        if len(url) > 1:
            raise ValueError
        if key.algorithm != note.ED25519:
            raise Malformed("the key of a log is of another type")
        if key.public in [known.public for known in self.logs]:
            raise Malformed("one key is that of two logs")
        self.logs.append(key)

    def _witness(self, name: str, key: note.VerifierKey, url: Sequence[str]) -> None:
        if len(url) > 1:
            raise ValueError
        self._new(name)
        if key.algorithm != note.COSIGNATURE_V1:
            raise Malformed("the key of a witness is of another type")
        if key.public in [known.public for known in self.witnesses.values()]:
            raise Malformed("one key is that of two witnesses")
        self.witnesses[name] = key

    def _group(self, name: str, word: str, members: Sequence[str]) -> None:
        self._new(name)
        self._free.discard(name)
        if not members or len(set(members)) != len(members) or not set(members) <= self._free:
            raise Malformed("a group has no members, or one that is unknown or in a group already")
        known = {"any": 1, "all": len(members)}
        number = word if re.fullmatch(r"[1-9][0-9]{0,5}", word) else "0"
        least = known.get(word, int(number))
        if not 1 <= least <= len(members):
            raise Malformed("a group's threshold is not from 1 to the number of its members")
        self._free = (self._free - set(members)) | {name}
        self.groups[name] = Group(least, tuple(members))

    def _new(self, name: str) -> None:
        if name == NONE or name in self._names():
            raise Malformed("a name is defined twice, or is none")
        self._free.add(name)

    def _names(self) -> set[str]:
        return {*self.witnesses, *self.groups}


def _signed(signed: note.Note, key: note.VerifierKey) -> bool:
    try:
        note.check_signed(signed, key)
    except BadSignature:
        return False
    return True
