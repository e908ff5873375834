"""An event as it is signed: a statement with a header and the fields of its kind.

An event is an in-toto Statement v1. Its predicate holds a header (who, in which log, at which
place, when, in which run and round) and the fields that `audit.kinds` has for its kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from audit import canonical
from audit.canonical import JSON
from audit.errors import EventInvalid
from audit.fields import COUNT, DECIMAL, DIGEST, NAME, TEXT, TIME, Table
from audit.kinds import IN_ROUND, IN_RUN, KINDS

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_BASE = "https://privity.invalid/predicates/"
PREDICATE_VERSION = "v1"
HEADER = Table(
    {"emitter": NAME, "origin": TEXT, "seq": COUNT, "prev": DIGEST, "time": TIME},
    {"run": TEXT, "round": COUNT},
)
NEEDED: Mapping[str, frozenset[str]] = {"run": IN_RUN, "round": IN_ROUND}


@dataclass(frozen=True, slots=True)
class Subject:
    """An artifact that an event speaks about: a name and `"sha256:<hex>"`."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Event:
    """A checked statement, read out of its envelope."""

    kind: str
    emitter: str
    origin: str
    seq: int
    prev: str
    time: datetime
    run: str | None
    round: int | None
    fields: Mapping[str, Any]
    subjects: tuple[Subject, ...]

    def subject(self, name: str) -> str | None:
        """Return the digest of the subject of that name, if there is one."""
        return next((s.digest for s in self.subjects if s.name == name), None)


def decimal(value: float | str | Decimal) -> str:
    """Write a finite number as the decimal text that events hold, exactly and without exponent.

    >>> decimal(1e-06), decimal(1.5), decimal(2)
    ('0.000001', '1.5', '2')

    Raises:
        EventInvalid: the number is not finite or needs too many digits.
    """
    exact = isinstance(value, str | int | Decimal) and not isinstance(value, bool)
    try:
        number = Decimal(value if exact else repr(float(value)))
    except (InvalidOperation, ValueError, TypeError):
        raise EventInvalid("a number in an event is not a number") from None
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    DECIMAL.check(text, "a number in an event")
    return text


def timestamp(moment: datetime) -> str:
    """Write an aware time as RFC 3339 UTC with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def statement(
    kind: str,
    fields: Mapping[str, JSON],
    *,
    emitter: str,
    origin: str,
    seq: int,
    prev: str,
    time: datetime,
    subjects: Sequence[Subject] = (),
    run: str | None = None,
    round: int | None = None,  # noqa: A002 - the word of the log format
) -> dict[str, JSON]:
    """Build a checked in-toto Statement v1.

    in-toto wants at least one subject; an event about no artifact names its own fields.

    Raises:
        EventInvalid: the kind or a field is not in the table.
    """
    if kind not in KINDS:
        raise EventInvalid(f"there is no event of kind {kind[:64]!r}")
    KINDS[kind].check(fields, kind)
    header: dict[str, JSON] = {
        "emitter": emitter,
        "origin": origin,
        "seq": seq,
        "prev": prev,
        "time": timestamp(time),
    }
    header |= {} if run is None else {"run": run}
    header |= {} if round is None else {"round": round}
    _check_header(header, kind)
    named = list(subjects) or [Subject("fields", canonical.digest(canonical.encode(dict(fields))))]
    about: list[JSON] = [
        {"name": s.name, "digest": {"sha256": s.digest.removeprefix("sha256:")}} for s in named
    ]
    _subjects(about, kind)
    return {
        "_type": STATEMENT_TYPE,
        "subject": about,
        "predicateType": f"{PREDICATE_BASE}{kind}/{PREDICATE_VERSION}",
        "predicate": {**header, "fields": dict(fields)},
    }


def check(value: object) -> None:
    """Check a statement against the table; silence means that it holds.

    Raises:
        EventInvalid: unknown kind, or an unknown, missing or ill-typed field anywhere.
    """
    read(value)


def read(value: object) -> Event:
    """Check a statement and return it as an Event.

    Raises:
        EventInvalid: as `check`.
    """
    if not isinstance(value, Mapping) or set(value) != {
        *("_type", "subject", "predicateType", "predicate")
    }:
        raise EventInvalid("an event is not an in-toto statement")
    kind_text = value["predicateType"]
    kind = (
        kind_text.removeprefix(PREDICATE_BASE).removesuffix(f"/{PREDICATE_VERSION}")
        if isinstance(kind_text, str)
        else ""
    )
    known = kind in KINDS and kind_text == f"{PREDICATE_BASE}{kind}/{PREDICATE_VERSION}"
    if value["_type"] != STATEMENT_TYPE or not known:
        raise EventInvalid(
            f"an event has the unknown type {str(kind_text)[:100]!r}; update privity"
        )
    predicate = value["predicate"]
    if not isinstance(predicate, Mapping) or "fields" not in predicate:
        raise EventInvalid(f"a {kind} event has no fields")
    header = {name: item for name, item in predicate.items() if name != "fields"}
    _check_header(header, kind)
    fields = predicate["fields"]
    KINDS[kind].check(fields, kind)
    subjects = _subjects(value["subject"], kind)
    try:
        moment = datetime.strptime(header["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        raise EventInvalid(f"{kind}.time is no time") from None
    return Event(
        kind=kind,
        emitter=header["emitter"],
        origin=header["origin"],
        seq=header["seq"],
        prev=header["prev"],
        time=moment,
        run=header.get("run"),
        round=header.get("round"),
        fields=fields,
        subjects=subjects,
    )


def _check_header(header: Mapping[str, object], kind: str) -> None:
    HEADER.check(header, kind)
    for name, kinds in NEEDED.items():
        if kind in kinds and name not in header:
            raise EventInvalid(f"a {kind} event does not say its {name}")


def _subjects(value: object, kind: str) -> tuple[Subject, ...]:
    if not isinstance(value, list) or not value:
        raise EventInvalid(f"a {kind} event has no subject")
    found = []
    for item in value:
        try:
            subject = Subject(item["name"], "sha256:" + item["digest"]["sha256"])
            exact = set(item) == {"name", "digest"} and set(item["digest"]) == {"sha256"}
        except (TypeError, KeyError):
            raise EventInvalid(f"a subject of a {kind} event is not {{name, digest}}") from None
        TEXT.check(subject.name, f"{kind}.subject")
        DIGEST.check(subject.digest, f"{kind}.subject")
        if not exact:
            raise EventInvalid(f"a subject of a {kind} event has an unknown field")
        found.append(subject)
    if kind == "dp-training" and [s.name for s in found] != ["update"]:
        raise EventInvalid("a dp-training event is not about one subject named 'update'")
    return tuple(found)
