"""Incidents in a party's log: what went wrong, how bad it is, and whether it is over.

The log holds a category of a fixed list, a severity and perhaps a ticket's number; words that may
name a person are a salted commitment, with the words in the log's erasable table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from audit import disclosures, wording
from audit.canonical import JSON
from audit.errors import AuditError, InconsistentLog
from audit.log import Log, Receipt

CATEGORIES = wording.INCIDENTS
SEVERITIES = ("low", "medium", "high")


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident as a log has it.

    Attributes:
        entry: index of the entry that opened it; this is its id within the log.
        code: its category, of `CATEGORIES`.
        severity: low, medium or high.
        reference: a ticket's number, or empty.
        opened: when it was opened, by the log's clock.
        closed: index of the entry that closed it; None while it is open.
    """

    entry: int
    code: str
    severity: str
    reference: str
    opened: datetime
    closed: int | None


def listed(log: Log) -> tuple[Incident, ...]:
    """Every incident of a log, oldest first."""
    entries = list(log.entries("incident"))
    ended = {
        entry.event.fields.get("opened"): entry.index
        for entry in entries
        if entry.event.fields["state"] == "closed"
    }
    return tuple(
        Incident(
            entry.index,
            fields["code"],
            fields["severity"],
            fields.get("reference", ""),
            entry.event.time,
            ended.get(entry.index),
        )
        for entry in entries
        for fields in (entry.event.fields,)
        if fields["state"] == "opened"
    )


def record(
    log: Log, code: str, severity: str, *, reference: str = "", description: str = ""
) -> Receipt:
    """Open an incident.

    Args:
        log: the party's log.
        code: of `CATEGORIES`.
        severity: of `SEVERITIES`.
        reference: a ticket's number, such as INC-2041.
        description: in words; kept beside the log, where it can be erased.

    Raises:
        AuditError: exit code 2; no such category or severity, or the reference is no number.
    """
    if code not in CATEGORIES or severity not in SEVERITIES:
        raise AuditError(
            f"an incident's category is one of {', '.join(CATEGORIES)}, and its severity one of "
            f"{', '.join(SEVERITIES)}",
            code="bad-incident",
            exit_code=2,
        )
    return _append(log, code, severity, "opened", reference, description)


def raised(log: Log, code: str, severity: str) -> Receipt | None:
    """Open an incident that the software found; None if one of that category is open already."""
    if any(item.code == code and item.closed is None for item in listed(log)):
        return None
    return _append(log, code, severity, "opened", "", CATEGORIES[code])


def contradiction(log: Log, origin: str, fault: InconsistentLog) -> None:
    """Log both notes of a party whose log contradicts itself, once, and open an incident."""
    said = {
        (entry.event.fields.get("older"), entry.event.fields.get("newer"))
        for entry in log.entries("witness-refused")
    }
    if (fault.older, fault.newer) not in said:
        fields: dict[str, JSON] = {"origin": origin, "reason": fault.code}
        fields |= {"older": fault.older} if fault.older else {}
        fields |= {"newer": fault.newer}
        log.append("witness-refused", fields)
    raised(log, "log-inconsistent", "high")


def close(log: Log, entry: int, *, reference: str = "", description: str = "") -> Receipt:
    """Close the incident that an entry opened.

    Raises:
        AuditError: exit code 2; that entry opened none, or it is closed already.
    """
    found = next((item for item in listed(log) if item.entry == entry), None)
    if found is None or found.closed is not None:
        open_ones = ", ".join(str(i.entry) for i in listed(log) if i.closed is None) or "none"
        raise AuditError(
            f"entry {entry} opened no incident that is still open; open ones: {open_ones}",
            code="no-incident",
            exit_code=2,
        )
    reference = reference or found.reference
    return _append(
        log, found.code, found.severity, "closed", reference, description, {"opened": entry}
    )


def _append(
    log: Log,
    code: str,
    severity: str,
    state: str,
    reference: str,
    description: str,
    more: Mapping[str, JSON] | None = None,
) -> Receipt:
    fields: dict[str, JSON] = {"code": code, "severity": severity, "state": state, **(more or {})}
    fields |= {"reference": reference} if reference else {}
    _check(fields)
    fields |= disclosures.Table(log.folder).commit({"description": description})
    return log.append("incident", fields)


def _check(fields: Mapping[str, JSON]) -> None:
    """Check the reference before its description is kept."""
    from audit.fields import TICKET

    if "reference" in fields:
        try:
            TICKET.check(fields["reference"], "the reference")
        except AuditError as error:
            raise AuditError(
                f"{error}; give the number only", code="bad-reference", exit_code=2
            ) from None
