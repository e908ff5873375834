"""Erase what a log's commitments stand for; the log says that it was done, never what it was."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from audit import disclosures, keys
from audit.canonical import JSON
from audit.errors import AuditError
from audit.log import Log

_AT_ONCE = 1000  # fields in one event


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased: (entry, field) in order, and the entries that say so."""

    fields: tuple[tuple[int, str], ...]
    logged: tuple[int, ...]


def erase(
    folder: Path,
    *,
    entries: Collection[int] = (),
    matching: str | None = None,
    reason: str,
) -> Erased:
    """Erase the values behind commitments of a party's log.

    Args:
        folder: the party's folder, with `keys/` and `log/`.
        entries: all values of these entries.
        matching: the value itself, wherever it was committed to, such as a person's account.
        reason: a short code for the log, such as `data-subject-request`.

    Guarantees: the event is durable before anything is erased, so nothing goes unsaid; interrupted
    in between, the same call erases it again.

    Raises:
        AuditError: there is nothing of the kind to erase (exit code 2), or the log cannot be used.
    """
    table = disclosures.Table(folder / "log")
    opened = Log.open(folder / "log", keys=keys.load(folder / "keys"))
    try:
        wanted = frozenset() if matching is None else table.matching(matching)
        found = [
            (entry.index, name, str(value))
            for entry in opened.entries()
            for name, value in sorted(entry.event.fields.items())
            if name.endswith(disclosures.ENDING) and (entry.index in entries or value in wanted)
        ]
        held = table.get(digest for _, _, digest in found)
        found = [item for item in found if item[2] in held]
        orphans = wanted - {digest for _, _, digest in found}
        if not found and not orphans:
            raise AuditError(
                f"{folder} holds no value of that kind; it was erased before, or never committed",
                code="nothing-to-erase",
                exit_code=2,
            )
        logged = []
        for start in range(0, len(found), _AT_ONCE):
            erased: list[JSON] = [
                {"entry": index, "field": name.replace("_", "-")}
                for index, name, _ in found[start : start + _AT_ONCE]
            ]
            fields: dict[str, JSON] = {"erased": erased, "reason": reason}
            logged.append(opened.append("disclosure-erased", fields).index)
        table.erase([*(digest for _, _, digest in found), *orphans])
        if logged:
            opened.checkpoint()
        return Erased(tuple((index, name) for index, name, _ in found), tuple(logged))
    finally:
        opened.close()
