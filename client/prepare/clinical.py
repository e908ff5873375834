"""HL7 v2 messages and FHIR resources as records: the report is asked about, its conclusion answers.

What the message says about people (names, numbers, addresses, telephones, birth dates) goes along
as columns, so that the scrub knows what to look for in the texts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from client import form_fhir, form_hl7
from client.forms import TEXT, Cell, FormError
from client.records import Row
from configs.prepare import ClinicalTable

_COLUMNS: Final = {
    "PERSON": "name", "RECORD_NUMBER": "record_number", "NATIONAL_ID": "national_id",
    "PHONE_NUMBER": "phone", "EMAIL_ADDRESS": "email", "ADDRESS": "address",
    "DATE_TIME": "birth_date",
}  # fmt: skip
_BORN: Final = ("PID-7", "birthDate")
_MOST: Final = 32


def hl7(source: str, table: ClinicalTable, person_column: str) -> Iterator[Row]:
    """Yield one row a message, from 1; one without report or answer, or of several, is a fault."""
    for number, message in enumerate(form_hl7.messages(source), start=1):
        try:
            form = form_hl7.read(message)
        except FormError as bad:
            yield Row(number, None, bad.code)
            continue
        if len(form_hl7.persons(message)) > 1:
            yield Row(number, None, "several-persons")
            continue
        texts = [cell for cell in form.cells if cell.role == TEXT]
        report = [_observed(message, cell) for cell in texts if _under(cell, table.hl7_ask)]
        answer = [cell.text for cell in texts if _under(cell, table.hl7_answer)]
        if not report or not answer:
            yield Row(number, None, "no-response" if report else "no-instruction")
            continue
        yield Row(number, _row(form.person, person_column, table.question, report, answer)
                  | _known(form.cells))  # fmt: skip


def fhir(trees: Iterable[Any], table: ClinicalTable, person_column: str) -> Iterator[Row]:
    """Yield one row for each resource that holds an answer, numbered as the resources stand.

    Args:
        trees: resources or bundles; references between them are followed.
        table: which elements are the answer.
        person_column: gets the patient's id.
    """
    resources: list[Any] = []
    urls: dict[str, str] = {}  # in a bundle, "urn:uuid:…" may stand for a resource
    named: dict[str, Any] = {}
    for tree in trees:
        bundle = isinstance(tree, dict) and isinstance(tree.get("entry"), list)
        for entry in tree["entry"] if bundle else ({"resource": tree},):
            resource: Any = entry.get("resource") if isinstance(entry, dict) else None
            resources.append(resource)
            if form_fhir.looks_like(resource):
                url = str(entry.get("fullUrl", ""))
                name = f"{resource['resourceType']}/{resource.get('id') or url.rpartition(':')[2]}"
                named[name] = resource
                if url:  # else a reference to nothing would be one to this
                    urls[url] = name
    known: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for name, resource in named.items():
        if name.startswith("Patient/"):
            with suppress(FormError):  # a fault below
                known[name] = _known(form_fhir.read(json.dumps(resource)).cells)
    for number, resource in enumerate(resources, start=1):
        if not form_fhir.looks_like(resource):
            yield Row(number, None, "not-object")
            continue
        try:
            cells = form_fhir.read(json.dumps(resource, ensure_ascii=False)).cells
        except FormError as bad:
            yield Row(number, None, bad.code)
            continue
        texts = [cell for cell in cells if cell.role == TEXT]
        answer = [cell.text for cell in texts if _last(cell) in table.fhir_answer]
        if resource["resourceType"] == "Patient" or not answer:
            continue  # what others refer to; it asks nothing by itself
        patient = _patient(resource, urls)
        asked = [_title(resource)] if _title(resource) else []
        links = resource.get("result")
        links = links if isinstance(links, list) else []
        parts = [named[name] for link in links if (name := _target(link, urls)) in named]
        if any(_patient(part, urls) not in ("", patient) for part in parts):
            yield Row(number, None, "several-persons")
            continue
        asked += map(_measured, parts)
        asked += [c.text for c in texts if _last(c) not in (*table.fhir_answer, "text", "display")]
        asked = [line for line in asked if line.strip()]
        if not asked:
            yield Row(number, None, "no-instruction")
            continue
        person = patient.partition("/")[2] or None
        yield Row(number, _row(person, person_column, table.question, asked, answer)
                  | known.get(patient, {}))  # fmt: skip


def _row(
    person: str | None, column: str, question: str, report: Sequence[str], answer: Sequence[str]
) -> dict[str, Any]:
    text = "\n".join(report)
    row = {"instruction": f"{question}\n\n{text}", "response": "\n".join(answer)}
    return row if person is None else {column: person, **row}


def _under(cell: Cell, places: Iterable[str]) -> bool:
    return any(cell.where == place or cell.where.startswith(f"{place}.") for place in places)


def _observed(message: str, cell: Cell) -> str:
    """The text of an OBX-5 with the observation's name before it and its unit after it."""
    start = max(message.rfind("\r", 0, cell.start), message.rfind("\n", 0, cell.start)) + 1
    fields = message[start : cell.start].split(message[3:4])
    ends = [at for at in (message.find("\r", cell.end), message.find("\n", cell.end)) if at >= 0]
    after = message[cell.end : min(ends, default=len(message))].split(message[3:4])
    if fields[0] != "OBX" or len(fields) != 6:
        return cell.text
    parts = fields[3].split(message[4:5])
    name = next((part for part in parts[1:2] + parts[:1] if part), "")
    unit = after[1].split(message[4:5])[0] if len(after) > 1 else ""
    return " ".join(part for part in (f"{name}:" if name else "", cell.text, unit) if part)


