"""HL7 version 2 messages by segment, field, component and subcomponent (chapters 2A and 3 to 9).

Which field is a name, an address, a telephone, an identifier or a date follows version 2.8; older
versions have the same fields at the same places. Whatever a table here does not name is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from client import forms
from client.forms import TEXT, Cell, Form, FormError

_SEGMENT: Final = re.compile(r"[^\r\n\x0b\x1c]+")
_HEAD: Final = re.compile(r"\s*[\x0b]?(?:MSH|FHS|BHS)[^\w\s]")
_BODY: Final = re.compile(r"\s*(?:PID|NK1|PV1|OBX|NTE|OBR|GT1|IN1|DG1|AL1|EVN|ORC|MRG)\|")
_NAME: Final = re.compile(r"[A-Z][A-Z0-9]{2}")
_CODE: Final = re.compile(r"[A-Z]{1,3}\d?")
_FREE: Final = "FT"  # where three capitals may be a name and not a code

# What stands in each component of a data type; "" stays as it is.
_FAMILY, _GIVEN = "family", "given"
_PERSON: Final = {1: _FAMILY, 2: _GIVEN, 3: _GIVEN, 4: "", 5: "", 6: "", 7: "", 8: ""}
TYPES: Final[dict[str, dict[int, str]]] = {
    "XPN": _PERSON,
    "XCN": {1: "RECORD_NUMBER", 2: _FAMILY, 3: _GIVEN, 4: _GIVEN}
           | dict.fromkeys((5, 6, 7, 8, 9, 10, 13), ""),
    "XAD": {1: "ADDRESS", 2: "ADDRESS", 3: "LOCATION", 4: "", 5: "ADDRESS", 6: "", 7: "",
            8: "LOCATION", 9: "LOCATION", 10: "ADDRESS"},
    "XTN": {1: "PHONE_NUMBER", 2: "", 3: "", 4: "EMAIL_ADDRESS", 5: "", 6: "PHONE_NUMBER",
            7: "PHONE_NUMBER", 8: "PHONE_NUMBER", 9: TEXT, 12: "PHONE_NUMBER"},
    "CX": {1: "RECORD_NUMBER", 2: "RECORD_NUMBER", 3: "", 4: "", 5: "", 7: "DATE_TIME",
           8: "DATE_TIME"},
    "EI": {1: "RECORD_NUMBER", 2: "", 3: "", 4: ""},
    "XON": {1: "ORGANIZATION", 2: "", 3: "RECORD_NUMBER", 7: "", 10: "RECORD_NUMBER"},
    "HD": {1: "ORGANIZATION", 2: "", 3: ""},
    "PL": {1: "", 2: "", 3: "", 4: "ORGANIZATION", 5: "", 6: "", 7: "", 8: ""},
    "TS": {1: "DATE_TIME", 2: ""},
    "DLN": {1: "NATIONAL_ID", 2: "", 3: "DATE_TIME"},
    "SSN": {1: "NATIONAL_ID"},
    "ID": {1: "RECORD_NUMBER"},
    "ORG": {1: "ORGANIZATION"},
    "PLACE": {1: "LOCATION"},
    "NDL": {1: "XCN&", 2: "DATE_TIME", 3: "DATE_TIME", 7: "ORGANIZATION"},
    "ED": {1: "", 2: "", 3: "", 4: "", 5: forms.ATTACHMENT},
    "CODE": {},
}  # fmt: skip
TYPES["DT"] = TYPES["DTM"] = TYPES["TS"]
TYPES["XCN&"] = TYPES["XCN"]
TYPES["CODE"] = dict.fromkeys(range(1, 30), "")


def _fields(text: str) -> dict[int, str]:
    """Read "CX 2 3 4; XPN 5 9" as {2: "CX", ...}."""
    pairs = (part.split() for part in text.split(";"))
    return {int(number): kind for kind, *numbers in pairs for number in numbers}


SEGMENTS: Final = {
    name: _fields(text)
    for name, text in {
        "MSH": "HD 4 6; TS 7; EI 10; CODE 3 5 9 11 12 15 16 17 18 19 20 21",
        "FHS": "HD 4 6; TS 7; ID 9 11 12", "BHS": "HD 4 6; TS 7; ID 9 11 12",
        "EVN": "TS 2 3 6; XCN 5; HD 7; CODE 1 4",
        "PID": "CX 2 3 4 18 21; XPN 5 6 9; TS 7 29 33; XAD 11; PLACE 12 23; XTN 13 14 40; SSN 19; "
               "DLN 20; HD 34; CODE 1 8 10 15 16 17 22 24 25 26 27 28 30 31 32 35 36",
        "PD1": "XON 3; XCN 4; CODE 1 2 5 6 7 11 12 15; TS 13 17 18",
        "NK1": "XPN 2 26 30; XAD 4 32; XTN 5 6 31; TS 8 9 16; CX 12 33; XON 13; SSN 37; PLACE 38; "
               "CODE 1 3 7 14 15 17 18 19 20 21 22 23 24 25 27 28 29 34 35 36",
        "PV1": "PL 3 6 11 42 43; CX 5 19 50; XCN 7 8 9 17 52; TS 25 44 45; ID 29; "
               "CODE 1 2 4 10 12 13 14 15 16 18 20 36 37 41",
        "PV2": "PL 1; TS 8 9 14 17 26 28 33; XCN 13; XON 23",
        "GT1": "CX 2 19; XPN 3 4 16 42 45; XAD 5 17; XTN 6 7 18 46; TS 8 13 14; SSN 12; XON 21 51; "
               "CODE 1 9 10 11 15 20",
        "IN1": "CX 3 49; XON 4 9; XAD 5 19 44; XPN 6 16; XTN 7; ID 8 14 36; CODE 1 2 15 17 31 43; "
               "TS 12 13 18 24 26 29; XON 11; XCN 30",
        "IN2": "CX 1 6 8 10 61; SSN 2; XCN 3 4; XPN 7 9 22 40 49 52; XTN 58 63 64; XAD 44 69 70",
        "MRG": "CX 1 2 3 4 5 6; XPN 7",
        "ORC": "EI 2 3 4 8; TS 9 15 27; XCN 10 11 12 19; PL 13; XTN 14 23; XON 21; XAD 22 24; "
               "CODE 1 5 6 7",
        "OBR": "EI 2 3; TS 6 7 8 14 22 36; XCN 10 16 28; XTN 17; NDL 32 33 34 35; ID 18 19 20 21; "
               "CODE 1 4 11 24 25",
        "OBX": "TS 12 14 19; XCN 16 25; EI 18 21; XON 23; XAD 24; CODE 1 2 3 6 8 11",
        "NTE": "CODE 1 2; XCN 5; TS 6 7 8", "DG1": "TS 5 19 24; XCN 16; EI 20; CODE 1 2 3 6",
        "AL1": "CODE 1 2 4; TS 6", "PR1": "TS 5; XCN 8 11 12; CODE 1 2 3",
        "TXA": "TS 4 6 7 8 22; XCN 5 9 10 11 23; EI 12 13; CODE 1 2 3 17 18 19",
        "ROL": "EI 1; XCN 4; TS 5 6; XAD 11; XTN 12; PL 13", "SPM": "EI 2 3; TS 17 18; CODE 1 4",
        "SCH": "EI 1 2; XCN 12 16 20; XTN 13 17 21; XAD 14 18; PL 15 19 22; TS 11",
        "FT1": "CX 2; TS 4 5; XCN 20 21; PL 16; EI 23; CODE 1 6 7",
        "ACC": "TS 1; XAD 11; XCN 7; PLACE 3", "STF": "CX 2; XPN 3; TS 6 12 13; XTN 10; XAD 11",
        "PRT": "XCN 5; XPN 6; XON 8; PL 9; TS 11 12; XAD 14; XTN 15",
    }.items()
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Marks:
    """The characters that a message divides itself with."""

    field: str = "|"
    component: str = "^"
    repeat: str = "~"
    escape: str = "\\"
    part: str = "&"

    def decode(self, raw: str, start: int) -> tuple[str, tuple[int, ...] | None]:
        """Undo the escapes of 2.7; also say where each character stands in the source."""
        if self.escape not in raw:
            return raw, None
        e = re.escape(self.escape)
        letters = {"F": self.field, "S": self.component, "R": self.repeat, "E": self.escape,
                   "T": self.part, ".br": "\n", ".sp": "\n", "H": "", "N": ""}  # fmt: skip
        out: list[str] = []
        offsets: list[int] = []
        for match in re.finditer(rf"{e}([A-Za-z.][^{e}]{{0,64}}){e}|.", raw, re.DOTALL):
            code, text = match[1], match.group()
            if code is not None:
                text = letters.get(code, text)
                if code[0] == "X" and re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", code):
                    text = bytes.fromhex(code[1:]).decode("utf-8", "replace")
            out.append(text)
            offsets += [start + match.start()] * len(text)
        return "".join(out), (*offsets, start + len(raw))

    def encode(self, value: str) -> str:
        """Write a value so that it divides nothing."""
        e = self.escape
        codes = {self.field: "F", self.component: "S", self.repeat: "R", e: "E", self.part: "T",
                 "\n": ".br", "\r": ".br"}  # fmt: skip
        value = value.replace("\r\n", "\n")
        return "".join(f"{e}{codes[c]}{e}" if c in codes else c for c in value)


def looks_like(text: str) -> bool:
    """Say whether a text is an HL7 message, or segments of one."""
    return _HEAD.match(text) is not None or _BODY.match(text) is not None


def read(source: str) -> Form:
    """Read one message, or a file of several.

    Raises:
        FormError: not-hl7, or too-large.
    """
    if not len(source) <= forms.MAX_CHARACTERS:
        raise FormError("too-large")
    if not looks_like(source):
        raise FormError("not-hl7")
    return forms.form(source, _cells(source), next(iter(persons(source)), None))


def messages(source: str) -> Iterator[str]:
    """Divide a file into messages, each beginning with its header; nothing is left out."""
    starts = [match.start() for match in re.finditer(r"(?m)^\x0b?MSH", source.replace("\r", "\n"))]
    for start, end in zip([0, *starts[1:]], [*starts[1:], len(source)], strict=True):
        yield source[start:end]


def persons(source: str) -> tuple[str, ...]:
    """The patients of a message by the first id of each PID-3, in order, each once."""
    head = re.search(r"(?:^|[\r\n\x0b])(?:MSH|FHS|BHS)([^\r\n]{5})", source)
    field, component, repeat, _, part = tuple(head[1] if head else "|^~\\&")
    found: dict[str, None] = {}
    for match in re.finditer(r"(?:^|[\r\n])PID(\W[^\r\n]*)", source):
        ids = match[1].split(field if head else match[1][0])
        first = re.split(
            f"[{re.escape(component + repeat + part)}]", ids[3] if len(ids) > 3 else ""
        )
        if key := first[0].strip():
            found[key] = None
    return tuple(found)


def _cells(source: str) -> Iterator[Cell]:
    marks, groups = _Marks(), iter(range(1, forms.MAX_CELLS + 2))
    for match in _SEGMENT.finditer(source):
        text, at = match.group(), match.start()
        lead = len(text) - len(text.lstrip())
        text, at = text[lead:], at + lead
        name = text[:3]
        if not _NAME.fullmatch(name) or (text[3:4] not in {marks.field, ""} and name != "MSH"):
            # A line that is no segment: the rest of a note that was broken over lines.
            yield Cell(at, at + len(text), text, TEXT, "line", encode=marks.encode)
            continue
        first = 1
        if name in {"MSH", "FHS", "BHS"}:
            if len(text) < 8:
                raise FormError("not-hl7")
            marks = _Marks(*text[3:5], *text[5:8])
            first = 2
        yield from _segment(text, at, name, marks, first, lambda: next(groups))


def _segment(
    text: str, at: int, name: str, marks: _Marks, first: int, group: Callable[[], int]
) -> Iterator[Cell]:
    table = SEGMENTS.get(name, {})
    raws = text.split(marks.field)
    value_type = raws[2] if name == "OBX" and len(raws) > 2 else ""
    place = at + len(raws[0]) + 1
    for number, raw in enumerate(raws[1:], start=first):
        kind = table.get(number, "")
        if name == "OBX" and number == 5:
            kind = value_type if value_type in TYPES and value_type != "CODE" else _FREE
        elif not table or (name == "NTE" and number == 3):
            kind = _FREE
        if not (first == 2 and number == 2):  # MSH-2 are the marks themselves
            spot = place
            for one in raw.split(marks.repeat):
                yield from _field(one, spot, f"{name}-{number}", kind, marks, group)
                spot += len(one) + 1
        place += len(raw) + 1


def _field(
    raw: str, at: int, where: str, kind: str, marks: _Marks, group: Callable[[], int]
) -> Iterator[Cell]:
    table = TYPES.get(kind)
    mine = group()
    parts = raw.split(marks.component)
    typed = parts[4:5] == ["SS"] if kind == "CX" else False
    for number, component in enumerate(parts, start=1):
        role = TEXT if table is None else table.get(number, TEXT)
        spot = at
        for sub in component.split(marks.part):
            value, offsets = marks.decode(sub, spot)
            person = role in {_FAMILY, _GIVEN}
            said = "PERSON" if person else role
            if said == "RECORD_NUMBER" and typed:
                said = "NATIONAL_ID"
            if said == "PHONE_NUMBER" and "@" in value:
                said = "EMAIL_ADDRESS"
            if said == TEXT and kind != _FREE and _CODE.fullmatch(value):
                said = ""
            if said and value.strip() and value != '""':
                yield Cell(
                    spot, spot + len(sub), value, said, f"{where}.{number}", marks.encode, offsets,
                    mine if person else 0, role if person else "",
                )  # fmt: skip
            spot += len(sub) + 1
        at += len(component) + 1
