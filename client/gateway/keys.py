"""API keys: who may ask. The file holds digests; a key itself is shown once, when it is made."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from client.errors import ClientError
from configs import files
from configs.run import is_name

SCOPES: Final = ("chat", "feedback", "review", "metrics")
"""What a key may allow: asking, judging answers, reading the judgements, reading the metrics."""
_PREFIX: Final = "pk-"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: the key's name; "anyone" where no keys are asked for.
        scopes: what is allowed, of `SCOPES`.
        per_minute: most requests in a minute; None is the service's own number.
    """

    name: str
    scopes: frozenset[str]
    per_minute: int | None = None


ANYONE: Final = Caller("anyone", frozenset(SCOPES))


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key as the file has it."""

    caller: Caller
    digest: str
    made: str
    revoked: str | None


class KeyFile:
    """The keys of an institution's service; read again whenever the file changed.

    A key has 256 random bits, so that its plain SHA-256 can be kept: nobody can guess it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._rows: dict[str, KeyRow] = {}

    def rows(self) -> tuple[KeyRow, ...]:
        """Every key, revoked ones included, in the order in which they were made."""
        self._refresh()
        return tuple(self._rows.values())

    def find(self, key: str) -> Caller | None:
        """Whose key this is; None if it is nobody's or was revoked."""
        self._refresh()
        row = self._rows.get(_digest(key))
        return None if row is None or row.revoked else row.caller

    def add(self, name: str, *, scopes: tuple[str, ...], per_minute: int | None = None) -> str:
        """Make a key.

        Returns:
            The key; it cannot be read again.

        Raises:
            ClientError: the name is taken or no name, or a scope is unknown.
        """
        if not is_name(name):
            raise ClientError(
                "a key's name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit",
                code="bad-name",
            )
        if not scopes or not set(scopes) <= set(SCOPES):
            raise ClientError(f"a key's scopes are of {', '.join(SCOPES)}", code="bad-scope")
        rows = list(self.rows())
        if any(row.caller.name == name and not row.revoked for row in rows):
            raise ClientError(
                f"there is a key named {name} already; revoke it first", code="name-taken"
            )
        key = _PREFIX + secrets.token_urlsafe(32)
        caller = Caller(name, frozenset(scopes), per_minute)
        self._write([*rows, KeyRow(caller, _digest(key), _now(), None)])
        return key

    def revoke(self, name: str) -> None:
        """Revoke the key of that name; a running service turns it away at once.

        Raises:
            ClientError: there is no such key.
        """
        rows = list(self.rows())
        for place, row in enumerate(rows):
            if row.caller.name == name and not row.revoked:
                rows[place] = KeyRow(row.caller, row.digest, row.made, _now())
                self._write(rows)
                return
        raise ClientError(f"there is no key named {name}; list them first", code="no-key")

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._rows = None, {}
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        if status.st_mode & 0o077:
            raise ClientError(
                f"{self._path} is readable by others; run chmod 600 on it", code="open-keys"
            )
        try:
            values = json.loads(self._path.read_bytes())
            if values["format"] != 1:
                raise ValueError
            rows = [_row(value) for value in values["keys"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise ClientError(
                f"{self._path} is damaged or of a newer version; restore it from your backup",
                code="bad-keys",
            ) from None
        self._rows, self._stamp = {row.digest: row for row in rows}, stamp

    def _write(self, rows: list[KeyRow]) -> None:
        values = {"format": 1, "keys": [_value(row) for row in rows]}
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps(values, indent=1).encode() + b"\n"
        files.replace(self._path, text, mode=files.PRIVATE)
        self._stamp = None


def _row(value: Mapping[str, Any]) -> KeyRow:
    caller = Caller(str(value["name"]), frozenset(value["scopes"]), value["per_minute"])
    return KeyRow(caller, str(value["digest"]), str(value["made"]), value["revoked"])


def _value(row: KeyRow) -> dict[str, Any]:
    return {
        "name": row.caller.name,
        "scopes": sorted(row.caller.scopes),
        "per_minute": row.caller.per_minute,
        "digest": row.digest,
        "made": row.made,
        "revoked": row.revoked,
    }


def _digest(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
