"""Where the passphrase or PIN of a party's keys comes from: a file, or a person at a terminal.

Never from an argument, which other users of the machine could read, nor from a variable's value,
which child processes inherit.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path

from audit.errors import AuditError

VARIABLE = "PRIVITY_PASSPHRASE_FILE"
_MOST_BYTES = 4096
_typed: dict[str, bytes] = {}


def from_file(path: Path) -> bytes:
    """Return the first line of a file that only its owner can read.

    Raises:
        AuditError: exit code 2; it cannot be read, is open to others, or has no first line.
    """
    try:
        with path.open("rb") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise AuditError(
                    f"{path} can be read by other users; run chmod 600 on it",
                    code="keys-exposed",
                    exit_code=2,
                )
            line = stream.read(_MOST_BYTES).split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        raise AuditError(
            f"the passphrase file {path} cannot be read ({error.strerror}); correct {VARIABLE}",
            code="no-passphrase",
            exit_code=2,
        ) from None
    if not line:
        raise AuditError(f"{path} holds no passphrase", code="no-passphrase", exit_code=2)
    return line


def configured() -> bytes | None:
    """Return the passphrase that the environment names a file for, or None."""
    named = os.environ.get(VARIABLE)
    return from_file(Path(named)) if named else None


def find(what: str) -> bytes:
    """Return the passphrase of some keys: from the file, or typed once per process.

    Raises:
        AuditError: exit code 2; there is no file and nobody to ask.
    """
    known = configured() or _typed.get(what)
    if known is not None:
        return known
    if not sys.stdin.isatty():
        raise AuditError(
            f"the keys in {what} are locked; put the passphrase into a file of mode 600 and name "
            f"it in {VARIABLE}",
            code="keys-locked",
            exit_code=2,
        )
    _typed[what] = getpass.getpass(f"Passphrase of the keys in {what}: ").encode()
    return _typed[what]


def choose(what: str) -> bytes:
    """Return a new passphrase: from the file, or typed twice.

    Raises:
        AuditError: exit code 2; there is no file and nobody to ask, or the two differ.
    """
    known = configured()
    if known is not None:
        return known
    if not sys.stdin.isatty():
        raise AuditError(
            "there is nobody to ask for a new passphrase; put one into a file of mode 600 and name "
            f"it in {VARIABLE}",
            code="no-passphrase",
            exit_code=2,
        )
    first = find(what)
    if getpass.getpass("Again: ").encode() != first:
        _typed.pop(what, None)
        raise AuditError("the two passphrases differ", code="no-passphrase", exit_code=2)
    return first


def forget(what: str) -> None:
    """Ask again the next time."""
    _typed.pop(what, None)
