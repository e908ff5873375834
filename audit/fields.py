"""The few types that an event's fields may have, each with its check and its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from audit import canonical, keys
from audit.canonical import JSON
from audit.errors import AuditError, EventInvalid

_DECIMAL = r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,40})?"
_TEXT = r"[A-Za-z0-9][A-Za-z0-9 ._:;,/()=+-]*"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_SHA256 = r"sha256:[0-9a-f]{64}"
_MAX_COUNT = 2**53 - 1
_MAX_ITEMS = 4096


class Type(Protocol):
    """A field's type: `check` raises or returns nothing, `schema` says the same in JSON Schema."""

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value has this type."""

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema (draft 2020-12) of this type."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text that matches a regular expression as a whole: no field takes free text."""

    pattern: str
    meaning: str
    most: int = 128
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", re.compile(self.pattern))

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value is such a text."""
        if (
            not isinstance(value, str)
            or len(value) > self.most
            or not self._compiled.fullmatch(value)
        ):
            raise EventInvalid(f"{where} is not {self.meaning}")

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema of this type."""
        return {"type": "string", "pattern": f"^(?:{self.pattern})$", "maxLength": self.most}


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number from 0 to 2**53 - 1."""

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value is such a number."""
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
            raise EventInvalid(f"{where} is not a whole number")

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema of this type."""
        return {"type": "integer", "minimum": 0, "maximum": _MAX_COUNT}


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value is one of the words."""
        if value not in self.words:
            raise EventInvalid(f"{where} is not one of {', '.join(self.words)}")

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema of this type."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of at most 4096 items of one type; `distinct` forbids equal ones."""

    item: Type
    distinct: bool = False

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value is such a list."""
        if not isinstance(value, list) or len(value) > _MAX_ITEMS:
            raise EventInvalid(f"{where} is not a list of at most {_MAX_ITEMS} items")
        for index, item in enumerate(value):
            self.item.check(item, f"{where}[{index}]")
        if self.distinct and len({canonical.encode(item) for item in value}) != len(value):
            raise EventInvalid(f"{where} names something twice")

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema of this type."""
        rest: dict[str, JSON] = {"uniqueItems": True} if self.distinct else {}
        return {"type": "array", "items": self.item.schema(), "maxItems": _MAX_ITEMS, **rest}


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object from party names to values of one type."""

    item: Type

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value is such an object."""
        if not isinstance(value, Mapping) or len(value) > _MAX_ITEMS:
            raise EventInvalid(f"{where} is not an object with at most {_MAX_ITEMS} names")
        for name, item in value.items():
            NAME.check(name, f"a name in {where}")
            self.item.check(item, f"{where}.{name}")

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema of this type."""
        return {
            "type": "object",
            "propertyNames": NAME.schema(),
            "additionalProperties": self.item.schema(),
            "maxProperties": _MAX_ITEMS,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """An object with exactly the required fields and perhaps some of the optional ones."""

    required: Mapping[str, Type]
    optional: Mapping[str, Type] = field(default_factory=dict)
    known: Mapping[str, Type] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", {**self.required, **self.optional})

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value is such an object."""
        if not isinstance(value, Mapping):
            raise EventInvalid(f"{where} is not an object")
        for name in value:
            if name not in self.known:
                raise EventInvalid(f"{where} has the unknown field {str(name)[:64]!r}; remove it")
        for name in self.required:
            if name not in value:
                raise EventInvalid(f"{where} lacks the field {name!r}; add it")
        for name, item in value.items():
            self.known[name].check(item, f"{where}.{name}")

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema of this type."""
        return {
            "type": "object",
            "properties": {name: kind.schema() for name, kind in sorted(self.known.items())},
            "required": sorted(self.required),
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True)
class Keys:
    """The public keys of a party, as `keys.PublicKeys.to_json` writes them."""

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value is a party's public keys."""
        try:
            keys.PublicKeys.from_json(value)
        except AuditError as error:
            raise EventInvalid(f"{where}: {error}") from None

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema of this type."""
        vkey: dict[str, JSON] = {"type": "string", "maxLength": 256}
        names = ("event", "log", "name", "witness")
        return {
            "type": "object",
            "properties": dict.fromkeys(names, vkey),
            "required": list(names),
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True)
class Document:
    """Any JSON object that has a canonical form, such as a plan."""

    def check(self, value: object, where: str) -> None:
        """Raise EventInvalid unless the value is such an object."""
        if not isinstance(value, Mapping):
            raise EventInvalid(f"{where} is not an object")
        canonical.encode(value)

    def schema(self) -> dict[str, JSON]:
        """Return the JSON Schema of this type."""
        return {"type": "object"}


NAME = Pattern(_NAME, "a party's name", most=63)
TEXT = Pattern(_TEXT, "a short plain text")
CODE = Pattern(r"[a-z0-9]+(-[a-z0-9]+)*", "a short code of lower-case words and dashes", most=64)
DIGEST = Pattern(_SHA256, 'a digest "sha256:<64 hex digits>"', most=71)
DECIMAL = Pattern(_DECIMAL, "a decimal number written as text", most=64)
TIME = Pattern(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", "a UTC time", most=27
)
# A checkpoint with all its signatures; parsed by whoever uses it.
NOTE = Pattern(r"[^\x00-\x09\x0b-\x1f]+\n", "a signed note", most=32768)
# A setting's place in a TOML file, and a number such as INC-2041: neither has room for a sentence.
SETTING = Pattern(r"[a-z0-9_]+(\.[a-z0-9_]+){0,5}", "the name of a setting")
TICKET = Pattern(
    r"[A-Z][A-Z0-9]{0,11}(-[0-9]{1,12}){1,3}", "a ticket's number such as INC-2041", most=48
)
COUNT = Count()
KEYS = Keys()
DOCUMENT = Document()
