"""What a verifier brings along: keys that reached it another way, and a checkpoint it kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit import note
from audit.errors import AuditError
from audit.keys import PublicKeys

_MOST_BYTES = 1 << 20


def keys(files: Sequence[Path]) -> dict[str, str]:
    """Read log keys (vkeys) by party name.

    Args:
        files: each an invitation or enrolment (its `keys`), a party's public keys, or a JSON object
            from name to log key.

    Raises:
        AuditError: exit code 2; a file is none of these, or two give one party different keys.
    """
    found: dict[str, str] = {}
    for path in files:
        for name, key in _read(path).items():
            if found.setdefault(name, key) != key:
                raise AuditError(
                    f"{path} gives {name} another key than an earlier file; ask {name} which one "
                    "is its own",
                    code="keys-differ",
                    exit_code=2,
                )
    return found


def checkpoint(path: Path) -> str:
    """Read a checkpoint that was kept.

    Raises:
        AuditError: exit code 2; there is no such file, or it is no text.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(note.MAX_NOTE_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise AuditError(
            f"the checkpoint {path} cannot be read as text; check the path",
            code="no-checkpoint",
            exit_code=2,
        ) from None


def _read(path: Path) -> dict[str, str]:
    failed = AuditError(
        f"{path} gives no keys; use an invitation, an enrolment, or a JSON object from name to "
        "log key",
        code="bad-trust",
        exit_code=2,
    )
    try:
        with path.open("rb") as stream:
            value: Any = json.loads(stream.read(_MOST_BYTES))
        if "format" in value:
            value = value["keys"]
        if set(value) == {"name", "log", "event", "witness"}:
            public = PublicKeys.from_json(value)
            return {public.name: public.log}
        for key in value.values():
            if note.parse_key(key).algorithm != note.ED25519:
                raise failed
    except OSError:
        raise AuditError(
            f"{path} cannot be read; check the path", code="no-file", exit_code=2
        ) from None
    except (AuditError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise failed from None
    if not value:
        raise failed
    return {str(name): str(key) for name, key in value.items()}