def _known(cells: Iterable[Cell]) -> dict[str, list[str]]:
    """Columns that name people, from the cells whose schema says what they are."""
    found: dict[str, list[str]] = defaultdict(list)
    names: dict[int, dict[str, str]] = defaultdict(dict)
    for cell in cells:
        if cell.role == "PERSON" and cell.group:
            parts = names[cell.group]
            parts[cell.part] = (
                f"{parts[cell.part]} {cell.text}" if cell.part in parts else cell.text
            )
        elif cell.role == "DATE_TIME" and not cell.where.startswith(_BORN):
            continue
        elif cell.role in _COLUMNS:
            found[_COLUMNS[cell.role]].append(cell.text)
    for parts in names.values():
        whole = " ".join(parts[part] for part in ("given", "family") if part in parts)
        found["name"].append(whole)
    return {name: list(dict.fromkeys(values))[:_MOST] for name, values in found.items()}


def _last(cell: Cell) -> str:
    return cell.where.rsplit(".", 1)[-1]


def _title(resource: Mapping[str, Any]) -> str:
    code = resource.get("code")
    if not isinstance(code, Mapping):
        return ""
    if isinstance(code.get("text"), str):
        return str(code["text"])
    codings = [c for c in code.get("coding") or () if isinstance(c, Mapping)]
    return next((str(c["display"]) for c in codings if isinstance(c.get("display"), str)), "")


def _measured(resource: Mapping[str, Any]) -> str:
    value = resource.get("valueQuantity")
    shown = resource.get("valueString", "")
    if isinstance(value, Mapping):
        shown = f"{value.get('value', '')} {value.get('unit', '')}".strip()
    return f"{_title(resource)}: {shown}" if shown else ""


def _patient(resource: Mapping[str, Any], urls: Mapping[str, str]) -> str:
    for name in ("subject", "patient"):
        target = _target(resource.get(name), urls)
        if target.startswith("urn:"):  # of a patient who is not in this file
            return f"Patient/{target.rpartition(':')[2]}"
        if target.startswith("Patient/"):
            return target
    return ""


def _target(link: Any, urls: Mapping[str, str]) -> str:
    """What a reference points to, as "Type/id", or as the URN that nothing here has."""
    said = link.get("reference") if isinstance(link, Mapping) else None
    if not isinstance(said, str):
        return ""
    return "/".join(urls.get(said, said).partition("/_history/")[0].split("/")[-2:])
