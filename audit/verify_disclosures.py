"""Commitments to values that may be personal: which are disclosed, redacted or withheld.

A value that was erased is redacted, and the log says so; that is no fault. A disclosure that no
commitment of the log stands for is one, and so is an erasure of what never was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from audit import disclosures
from audit.errors import AuditError
from audit.events import Event
from audit.evidence import Collector, LogView
from audit.kinds import ACCESS, BULK, KINDS
from audit.verify_conduct import cutoff

_COMMITTING = tuple(
    kind
    for kind, table in KINDS.items()
    if any(name.endswith(disclosures.ENDING) for name in table.known)
)


def check(log: LogView, shown: Sequence[str], where: str, found: Collector) -> None:
    """Check the disclosures of one log, and say what became of its commitments.

    Args:
        log: the log.
        shown: disclosures that came with the bundle.
        where: the file that they came in.
        found: takes faults and notices.
    """
    erased, ended = _erased(log, found), _ended(log)
    told = _shown(shown, where, found)
    if log.chained and not told:  # reading millions of entries again says nothing new
        kinds = [kind for kind in _COMMITTING if kind not in BULK]
    else:
        kinds = list(_COMMITTING)
    redacted = withheld = disclosed = 0
    for index, event in log.events.of(*kinds):
        for name, digest in event.fields.items():
            if not name.endswith(disclosures.ENDING):
                continue
            at = told.pop(digest, None)
            over = _is_over(ended, index, event)
            if at is not None:
                disclosed += 1
                if over or (index, name) in erased:
                    text = f"{name} of entry {index} is shown and was erased before"
                    found.add("meaning", "erased-and-shown", where, text)
                elif at != name.removesuffix(disclosures.ENDING):
                    text = f"{name} of entry {index} is disclosed under another name"
                    found.add("meaning", "disclosure-differs", where, text)
            elif (index, name) in erased:
                redacted += 1
            elif not over:
                withheld += 1
    for _ in told:
        text = f"a disclosure belongs to no entry of {log.keys.name}"
        found.add("meaning", "disclosure-unmatched", where, text)
    if redacted:
        found.notices.append(
            f"{redacted} values of {log.keys.name} are redacted: they were erased, its log says so"
        )
    for _, event in log.of("retention-pruned"):
        fields, lost = event.fields, event.fields["disclosures"]
        files, rows = fields.get("files", 0), fields.get("rows", 0)
        found.notices.append(
            f"{log.keys.name} erased what was older than {fields['before'][:10]}, when its term of "
            f"{fields['retention']} ended: {lost} values redacted, {files} files, {rows} rows"
        )
    if disclosed:
        found.notices.append(
            f"{disclosed} values of {log.keys.name} are disclosed and match, {withheld} are not "
            "in the bundle"
        )


def _erased(log: LogView, found: Collector) -> Mapping[tuple[int, str], int]:
    """Return the (entry, field) that the log says were erased, with the entry that says so."""
    erased: dict[tuple[int, str], int] = {}
    for index, event in log.of("disclosure-erased"):
        for item in event.fields["erased"]:
            entry, name = item["entry"], item["field"].replace("-", "_")
            known = entry < index and name in log.events[entry].fields
            if not known or not name.endswith(disclosures.ENDING):
                text = f"the entry erases {name} of entry {entry}, which commits to nothing such"
                found.add("meaning", "bad-erasure", log.place(index), text)
            erased[entry, name] = index
    return erased


def _ended(log: LogView) -> list[tuple[int, str, datetime]]:
    """Return (entry, class, before) of each term of retention that ended with an erasure."""
    return [
        (index, event.fields["retention"], cutoff(event))
        for index, event in log.of("retention-pruned")
    ]


def _is_over(ended: Sequence[tuple[int, str, datetime]], index: int, event: Event) -> bool:
    """Whether the values behind an entry were erased when their term ended."""
    own = "access" if event.kind in ACCESS else "evidence"
    return any(index < at and name == own and event.time < before for at, name, before in ended)


def _shown(shown: Sequence[str], where: str, found: Collector) -> dict[str, str]:
    """Return the names of the disclosed values by digest."""
    told = {}
    for text in shown:
        try:
            disclosure = disclosures.parse(text)
        except AuditError as error:
            found.add("meaning", error.code, where, str(error))
            continue
        told[disclosure.digest] = disclosure.name
    return told
