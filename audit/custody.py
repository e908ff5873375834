"""Change the keys of a party's folder: lock them, rotate them, revoke one that was rotated away.

A party's folder has `keys/` and `log/`. A rotation makes the new keys in `keys/next/`, writes the
event, then moves the new keys into place; after a crash in between, rotating again ends it.
"""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import dsse, events, hsm, keys, tiles, vault
from audit import passphrase as secret
from audit.canonical import JSON
from audit.errors import AuditError
from audit.journal import Journal
from audit.log import JOURNAL, Log, Receipt
from audit.rotation import Segment
from audit.tenure import KINDS, Tenure

NEXT = "next"


def lock(folder: Path, *, passphrase: bytes | None = None) -> int:
    """Lock a keys folder's files under a passphrase; return how many were open before.

    Args:
        folder: the party's folder.
        passphrase: by default `audit.passphrase.choose` provides it.

    Raises:
        AuditError: there are no keys, or the passphrase is too short.
    """
    place = folder / "keys"
    open_files = [
        path
        for path in (place / f"{role}.pem" for role in keys.ROLES)
        if path.is_file() and not vault.is_sealed(path.read_bytes())
    ]
    if not open_files:
        keys.public_keys(place)
        return 0
    chosen = secret.choose(str(place)) if passphrase is None else passphrase
    ring = keys.load(place, passphrase=chosen)
    for path in open_files:
        key = getattr(ring, path.stem)
        if not isinstance(key, Ed25519PrivateKey):
            raise AuditError(f"{path} is in a token already", code="keys", exit_code=2)
        _replace(path, vault.seal(key, chosen))
    return len(open_files)


def rotate(
    folder: Path,
    *,
    reason: str,
    expires: datetime | None = None,
    passphrase: bytes | None = None,
    token: hsm.Token | None = None,
) -> Receipt | None:
    """Rotate a party's keys, or finish a rotation that was interrupted.

    Args:
        folder: the party's folder.
        reason: a short code, such as `scheduled`.
        expires: when the new keys end.
        passphrase: opens the old keys and locks the new ones, if the old ones are locked.
        token: make the new keys in this token; by default they are kept as the old ones are.

    Returns:
        The event's receipt, or None if only the files remained to be moved.
    """
    place, new_place = folder / "keys", folder / "keys" / NEXT
    if (new_place / keys.PUBLIC).exists():
        if history(folder)[-1].keys == keys.public_keys(new_place):
            _promote(place)
            return None
        new = keys.load(new_place, passphrase=passphrase)
    old = keys.load(place, passphrase=passphrase)
    if not (new_place / keys.PUBLIC).exists():
        shutil.rmtree(new_place, ignore_errors=True)
        locked = _is_locked(place)
        chosen = (passphrase or secret.find(str(place))) if locked else passphrase
        if token is None and (place / hsm.FILE).exists():
            was = hsm.read(place / hsm.FILE)
            token = hsm.Token(was.module, was.token, _next_prefix(was.prefix))
        new = keys.create(new_place, old.name, passphrase=chosen, token=token)
    opened = Log.open(folder / "log", keys=old)
    try:
        receipt = opened.rotate(new, reason=reason, expires=expires)
        opened.checkpoint()
    finally:
        opened.close()
    _promote(place)
    return receipt


def revoke(folder: Path, *, reason: str, size: int | None = None) -> Receipt:
    """Revoke the key that was rotated away last.

    Args:
        folder: the party's folder.
        reason: a short code, such as `compromised`.
        size: how many entries it still counts for; by default all that it signed.

    Raises:
        AuditError: no key was rotated away.
    """
    opened = Log.open(folder / "log", keys=keys.load(folder / "keys"))
    try:
        segments = history(folder)
        if len(segments) < 2:
            raise AuditError(
                f"no key of {folder} was rotated away; run privity audit rotate first",
                code="nothing-to-revoke",
                exit_code=2,
            )
        retired, end = segments[-2], segments[-1].first - 1
        counts = end if size is None else size
        if not 0 <= counts <= end:
            raise AuditError(
                f"the key signed the log up to size {end}; give a size from 0 to {end}",
                code="bad-option",
                exit_code=2,
            )
        fields: dict[str, JSON] = {"log_key": retired.keys.log, "size": counts, "reason": reason}
        receipt = opened.append("key-revoked", fields)
        opened.checkpoint()
        return receipt
    finally:
        opened.close()


def history(folder: Path) -> list[Segment]:
    """Return the keys of a party's log over time, as its journal has them."""
    journal = Journal.open(folder / "log" / JOURNAL)
    followed = Tenure(folder / "log")
    try:
        with journal.read() as db:
            rows = db.execute(
                "SELECT body FROM entries WHERE kind IN (?, ?) ORDER BY seq", KINDS
            ).fetchall()
    finally:
        journal.close()
    for row in rows:
        followed.follow(events.read(dsse.parse(bytes(row[0])).statement))
    return followed.history


def _is_locked(place: Path) -> bool:
    path = place / "log.pem"
    return path.is_file() and vault.is_sealed(path.read_bytes())


def _next_prefix(prefix: str) -> str:
    stem, dash, number = prefix.rpartition("-")
    known = bool(dash) and number.isascii() and number.isdigit()
    return f"{stem}-{int(number) + 1}" if known else f"{prefix}-2"


def _promote(place: Path) -> None:
    """Move the new keys into place, `public.json` last; the old private keys are destroyed.

    Each step may be the last before a crash: which files are there says where to go on.
    """
    new_place, pems = place / NEXT, [f"{role}.pem" for role in keys.ROLES]
    if (new_place / hsm.FILE).exists():
        for name in pems:
            (place / name).unlink(missing_ok=True)
        (new_place / hsm.FILE).replace(place / hsm.FILE)
    for name in pems:
        if (new_place / name).exists():
            (new_place / name).replace(place / name)
    if (place / pems[0]).exists():
        (place / hsm.FILE).unlink(missing_ok=True)
    (new_place / keys.PUBLIC).replace(place / keys.PUBLIC)
    shutil.rmtree(new_place, ignore_errors=True)
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    """Replace a secret file; it is durable, and of mode 0600 from the beginning."""
    old = os.umask(0o077)
    try:
        tiles.write(path, data)
    finally:
        os.umask(old)
