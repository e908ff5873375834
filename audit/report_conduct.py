"""The report's sections about conduct: incidents, serving, settings, keys and retention."""

from __future__ import annotations

from collections.abc import Iterator

from audit.material import Material, listed, moment, ref, refs, short
from audit.sentences import Part, Row, Table, say
from audit.stored import Record
from audit.wording import INCIDENTS

_MOST_ROWS = 200


def incidents(of: Material) -> Iterator[Part]:
    """Incidents with what became of them, then every other entry that reports a problem."""
    records = of.of("incident")
    closed = {
        (record.entry.name, record.entry.event.fields["opened"]): record
        for record in records
        if "opened" in record.entry.event.fields
    }
    for record in records:
        fields = record.entry.event.fields
        if fields["state"] != "opened":
            continue
        end = closed.get((record.entry.name, record.entry.index))
        yield say(
            "incident-open" if end is None else "incident-closed",
            [ref(record)] if end is None else [ref(record), ref(end)],
            name=record.entry.name,
            time=moment(record),
            severity=fields["severity"],
            meaning=INCIDENTS.get(fields["code"], fields["code"]),
            reference=fields.get("reference", "none"),
            **({} if end is None else {"end": moment(end)}),
        )
    others = [record for record in of.problems if record.entry.event.kind != "incident"]
    for record in others:
        yield say(
            "incident",
            [ref(record)],
            log=f"the log of {record.entry.name}",
            time=moment(record),
            problem=record.entry.problem,
        )
    if not records and not others:
        yield say("no-incident", [of.check("search")], entries=of.entries)


def served(of: Material) -> Iterator[Part]:
    """Which releases were served where, and who was served, as far as the logs tell."""
    for site in of.sites:
        began = [r for r in of.of("serving", site) if r.entry.event.fields["state"] == "started"]
        for digest in sorted({r.entry.event.fields["release_digest"] for r in began}):
            same = [r for r in began if r.entry.event.fields["release_digest"] == digest]
            when, count = moment(same[0]), len(same)
            yield say(
                "served", refs(same[:1]), site=site, digest=short(digest), time=when, count=count
            )
    rows = []
    for sort in of.bulk[:_MOST_ROWS]:
        entry, fields = sort.first.entry, sort.first.entry.event.fields
        release = short(fields["adapter_digest"])
        said = (fields["route"], fields["outcome"], fields.get("requests", "one"))
        cells = (entry.name, release, *said, str(sort.count), moment(sort.last))
        rows.append(Row(cells, (ref(sort.first), ref(sort.last))))
    if rows:
        caption = say("access", [of.check("count"), *rows[0].references])
        head = ("institution", "release", "route", "outcome", "requests", "entries", "last")
        yield Table(caption, head, tuple(rows))
    if not rows and not of.of("serving"):
        yield say("not-served", [of.check("search")])


def conduct(of: Material) -> Iterator[Part]:
    """Changes of settings and keys, and what was erased or carried out of the logs."""
    for record in of.of("config-changed"):
        fields = record.entry.event.fields
        names = fields.get("keys", [])
        yield say(
            "settings",
            [ref(record)],
            name=record.entry.name,
            time=moment(record),
            subject=fields["subject"],
            keys=listed(names) if names else "no setting by name",
            before=short(fields["before_commitment"]),
            after=short(fields["after_commitment"]),
        )
    for record in of.of("key-rotated"):
        yield say("rotated", [ref(record)], **_why(record))
    for record in of.of("key-revoked"):
        size = record.entry.event.fields["size"]
        yield say("key-revoked", [ref(record)], size=size, **_why(record))
    for record in of.of("disclosure-erased"):
        count = len(record.entry.event.fields["erased"])
        yield say("erased", [ref(record)], count=count, **_why(record))
    for record in of.of("retention-pruned"):
        fields = record.entry.event.fields
        yield say(
            "retained",
            [ref(record)],
            name=record.entry.name,
            time=moment(record),
            retention=fields["retention"],
            before=fields["before"][:10],
            values=fields["disclosures"],
            files=fields.get("files", 0),
            rows=fields.get("rows", 0),
        )
    kinds = ("config-changed", "key-rotated", "key-revoked", "disclosure-erased")
    if not any(of.of(kind) for kind in (*kinds, "retention-pruned")):
        yield say("no-conduct", [of.check("search")])


def _why(record: Record) -> dict[str, str]:
    reason = record.entry.event.fields["reason"]
    return {"name": record.entry.name, "time": moment(record), "reason": reason}
