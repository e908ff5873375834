"""Spans of identifiers, and how hits of many recognisers become spans that never overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Who names a union of overlapping hits: identifiers, contacts, names, places, institutions, dates.
_ORDER: Final = (
    "NATIONAL_ID",
    "CREDIT_CARD",
    "IBAN_CODE",
    "EMAIL_ADDRESS",
    "URL",
    "IP_ADDRESS",
    "PHONE_NUMBER",
    "RECORD_NUMBER",
    "ADDRESS",
    "PERSON",
    "ORGANIZATION",
    "LOCATION",
    "DATE_TIME",
    "AGE",
    "GROUP",
)
_RANK: Final = {kind: rank for rank, kind in enumerate(_ORDER)}
TYPES: Final = frozenset(_ORDER)


@dataclass(frozen=True, slots=True)
class Span:
    """Code points [start, end) of the input that hold an identifier of a type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Hit:
    """What one recogniser found: a span, how sure it is, from 0 to 1, and which one it was."""

    start: int
    end: int
    type: str
    score: float
    source: str = ""


def resolve(hits: Iterable[Hit]) -> tuple[Span, ...]:
    """Merge overlapping hits into disjoint spans, in text order.

    Guarantees: the spans cover exactly the union of the hits; no two spans overlap. The type of a
        span is that of its surest hit (a checksum that holds, for example); equally sure ones are
        ranked identifiers, contacts, places, names, institutions, dates.
    """
    spans: list[Span] = []
    group: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: (hit.start, hit.end)):
        if group and hit.start >= max(member.end for member in group):
            spans.append(_merge(group))
            group = []
        group.append(hit)
    if group:
        spans.append(_merge(group))
    return tuple(spans)


def _merge(group: list[Hit]) -> Span:
    best = min(group, key=lambda hit: (-hit.score, _RANK.get(hit.type, len(_RANK))))
    return Span(group[0].start, max(hit.end for hit in group), best.type)
