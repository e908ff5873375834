"""The exact bytes that an event of a flat kind may have, as one regular expression.

For a flat kind (names, codes, digests, counts, decimals, times; no lists, no free objects) the
table of events fixes the canonical JSON up to the values. Matching that expression is then the same
as parsing, checking the canonical form and checking the table, and many times faster. What does not
match is no fault yet: the careful way (`dsse.parse`, `events.read`) decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from audit import dsse, events, fields, kinds
from audit.fields import Count, OneOf, Pattern, Table, Type

_PLAIN = (fields.NAME, fields.TEXT, fields.CODE, fields.DIGEST, fields.DECIMAL, fields.TIME)
# Not 29 February, nor a leap second: those go the careful way.
_DAY = (
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    r"|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
_TIME = rf"[1-9][0-9]{{3}}-{_DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{{6}}Z"
_COUNT = r"(?:0|[1-9][0-9]{0,14})"
_ENDING = f"/{events.PREDICATE_VERSION}".encode()
_KIND = b'"predicateType":"' + events.PREDICATE_BASE.encode()


def envelope(keyid: str) -> re.Pattern[bytes]:
    """Return the expression of an envelope by one key: groups are payload and signature.

    Both groups admit canonical base64 only (RFC 4648 section 3.5), provided that the length of the
    payload's is a multiple of four, which is for the caller to check.
    """
    char = "[A-Za-z0-9+/]"
    ending = f"(?:{char}|[AEIMQUYcgkosw048]=|[AQgw]==)"
    text = (
        rf'\{{"payload":"({char}*{ending})","payloadType":"{re.escape(dsse.PAYLOAD_TYPE)}",'
        rf'"signatures":\[\{{"keyid":"{re.escape(keyid)}","sig":"({char}{{85}}[AQgw]==)"\}}\]\}}'
    )
    return re.compile(text.encode("ascii"))


def kind_of(payload: bytes) -> str:
    """Return the kind that a payload states last, or an empty text; nothing is checked."""
    start = payload.rfind(_KIND)
    end = payload.find(b'"', start + len(_KIND))
    word = payload[start + len(_KIND) : end] if start >= 0 else b""
    known = word.endswith(_ENDING) and word.isascii()
    return word.removesuffix(_ENDING).decode("ascii") if known else ""


def payloads(emitter: str, origin: str) -> dict[str, re.Pattern[bytes]]:
    """Return the expression of each flat kind's payload in one party's log, by kind.

    Groups: `seq`, `prev`, `time` and, unless the event has none, `run` and `round`.
    """
    return {
        kind: _payload(kind, table, emitter, origin)
        for kind, table in kinds.KINDS.items()
        if kind != "dp-training" and all(_flat(item) for item in table.known.values())
    }


def _payload(kind: str, table: Table, emitter: str, origin: str) -> re.Pattern[bytes]:
    needs = {name for name, those in events.NEEDED.items() if kind in those}
    header = [
        ("emitter", re.escape(f'"{emitter}"'), True),
        ("fields", rf"\{{{_members(_fields(table))}\}}", True),
        ("origin", re.escape(f'"{origin}"'), True),
        ("prev", f'"(?P<prev>{fields.DIGEST.pattern})"', True),
        ("round", f"(?P<round>{_COUNT})", "round" in needs),
        ("run", f'"(?P<run>{_bounded(fields.TEXT)})"', "run" in needs),
        ("seq", f"(?P<seq>{_COUNT})", True),
        ("time", f'"(?P<time>{_TIME})"', True),
    ]
    subject = rf'\{{"digest":\{{"sha256":"[0-9a-f]{{64}}"\}},"name":"{_bounded(fields.TEXT)}"\}}'
    whole = [
        ("_type", re.escape(f'"{events.STATEMENT_TYPE}"'), True),
        ("predicate", rf"\{{{_members(header)}\}}", True),
        ("predicateType", re.escape(f'"{events.PREDICATE_BASE}{kind}/v1"'), True),
        ("subject", rf"\[{subject}(?:,{subject})*\]", True),
    ]
    return re.compile(rf"\{{{_members(whole)}\}}".encode("ascii"))


def _fields(table: Table) -> Iterator[tuple[str, str, bool]]:
    for name, item in sorted(table.known.items()):
        yield name, _value(item), name in table.required


def _members(items: Iterable[tuple[str, str, bool]]) -> str:
    """Join members `"name":value`; at least one must be required, and comes to separate them."""
    rows = list(items)
    anchor = next(place for place, (_, _, required) in enumerate(rows) if required)
    text = ""
    for place, (name, value, required) in enumerate(rows):
        member = f'"{name}":{value}'
        if place < anchor:
            text += f"(?:{member},)?"
        elif place == anchor:
            text += member
        else:
            text += f",{member}" if required else f"(?:,{member})?"
    return text


def _flat(item: Type) -> bool:
    return isinstance(item, Count | OneOf) or any(item is plain for plain in _PLAIN)


def _value(item: Type) -> str:
    if isinstance(item, Count):
        return _COUNT
    if isinstance(item, OneOf):
        return f'"(?:{"|".join(re.escape(word) for word in item.words)})"'
    if item is fields.TIME:
        return f'"(?:{fields.TIME.pattern})"'
    assert isinstance(item, Pattern)  # noqa: S101 - `_flat` admits nothing else
    return f'"{_bounded(item)}"'


def _bounded(item: Pattern) -> str:
    return rf'(?=[^"]{{0,{item.most}}}")(?:{item.pattern})'
