"""FHIR R4 resources and bundles: elements by what the standard says that they are.

HumanName, Address, ContactPoint, Identifier, every date, references, narrative and attachments
have rules; codes and their displays stay; everything else is text (FHIR R4, chapter 2.24).
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from client import columns, form_json, forms
from client.form_json import Leaf
from client.forms import ATTACHMENT, REFERENCE, TEXT, Cell, Form, FormError

_DATE: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?")
_LINK: Final = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)/([A-Za-z0-9.\-]{1,64})(/_history/.*)?|"
                          r"urn:(?:uuid|oid):(.+)|#(.+)", re.DOTALL)  # fmt: skip
_PEOPLE: Final = {"Patient", "Practitioner", "RelatedPerson", "Person", "PractitionerRole"}
_HOUSES: Final = {"Organization", "Location", "HealthcareService", "Endpoint"}
# Elements that hold a code or an address of a definition, never a person's own words.
_CODED: Final = frozenset(
    {
        "resourceType", "code", "system", "version", "status", "use", "gender", "unit", "language",
        "profile", "type", "mode", "intent", "priority", "severity", "criticality",
        "verificationStatus", "clinicalStatus", "currency", "contentType", "rank", "linkId",
        "comparator", "operator", "method", "versionId", "country", "state", "prefix", "suffix",
        "verification",
    }
)  # fmt: skip
_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/%{}\[\]()#|*^'?=&+\-]{0,200}")
_REMOVED: Final = base64.b64encode(b"removed").decode()


def looks_like(tree: Any) -> bool:
    """Say whether parsed JSON is a FHIR resource."""
    return isinstance(tree, dict) and isinstance(tree.get("resourceType"), str)


def read(source: str, *, tree: Any = None) -> Form:
    """Read one resource or bundle.

    Raises:
        FormError: not-json, not-fhir, too-large, or too-deep.
    """
    tree = form_json.parse(source) if tree is None else tree
    if not looks_like(tree):
        raise FormError("not-fhir")
    return forms.form(source, _cells(source, tree), _person(tree))


def _person(tree: Mapping[str, Any]) -> str | None:
    """The one patient of a resource or bundle; None where there are several or none."""
    found: set[str] = set()

    def look(value: Any, depth: int) -> None:
        if depth > forms.MAX_DEPTH:
            raise FormError("too-deep")
        if isinstance(value, list):
            for item in value:
                look(item, depth + 1)
        elif isinstance(value, dict):
            if value.get("resourceType") == "Patient" and isinstance(value.get("id"), str):
                found.add(value["id"])
            link = value.get("reference")
            match = _LINK.fullmatch(link) if isinstance(link, str) else None
            if match is not None and match[1] == "Patient":
                found.add(match[2])
            for item in value.values():
                look(item, depth + 1)

    look(tree, 0)
    return found.pop() if len(found) == 1 else None


def _cells(source: str, tree: Any) -> Iterator[Cell]:
    groups: dict[form_json.Path, int] = {}
    for leaf in form_json.leaves(source, tree):
        if leaf.key or not leaf.text.strip():
            if leaf.key:
                yield leaf.cell(TEXT)
            continue
        cell = _cell(leaf, groups)
        if cell is not None:
            yield cell


def _cell(leaf: Leaf, groups: dict[form_json.Path, int]) -> Cell | None:
    name, holder, parent = leaf.name, _holder(leaf), leaf.parent
    if isinstance(parent, list):
        parent = {}
    if leaf.number:
        near = name in {"latitude", "longitude"} and holder == "position"
        old = name == "value" and holder.endswith("Age")
        return leaf.cell("COORDINATE" if near else "AGE") if near or old else None
    if name in {"family", "given"} and holder in {"name", "maidenName"}:
        # Given names stand in a list of their own, one step deeper than the family name.
        spot = leaf.path[: -1 if leaf.path[-1] == name else -2]
        group = groups.setdefault(spot, len(groups) + 1)
        return leaf.cell("PERSON", group=group, part=name)
    if name == "div" and holder == "text":
        return leaf.cell(TEXT, encode=_narrative)
    if name in {"data", "payload"} and "contentType" in parent and isinstance(leaf.parent, dict):
        return _attachment(leaf, str(parent["contentType"]))
    role = _role(leaf, name, holder, parent)
    return None if role is None else leaf.cell(role)


def _holder(leaf: Leaf) -> str:
    names = leaf.names
    return names[-2] if len(names) > 1 else ""


def _role(leaf: Leaf, name: str, holder: str, parent: Mapping[str, Any]) -> str | None:
    text = leaf.text
    if name == "reference" or (name == "id" and "resourceType" in parent) or name == "fullUrl":
        return REFERENCE
    if holder == "address" and name in {"line", "city", "district", "postalCode", "text"}:
        return "LOCATION" if name in {"city", "district"} else "ADDRESS"
    if holder == "name" and name == "text":
        return "PERSON"
    if name == "value" and holder == "telecom":
        return _contact(text, str(parent.get("system", "")))
    if name == "value" and holder == "identifier":
        kind = f"{parent.get('system', '')} {json.dumps(parent.get('type', ''))}".lower()
        national = re.search(r'ssn|"ss"|passport|"ppn"|"dl"|national|身份证', kind)
        return "NATIONAL_ID" if national else "RECORD_NUMBER"
    if name in {"valueIdentifier", "implicitRules"}:
        return TEXT
    if _DATE.fullmatch(text) and (len(text) > 4 or "ate" in name or name in {"start", "end"}):
        return "DATE_TIME"
    if name == "display":
        if holder == "coding" or "code" in parent:
            return None
        link = _LINK.fullmatch(str(parent.get("reference", "")))
        kind = link[1] if link else str(parent.get("type", ""))
        return "PERSON" if kind in _PEOPLE else "ORGANIZATION" if kind in _HOUSES else TEXT
    if name == "name" and parent.get("resourceType") in _HOUSES:
        return "ORGANIZATION"
    if name == "url" and ("contentType" in parent or holder in {"photo", "attachment"}):
        return "URL"
    if name in {"authorString", "recipientName"}:
        return "PERSON"
    if name in {"url", "system", "profile"} and not re.search(r"/(Patient|Person)/|@", text):
        return None
    if name in _CODED and _CODE.fullmatch(text):
        return None
    return columns.cell_role(columns.role(name), text) if name in {"ssn", "mrn"} else TEXT


def _contact(text: str, system: str) -> str:
    if system == "email" or "@" in text:
        return "EMAIL_ADDRESS"
    if system == "url" or "://" in text:
        return "URL"
    return "PHONE_NUMBER" if any(c.isdigit() for c in text) else "RECORD_NUMBER"


def _attachment(leaf: Leaf, kind: str) -> Cell:
    """Text in an attachment is read; a scan or a picture is taken out."""
    plain = kind.partition(";")[0].strip().lower()
    if plain in {"text/plain", "text/html", "text/markdown", "text/xml", "application/xml"}:
        try:
            text = base64.b64decode(leaf.text, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            text = ""
        if text:
            spread = (leaf.start,) * len(text) + (leaf.end,)
            where = leaf.cell(TEXT).where
            return Cell(leaf.start, leaf.end, text, TEXT, where, _write_attachment, spread)
    return leaf.cell(ATTACHMENT, encode=lambda _: json.dumps(_REMOVED))


def _write_attachment(value: str) -> str:
    return json.dumps(base64.b64encode(value.encode()).decode())


def _narrative(value: str) -> str:
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in value.splitlines() if line.strip())
    inside = lines or "<p>removed</p>"
    return json.dumps(f'<div xmlns="http://www.w3.org/1999/xhtml">{inside}</div>',
                      ensure_ascii=False)  # fmt: skip


def link(text: str) -> tuple[str, str, str] | None:
    """Divide a reference into what stays, the id, and what stays after it; None if it is none.

    An address of a server before the resource's type goes: it names the institution.
    """
    match = _LINK.fullmatch(text)
    if match is None:
        return ("", text, "") if re.fullmatch(r"[A-Za-z0-9.\-]{1,64}", text) else None
    if match[2] is not None:
        return f"{match[1]}/", match[2], ""
    at = text.index("#") + 1 if match[5] is not None else text.rindex(":") + 1
    return text[:at], text[at:], ""
