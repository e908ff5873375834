"""Entries in the forms that other systems take: FHIR AuditEvent, OCSF, CSV.

Copies for a hospital's audit repository, a bank's event store or a spreadsheet. They carry each
entry's place and leaf hash, by which it is found and checked in the bundle; they are no evidence by
themselves.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from audit.errors import AuditError
from audit.events import PREDICATE_BASE, PREDICATE_VERSION
from audit.stored import Record

_COLUMNS = ("entry", "time", "emitter", "kind", "run", "round", "facts", "problem", "leaf")
_PLACES = PREDICATE_BASE.replace("predicates", "entries").rstrip("/")
_OCSF_VERSION = "1.3.0"
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(records: Iterable[Record], form: str, out: Path) -> int:
    """Write entries to a file, which appears whole or not at all.

    Args:
        records: the entries, in the order in which they are to be written.
        form: one of `FORMS`.
        out: the file; an existing one is replaced.

    Returns:
        How many entries were written.

    Raises:
        AuditError: exit code 2; no such form, or the file cannot be written.
    """
    if form not in FORMS:
        raise AuditError(
            f"there is no form {form[:32]!r}; the forms are {', '.join(FORMS)}",
            code="no-such-form",
            exit_code=2,
        )
    count = 0
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")

    def counted() -> Iterator[Record]:
        nonlocal count
        for count, record in enumerate(records, start=1):  # noqa: B007 - counted as it goes
            yield record

    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            for line in FORMS[form](counted()):
                stream.write(line)
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise AuditError(
            f"{out} cannot be written ({error.strerror}); choose another place",
            code="unwritable",
            exit_code=2,
        ) from None
    return count


def fhir(record: Record) -> dict[str, Any]:
    """Return an entry as an HL7 FHIR R4 AuditEvent resource."""
    event, problem = record.entry.event, record.entry.problem
    details = {"leaf": "sha256:" + record.leaf.hex(), "facts": record.entry.facts}
    details |= {} if event.run is None else {"run": event.run}
    details |= {} if event.round is None else {"round": str(event.round)}
    resource: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": record.leaf.hex(),
        "type": {
            "system": "http://dicom.nema.org/resources/ontology/DCM",
            "code": "110100",
            "display": "Application Activity",
        },
        "subtype": [{"system": PREDICATE_BASE.rstrip("/"), "code": event.kind}],
        "action": "E",
        "recorded": _instant(record),
        "outcome": "4" if problem else "0",
        "agent": [{"who": {"identifier": {"value": event.emitter}}, "requestor": True}],
        "source": {"observer": {"identifier": {"value": event.origin}}},
        "entity": [
            {
                "what": {"identifier": {"system": _PLACES, "value": record.place}},
                "detail": [
                    {"type": name, "valueString": value} for name, value in details.items() if value
                ],
            }
        ],
    }
    if problem:
        resource["outcomeDesc"] = problem
    return resource


def ocsf(record: Record) -> dict[str, Any]:
    """Return an entry as an Open Cybersecurity Schema Framework base event."""
    event, problem = record.entry.event, record.entry.problem
    return {
        "category_uid": 0,
        "category_name": "Uncategorized",
        "class_uid": 0,
        "class_name": "Base Event",
        "activity_id": 99,
        "activity_name": event.kind,
        "type_uid": 99,
        "time": round(event.time.timestamp() * 1000),
        "severity_id": 3 if problem else 1,
        "severity": "Medium" if problem else "Informational",
        "status_id": 2 if problem else 1,
        "status": "Failure" if problem else "Success",
        "message": problem or f"{event.kind} {record.entry.facts}".strip(),
        "metadata": {
            "version": _OCSF_VERSION,
            "uid": record.leaf.hex(),
            "log_name": event.origin,
            "sequence": record.entry.index,
            "product": {"name": "Privity", "vendor_name": "Privity"},
        },
        "unmapped": {
            "entry": record.place,
            "emitter": event.emitter,
            "run": event.run,
            "round": event.round,
            "predicate_type": f"{PREDICATE_BASE}{event.kind}/{PREDICATE_VERSION}",
            "fields": event.fields,
        },
    }


def _csv(records: Iterable[Record]) -> Iterator[str]:
    yield _line(_COLUMNS)
    for record in records:
        entry, event = record.entry, record.entry.event
        yield _line(
            (
                record.place,
                _instant(record),
                event.emitter,
                event.kind,
                event.run or "",
                "" if event.round is None else str(event.round),
                entry.facts,
                entry.problem,
                "sha256:" + record.leaf.hex(),
            )
        )


def _line(cells: Iterable[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerow(
        [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
    )
    return stream.getvalue()


def _objects(make: Callable[[Record], dict[str, Any]]) -> Callable[[Iterable[Record]], Any]:
    """One JSON object a line."""
    return lambda records: (json.dumps(make(record)) + "\n" for record in records)


def _instant(record: Record) -> str:
    return record.entry.event.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


FORMS: Mapping[str, Callable[[Iterable[Record]], Iterator[str]]] = {
    "fhir": _objects(fhir),
    "ocsf": _objects(ocsf),
    "csv": _csv,
}
