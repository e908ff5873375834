"""The report of a bundle, as data: sections of sentences, tables and pictures with references.

Each function below writes one section from the entries and recomputations of `Material`. None has
words of its own: they are in `audit.wording`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from audit import controls, release_folder, report_budget, report_conduct
from audit.material import Material, listed, moment, ref, refs, short
from audit.sentences import Part, Reference, Row, Section, Sentence, Table, say
from audit.stored import Record

_MOST_ROUNDS = 200
_MOST_CITED = 12  # references of one table cell or sentence about many entries


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report; equal bundles give equal reports."""

    run: str
    bundle_digest: str
    holds: bool
    sections: tuple[Section, ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference once: entries by log and index, then the others."""
        found = {r.anchor: r for part in self.parts() for r in _references_of(part)}
        return tuple(sorted(found.values(), key=_order))

    def parts(self) -> Iterator[Part]:
        """Every part of every section."""
        for section in self.sections:
            yield from section.parts


def compose(material: Material) -> Report:
    """Write the report of a bundle."""
    sections = (
        ("In short", _summary),
        ("What left, and in which form", _left),
        ("Who decided", _decided),
        ("What is claimed", report_budget.claimed),
        ("What is not claimed", _limits),
        ("De-identification", _deidentified),
        ("Utility", _utility),
        ("Privacy audit", report_budget.audited),
        ("Incidents", report_conduct.incidents),
        ("Serving", report_conduct.served),
        ("Settings, keys and retention", report_conduct.conduct),
        ("Participation", _participation),
        ("Release", _release),
        ("Signatures and witnesses", _signatures),
        ("Controls", _controls),
    )
    return Report(
        material.run,
        material.bundle.digest,
        material.findings.ok,
        tuple(Section(heading, tuple(write(material))) for heading, write in sections),
    )


def _summary(of: Material) -> Iterator[Part]:
    found = of.findings
    layers = [of.check("bytes"), of.check("completeness"), of.check("meaning")]
    if found.ok:
        yield say("holds", layers, entries=of.entries, logs=1 + len(of.sites))
    else:
        yield say("faulty", layers, count=len(found.faults))
        if not found.intact:
            yield say("not-judged", layers[:1])
    for fault in found.faults:
        text = fault.sentence.rstrip(".")
        check = of.check(fault.layer)
        yield say("fault", [check], code=fault.code, where=fault.where, sentence=text)
    for notice in found.notices:
        yield say("notice", layers, sentence=notice.rstrip("."))


def _left(of: Material) -> Iterator[Part]:
    adapter = of.plan.get("adapter")
    if isinstance(adapter, dict) and isinstance(adapter.get("targets"), list):
        yield say(
            "form",
            refs(of.of("run-started", of.coordinator)),
            model=of.plan.get("model", "not named"),
            arrays=len(adapter["targets"]),
            method=adapter.get("method", "not named"),
            rank=adapter.get("rank", "not named"),
        )
    for site in of.sites:
        taken = [r for r in of.of("update-accepted") if _about(r) == site]
        if taken:
            yield say("left", refs(taken), site=site, count=len(taken))
        else:
            yield say("left-nothing", [of.check("search")], site=site)
        gate = of.of("egress", site)
        denied = [r for r in gate if r.entry.event.fields["verdict"] != "cleared"]
        if gate:
            cleared = len(gate) - len(denied)
            yield say("gate", refs(gate), site=site, cleared=cleared, denied=len(denied))
        for record in denied:
            fields, turn = record.entry.event.fields, record.entry.event.round
            yield say("gate-denied", [ref(record)], round=turn, site=site, code=fields["code"])
        yield say("departures", [of.check("search"), of.check("completeness")], site=site)
        for record in of.of("release-received", site):
            digest = short(record.entry.event.fields["release_digest"])
            yield say("received", [ref(record)], site=site, digest=digest)


def _decided(of: Material) -> Iterator[Part]:
    for record in of.of("run-started", of.coordinator):
        fields = record.entry.event.fields
        yield say(
            "started",
            [ref(record)],
            coordinator=of.coordinator,
            run=of.run,
            time=moment(record),
            names=listed(fields["institutions"]),
            quorum=fields["quorum"],
        )
    for kind, template in (("institution-joined", "joined"), ("institution-revoked", "revoked")):
        for record in of.of(kind, of.coordinator):
            name = record.entry.event.fields["name"]
            when, who = moment(record), of.coordinator
            yield say(template, [ref(record)], coordinator=who, name=name, time=when)
    for site in of.sites:
        decisions = of.of("approval", site)
        for record in decisions:
            fields = record.entry.event.fields
            template = f"{fields['decision']}-{fields['by']}"
            plan, when = short(fields["plan_digest"]), moment(record)
            yield say(template, [ref(record)], site=site, plan=plan, time=when)
        if not decisions:
            yield say("undecided", [of.check("search")], site=site)


def _limits(of: Material) -> Iterator[Part]:
    trained, sent = of.of("dp-training"), of.of("update-accepted")
    if sent:
        yield say("limit-signals", refs(sent[:1]))
    started = of.of("run-started", of.coordinator)
    if started:
        yield say("limit-base", refs(started), model=of.plan.get("model", "of the plan"))
    units = {r.entry.event.fields["unit"]: r for r in reversed(trained)}
    for unit, record in units.items():
        yield say("limit-group", [ref(record)], unit=unit)
    begun = of.of("log-started")
    for software in sorted({r.entry.event.fields["software"] for r in begun}):
        same = [r for r in begun if r.entry.event.fields["software"] == software]
        names = listed([r.entry.name for r in same])
        yield say("limit-software", refs(same), names=names, software=software)
    for record in of.of("pii-scrub"):
        yield say("limit-scrub", [ref(record)], site=record.entry.name)
    for kind, template in (
        ("evaluation", "limit-use"),
        ("privacy-audit", "limit-audit"),
        ("watermark-committed", "limit-mark"),
    ):
        if records := of.of(kind):
            yield say(template, refs(records[:_MOST_CITED]))
    yield say("limit-omitted", [of.check("completeness")])


def _deidentified(of: Material) -> Iterator[Part]:
    for site in of.sites:
        records = of.of("pii-scrub", site)
        for record in records:
            fields = record.entry.event.fields
            yield say(
                "scrubbed",
                [ref(record)],
                site=site,
                time=moment(record),
                profile=fields["profile"],
                scrubber=short(fields["scrubber_digest"]),
            )
            commitment = short(fields["records_commitment"])
            yield say("scrubbed-quiet", [ref(record)], site=site, commitment=commitment)
        if not records:
            yield say("not-scrubbed", [of.check("search")], site=site)


def _utility(of: Material) -> Iterator[Part]:
    records = of.of("evaluation", of.coordinator)
    for record in records:
        fields, who = record.entry.event.fields, of.coordinator
        caption = say(
            "scores", [ref(record)], coordinator=who, records=fields["records"], data=fields["data"]
        )
        rows = (
            Row((label, fields["base"][name], fields["released"][name]), (ref(record),))
            for label, name in (
                ("accuracy", "accuracy"),
                ("macro F1", "macro_f1"),
                ("loss", "loss"),
            )
        )
        yield Table(caption, ("score", "bare model", "released"), tuple(rows))
    if not records:
        yield say("no-scores", [of.check("search")], coordinator=of.coordinator)


def _participation(of: Material) -> Iterator[Part]:
    closed = of.of("round-closed", of.coordinator)
    names = sorted({n for r in closed for group in _GROUPS for n in r.entry.event.fields[group]})
    caption = say("rounds", [*refs(closed), of.check("count")], rounds=len(closed))
    rows = tuple(
        Row((str(r.entry.event.round), *(_state(r, name) for name in names)), (ref(r),))
        for r in closed[:_MOST_ROUNDS]
    )
    yield Table(caption, ("round", *names), rows)
    if len(closed) > _MOST_ROUNDS:
        yield say("rounds-shown", [of.check("count")], shown=_MOST_ROUNDS, rounds=len(closed))
    ends = of.of("run-finished", of.coordinator)
    for record in ends:
        fields = record.entry.event.fields
        yield say(
            "ended",
            [ref(record)],
            coordinator=of.coordinator,
            time=moment(record),
            outcome=fields["outcome"],
            rounds=fields["rounds"],
        )
    if not ends:
        yield say("not-ended", [of.check("search")], coordinator=of.coordinator)


def _release(of: Material) -> Iterator[Part]:
    who = of.coordinator
    for record in of.of("watermark-embedded", who):
        copies = record.entry.event.fields["copies"]
        names = listed([copy["recipient"] for copy in copies])
        cited = [*refs(of.of("watermark-committed", who)), ref(record)]
        yield say("copies", cited, coordinator=who, count=len(copies), names=names)
    releases = of.of("release", who)
    for record in releases:
        fields = record.entry.event.fields
        adapter, when = short(fields["adapter_digest"]), moment(record)
        yield say("released", [ref(record)], coordinator=who, adapter=adapter, time=when)
        if of.findings.consistent:
            cited = [ref(record), *refs(of.of("aggregation", who)[-1:]), of.check("meaning")]
            yield say("follows", cited, reference=short(fields["reference_digest"]))
    if not releases:
        yield say("not-released", [of.check("search")], coordinator=who)
    folder = of.bundle.release
    if folder is None or not releases:
        return
    last = releases[-1]
    rows = []
    for file in release_folder.check(folder, last.entry.event, key=of.release_key):
        state = {True: "as bound", False: "NOT as bound", None: "not bound by the log"}[file.holds]
        cited_file = Reference("file", f"release/{file.name}", file.digest)
        cells = (file.name, file.what, short(file.digest), file.bound_by, state)
        rows.append(Row(cells, (cited_file, ref(last))))
    yield Table(
        say("files", [ref(last), of.check("release")]),
        ("file", "what", "SHA-256", "bound by", "state"),
        tuple(rows),
    )


def _signatures(of: Material) -> Iterator[Part]:
    first = {record.entry.name: ref(record) for record in of.of("log-started")}
    for signer in of.findings.signers:
        cited = [*filter(None, [first.get(signer.name)]), of.check("bytes")]
        pinned = (
            "that key was given to the verifier from outside"
            if signer.pinned
            else "only the bundle says whose key that is"
        )
        yield say(
            "signed",
            cited,
            name=signer.name,
            size=signer.size,
            fingerprint=signer.fingerprint,
            pinned=pinned,
        )
        if signer.cosigned_by:
            names = listed(signer.cosigned_by)
            yield say("witnessed", [of.check("bytes")], name=signer.name, witnesses=names)
        else:
            yield say("unwitnessed", [of.check("bytes")], name=signer.name)
    for stamp in of.findings.stamps:
        template = "stamp-unchecked" if stamp.time is None else "stamped"
        more = {} if stamp.time is None else {"time": stamp.time}
        yield say(template, [of.check("bytes")], name=stamp.name, size=stamp.size, **more)
    if not of.findings.stamps:
        yield say("unstamped", [of.check("search")])


def _controls(of: Material) -> Iterator[Part]:
    for source in controls.sources():
        law = Reference("law", source.name, f"read: {source.checked}; {controls.COUNSEL}")
        rows = []
        for control in source.controls:
            events = [f"{kind} ({of.count(kind)})" for kind in control.kinds]
            checks = [f"{name} (recomputed)" for name in control.checks]
            cited = [ref(record) for record in map(of.cited, control.kinds) if record is not None]
            cells = (control.id, control.asks, ", ".join(events + checks), control.gap)
            rows.append(Row(cells, (law, *cited, *(of.check(name) for name in control.checks))))
        caption = say(
            "controls", [law, of.check("count")], source=source.name, checked=source.checked
        )
        yield Table(
            caption, ("control", "asks", "events in this bundle", "stays open"), tuple(rows)
        )


_GROUPS = ("accepted", "rejected", "absent")


def _state(record: Record, name: str) -> str:
    fields = record.entry.event.fields
    return next((group for group in _GROUPS if name in fields[group]), "not named")


def _about(record: Record) -> str:
    return str(record.entry.event.fields["institution"])


def _references_of(part: Part) -> Iterator[Reference]:
    if isinstance(part, Sentence):
        yield from part.references
        return
    yield from part.caption.references
    if isinstance(part, Table):
        for row in part.rows:
            yield from row.references


def _order(reference: Reference) -> tuple[str, str, int]:
    name, _, index = reference.place.rpartition(":")
    if reference.kind == "entry" and index.isdigit():
        return reference.kind, name, int(index)
    return reference.kind if reference.kind == "entry" else f"f{reference.kind}", reference.place, 0
