"""Names and numbers in text that is really data: JSON, XML, key=value, HL7 version 2, and paths.

Text mode only: whoever knows the fields of a record reads it by field. Here a key that says what
its value is makes the value an identifier, however little it looks like one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import regex

from privacy import names, search
from privacy.known import kind_of
from privacy.spans import Hit
from privacy.vocabulary import is_ordinary

_PAIRS: Final = (
    regex.compile(r"[\"'](?P<k>[\p{L}][\p{L}\w .\-]{0,40})[\"']\s{0,3}:\s{0,3}"
                  r"(?:[\"'](?P<v>[^\"'\n]{1,120})[\"']|(?P<v>-?\d[\d.]{3,30}))"),
    regex.compile(r"<(?P<k>[\p{L}][\w:.\-]{0,40})(?:\s[^<>]{0,200})?>(?P<v>[^<>]{1,200})</"),
    regex.compile(r"(?<![\w&])(?P<k>[\p{L}][\w.\-]{1,30})=(?P<v>[^\s=&;,\"'<>|]{2,80})"),
)  # fmt: skip
# "name" alone is a person's in a record of a person; these are not.
_THINGS: Final = regex.compile(
    r"drug|medic|test|file|product|brand|diagnos|procedure|class|type|model|event|table|column|host|"
    r"field|display|unit|program|scheme|template|form|药|检查|项目|产品|诊断|疾病|名称",
    regex.IGNORECASE,
)
_HL7: Final = regex.compile(r"(?m)^(?P<s>PID|NK1|PV1|GT1|IN1|ORC|OBR|MRG|STF|ROL)\|(?P<f>[^\r\n]*)")
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "PID": {2: "RECORD_NUMBER", 3: "RECORD_NUMBER", 4: "RECORD_NUMBER", 5: "PERSON", 6: "PERSON",
            7: "DATE_TIME", 9: "PERSON", 11: "ADDRESS", 13: "PHONE_NUMBER", 14: "PHONE_NUMBER",
            18: "RECORD_NUMBER", 19: "NATIONAL_ID", 20: "RECORD_NUMBER", 21: "RECORD_NUMBER"},
    "NK1": {2: "PERSON", 4: "ADDRESS", 5: "PHONE_NUMBER", 6: "PHONE_NUMBER", 30: "PERSON",
            31: "PHONE_NUMBER", 32: "ADDRESS", 37: "NATIONAL_ID"},
    "PV1": {7: "PERSON", 8: "PERSON", 9: "PERSON", 17: "PERSON", 19: "RECORD_NUMBER",
            50: "RECORD_NUMBER", 52: "PERSON"},
    "GT1": {2: "RECORD_NUMBER", 3: "PERSON", 4: "PERSON", 5: "ADDRESS", 6: "PHONE_NUMBER",
            7: "PHONE_NUMBER", 8: "DATE_TIME", 12: "NATIONAL_ID"},
    "IN1": {16: "PERSON", 18: "DATE_TIME", 19: "ADDRESS", 36: "RECORD_NUMBER",
            49: "RECORD_NUMBER"},
    "ORC": {2: "RECORD_NUMBER", 3: "RECORD_NUMBER", 10: "PERSON", 12: "PERSON"},
    "OBR": {2: "RECORD_NUMBER", 3: "RECORD_NUMBER", 16: "PERSON", 28: "PERSON", 32: "PERSON"},
    "MRG": {1: "RECORD_NUMBER", 7: "PERSON"},
    "STF": {3: "PERSON", 10: "PHONE_NUMBER", 11: "ADDRESS"},
    "ROL": {4: "PERSON", 11: "ADDRESS", 12: "PHONE_NUMBER"},
}  # fmt: skip
_PART: Final = regex.compile(r"[^\^~&|]+")
_PATH: Final = regex.compile(
    r"(?<![A-Za-z])(?P<one>[A-Za-z]{2,})(?P<sep>[_.\-])(?:[A-Za-z]\.?[_.\-])?(?P<two>[A-Za-z]{2,})"
    r"(?=[_.\-/\\\d]|\b)"
)


def find(text: str) -> Iterator[Hit]:
    """Yield the values whose key, field, or place in a path says that they identify someone.

    Raises:
        TimeoutError: the text is so odd that a rule takes too long over it.
    """
    for rule in _PAIRS:
        for match in search.matches(rule, text):
            key, value = match["k"], match["v"]
            kind = None if _THINGS.search(key) else kind_of(key, value)
            if kind is None or not any(c.isalnum() for c in value):
                continue
            start, end = match.span("v")
            yield Hit(start + len(value) - len(value.lstrip()), end, kind, 0.75, "key")
    if "|" in text:
        for match in search.matches(_HL7, text):
            yield from _segment(match["s"], match["f"], match.start("f"))
    if "_" in text or "/" in text or "\\" in text:
        for match in search.matches(_PATH, text):
            one, two = match["one"].casefold(), match["two"].casefold()
            given = [word in names.FEMALE or word in names.MALE for word in (one, two)]
            other = two if given[0] else one
            if (
                match["sep"] == "_"
                and any(given)
                and (all(given) or other in names.COMMON_SURNAMES or not is_ordinary(other))
            ):
                yield Hit(match.start("one"), match.end("two"), "PERSON", 0.5, "path")


def _segment(name: str, fields: str, offset: int) -> Iterator[Hit]:
    wanted = _FIELDS[name]
    at = offset
    for number, field in enumerate(fields.split("|"), start=1):
        kind = wanted.get(number)
        if kind is not None:
            for part in _PART.finditer(field):
                if sum(c.isalnum() for c in part.group()) >= 1 and (
                    len(part.group()) > 1 or kind == "PERSON"
                ):
                    yield Hit(at + part.start(), at + part.end(), kind, 0.8, "hl7")
        at += len(field) + 1
