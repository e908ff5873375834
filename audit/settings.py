"""A party's settings in its log: that they changed, from which digest to which, and where.

The log has salted commitments to the file's digests, which whoever guesses at a setting cannot try
his guesses on, and the names of the settings that differ, never a value. Beside it lies what was
seen last, so that the names can be told the next time.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from audit import canonical, disclosures, tiles
from audit.canonical import JSON
from audit.errors import AuditError
from audit.fields import SETTING
from audit.log import Log, Receipt

NOTHING = canonical.digest(b"")
"""What settings that nobody saw before had been."""
_MOST = 256  # names in one entry


def digest(content: bytes) -> str:
    """Digest of a settings file's bytes, as `sha256sum` prints it after `sha256:`."""
    return canonical.digest(content)


def remember(memory: Path, content: bytes, values: Mapping[str, Any]) -> None:
    """Take settings for known without a word in the log, as when a party is made.

    Args:
        memory: file that keeps what was seen last.
        content: the settings' bytes.
        values: the same, parsed.
    """
    document = {"format": 1, "digest": digest(content), "settings": _digests(values)}
    tiles.write(memory, json.dumps(document).encode())
    memory.chmod(0o600)


def is_known(memory: Path, content: bytes) -> bool:
    """Whether settings are those that were seen last."""
    return _read(memory).get("digest") == digest(content)


def notice(log: Log, place: Path, memory: Path, content: bytes) -> None:
    """Log that a party's own settings file changed, if the caller was started with what is there.

    A process that was started before the change does not speak for it. A log that takes no entry
    is not told here: whoever opened it is about to append, and meets the same.

    Args:
        log: the party's log.
        place: the file.
        memory: as for `remember`.
        content: the file's bytes when the caller read it; empty if the caller did not.
    """
    if not content or is_known(memory, content):
        return
    with suppress(OSError, AuditError, ValueError):
        if place.read_bytes() == content:
            values = tomllib.loads(content.decode())
            note(log, subject=place.stem, memory=memory, content=content, values=values)


def note(
    log: Log, *, subject: str, memory: Path, content: bytes, values: Mapping[str, Any]
) -> Receipt | None:
    """Log that settings are not what they were, if so.

    Args:
        log: the party's log.
        subject: a short word for what they are the settings of.
        memory: as for `remember`.
        content: as for `remember`.
        values: as for `remember`.

    Guarantees: of several processes that notice at once one writes; interrupted before it is
        remembered, a change is not logged twice.
    """
    with _held(memory):
        seen = _read(memory)
        after = digest(content)
        if seen.get("digest") == after:
            return None
        table, last = disclosures.Table(log.folder), _last(log, subject)
        held = table.get([last]).get(last) if last else None
        before = held.value if held else str(seen.get("digest", NOTHING))
        receipt = None
        if before != after:
            values_of = {"before": before, "after": after, "by": _account()}
            fields: dict[str, JSON] = {"subject": subject, **table.commit(values_of)}
            fields["before_commitment"] = last or fields["before_commitment"]
            fields["keys"] = list(_changed(seen.get("settings", {}), _digests(values)))
            receipt = log.append("config-changed", fields)
        remember(memory, content, values)
        return receipt


def _last(log: Log, subject: str) -> str:
    """What the log's newest entry about these settings commits to; empty if it has none."""
    last = ""
    for entry in log.entries("config-changed"):
        if entry.event.fields["subject"] == subject:
            last = str(entry.event.fields["after_commitment"])
    return last


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return tuple(names[:_MOST])


def _digests(values: Mapping[str, Any], inside: str = "") -> dict[str, str]:
    """Digest of each setting by its dotted name; a list is one setting."""
    found: dict[str, str] = {}
    for name, value in values.items():
        place = f"{inside}{name}".lower()
        if isinstance(value, Mapping):
            found |= _digests(value, f"{place}.")
            continue
        try:
            SETTING.check(place, "a setting")
        except AuditError:
            continue  # no name of ours, so nothing of it is told
        found[place] = canonical.digest(json.dumps(value, sort_keys=True, default=str).encode())
    return found


def _read(memory: Path) -> dict[str, Any]:
    try:
        document = json.loads(memory.read_bytes())
        good = document["format"] == 1 and isinstance(document["settings"], dict)
        return dict(document) if good and canonical.is_digest(document["digest"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # it only helps to name settings; the log itself says what came before


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


@contextmanager
def _held(memory: Path) -> Iterator[None]:
    try:
        memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(memory.with_name(memory.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise AuditError(
            f"{memory.parent} cannot be written ({error.strerror}); correct its permissions",
            code="settings-unwritable",
            exit_code=2,
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
