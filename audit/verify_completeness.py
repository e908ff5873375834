"""Layer two, completeness: nothing that should be in the logs was left out.

A Merkle tree shows that nothing was changed. That nothing was omitted follows from gap-free
numbers, from the two sides' logs naming each other's entries, and from every invited institution
being accounted for in every round.
"""

from __future__ import annotations

from audit import rotation
from audit.errors import AuditError
from audit.events import Event
from audit.evidence import Collector, Evidence, LogView


def check(evidence: Evidence, found: Collector) -> None:
    """Check that the logs are whole and account for every institution in every round."""
    for log in (evidence.coordinator, *evidence.sites.values()):
        _check_chain(log, found)
    started = evidence.started
    if started is None:
        found.add(
            "completeness",
            "run-missing",
            evidence.coordinator.where,
            f"the coordinator's log has no run {evidence.run[:64]!r}",
        )
        return
    for index, _ in list(evidence.coordinator.of("run-started", evidence.run))[1:]:
        place = evidence.coordinator.place(index)
        found.add("completeness", "run-repeated", place, "the run was started twice")
    _check_members(evidence, started[0], found)
    _check_strangers(evidence, found)
    _check_rounds(evidence, found)
    _check_end(evidence, found)
    _check_quorum(evidence, found)


def _check_chain(log: LogView, found: Collector) -> None:
    """Check that `seq` counts without gap and `prev` names the entry before."""
    for wrong in log.chain:
        found.add("completeness", wrong.code, log.place(wrong.index), wrong.sentence)
    for index in log.clock:
        found.notices.append(f"the clock of {log.keys.name} went back before entry {index}")
    if log.chained:
        found.notices.append(
            f"{log.chained} entries of {log.keys.name} are signed through the entries after them, "
            "which name their hashes; --every-signature checks each one's own"
        )


def _check_members(evidence: Evidence, started: int, found: Collector) -> None:
    """Check that every invited institution had joined, with the keys that its log has."""
    log = evidence.coordinator
    members: dict[str, object] = {}
    for index, event in log.events.of("institution-joined", "institution-revoked"):
        if index > started:
            break
        if event.kind == "institution-joined":
            members[event.fields["name"]] = event.fields["keys"]
        else:
            members.pop(event.fields["name"], None)
    for name in evidence.invited:
        site = evidence.sites.get(name)
        if name not in members:
            text = f"{name} was invited without having joined, or after being revoked"
            found.add("completeness", "not-a-member", log.place(started), text)
        if site is None:
            text = f"the log of the invited institution {name} is not in the bundle"
            found.add("completeness", "site-missing", "sites", text)
        elif name in members and members[name] not in [s.keys.to_json() for s in site.history]:
            text = f"{name} joined with other keys than those that sign its log"
            found.add("completeness", "wrong-keys", site.where, text)
    for name in sorted(set(evidence.sites) - set(evidence.invited)):
        text = f"{name} was not invited to the run"
        found.add("completeness", "site-uninvited", evidence.sites[name].where, text)


def _check_strangers(evidence: Evidence, found: Collector) -> None:
    """Check that files were exchanged with members only, and only their node keys renewed."""
    log = evidence.coordinator
    members: set[str] = set()
    kinds = ("institution-joined", "institution-revoked", "institution-renewed", "exchange")
    for index, event in log.events.of(*kinds):
        if event.kind == "institution-joined":
            members.add(event.fields["name"])
        elif event.kind == "institution-revoked":
            members.discard(event.fields["name"])
        else:
            name = event.fields.get("name", event.fields.get("institution"))
            accepted = event.fields.get("verdict") != "refused"
            # A refused file may bear nobody's signature.
            if name not in members and (accepted or name is not None):
                text = f"the {event.kind} is with nobody who was a member then"
                found.add("completeness", "stranger", log.place(index), text)


def _check_rounds(evidence: Evidence, found: Collector) -> None:
    """Check that the rounds count from 0 and that each accounts for every institution once."""
    log = evidence.coordinator
    closed = list(log.of("round-closed", evidence.run))
    opened = 0
    for expected, (index, event) in enumerate(closed):
        if event.round != expected:
            text = f"round {event.round} was closed where round {expected} was due"
            found.add("completeness", "round-gap", log.place(index), text)
        _check_participants(evidence, index, event, found)
        _check_accepted(evidence, opened, index, event, found)
        opened = index
    rounds = {event.round for _, event in closed}
    for kind in ("update-accepted", "update-rejected", "aggregation"):
        for index, event in log.of(kind, evidence.run):
            if event.round not in rounds:
                text = f"round {event.round} was never closed"
                found.add("completeness", "round-open", log.place(index), text)


def _check_participants(evidence: Evidence, index: int, event: Event, found: Collector) -> None:
    place = evidence.coordinator.place(index)
    groups = [event.fields[group] for group in ("accepted", "rejected", "absent")]
    named = [name for group in groups for name in group]
    for name in sorted(set(evidence.invited) - set(named)):
        text = f"round {event.round} does not say what became of {name}"
        found.add("completeness", "institution-unaccounted", place, text)
    for name in sorted(set(named) - set(evidence.invited)):
        text = f"round {event.round} names {name}, who was not invited"
        found.add("completeness", "participant-uninvited", place, text)
    for name in sorted({name for name in named if named.count(name) > 1}):
        text = f"round {event.round} names {name} twice"
        found.add("completeness", "participant-repeated", place, text)
    for kind, group in (("update-accepted", groups[0]), ("update-rejected", groups[1])):
        logged = {
            item.fields["institution"]
            for _, item in evidence.coordinator.of(kind, evidence.run)
            if item.round == event.round
        }
        # A rejection may be followed by a good update, so a rejected try needs no place here.
        wrong = set(group) ^ logged if kind == "update-accepted" else set(group) - logged
        for name in sorted(wrong):
            text = f"round {event.round} and its {kind} entries disagree about {name}"
            found.add("completeness", "participants-differ", place, text)


def _check_accepted(
    evidence: Evidence, opened: int, closed: int, event: Event, found: Collector
) -> None:
    """Check every accepted update of a round against the log of the site that made it."""
    log = evidence.coordinator
    notes = event.fields["site_checkpoints"]
    accepted = [
        (index, item)
        for index, item in log.of("update-accepted", evidence.run)
        if item.round == event.round
    ]
    for name in event.fields["accepted"]:
        if [item.fields["institution"] for _, item in accepted].count(name) > 1:
            text = f"round {event.round} accepted two updates of {name}"
            found.add("completeness", "update-repeated", log.place(closed), text)
        site = evidence.sites.get(name)
        if site is not None:
            _check_site_note(site, notes.get(name), log.place(closed), found)
    for index, item in accepted:
        if not opened < index < closed:
            text = f"an update of round {event.round} stands outside that round"
            found.add("completeness", "out-of-round", log.place(index), text)
        site = evidence.sites.get(item.fields["institution"])
        if site is not None:
            _check_statement(site, item, log.place(index), found)
    for index, item in log.of("aggregation", evidence.run):
        if item.round == event.round and not opened < index < closed:
            text = f"the aggregation of round {event.round} stands outside that round"
            found.add("completeness", "out-of-round", log.place(index), text)


def _check_site_note(site: LogView, text: str | None, place: str, found: Collector) -> None:
    """Check a site's checkpoint in the coordinator's log against the site's log."""
    name = site.keys.name
    if text is None:
        sentence = f"the round has no checkpoint of {name}, whose update it accepted"
        found.add("completeness", "site-checkpoint-missing", place, sentence)
        return
    try:
        stated = rotation.open_note(text, site.history, site.checkpoint.origin)
    except AuditError as error:
        found.add("completeness", error.code, place, f"checkpoint of {name}: {error}")
        return
    _check_extends(site, stated.size, stated.root, place, found)


def _check_extends(site: LogView, size: int, root: bytes, place: str, found: Collector) -> None:
    """Check that a site's log extends what the coordinator saw of it."""
    name = site.keys.name
    if not size <= site.checkpoint.size:
        text = f"{name} showed {size} entries and has {site.checkpoint.size} now: rolled back"
        found.add("completeness", "log-rolled-back", place, text)
    elif site.tree.root(size) != root:
        text = f"the log of {name} does not extend the {size} entries that it showed: forked"
        found.add("completeness", "log-forked", place, text)


def _check_statement(site: LogView, item: Event, place: str, found: Collector) -> None:
    """Check that an accepted update is the subject of the named dp-training entry of the site."""
    fields, name = item.fields, site.keys.name
    _check_extends(site, fields["site_size"], bytes.fromhex(fields["site_root"][7:]), place, found)
    index = fields["statement_index"]
    if not index < min(fields["site_size"], len(site.events)):
        text = f"the log of {name} has no entry {index}, which should tell of the update's training"
        found.add("completeness", "statement-missing", place, text)
        return
    statement = site.events[index]
    if "sha256:" + site.tree.leaf(index).hex() != fields["statement_leaf"]:
        text = f"entry {index} of {name} is not the one that the coordinator saw"
        found.add("completeness", "statement-differs", place, text)
    if (
        statement.kind != "dp-training"
        or (statement.run, statement.round) != (item.run, item.round)
        or statement.subject("update") != fields["update_digest"]
    ):
        text = f"entry {index} of {name} is not the dp-training of this update in this round"
        found.add("completeness", "statement-wrong", place, text)


def _check_end(evidence: Evidence, found: Collector) -> None:
    """Check that the run was finished once, with the rounds and participants that it had."""
    log = evidence.coordinator
    finished = list(log.of("run-finished", evidence.run))
    closed = [event for _, event in log.of("round-closed", evidence.run)]
    if len(finished) != 1:
        text = f"the run has {len(finished)} run-finished entries and needs one"
        found.add("completeness", "run-unfinished", log.where, text)
    took_part = {name for event in closed for name in event.fields["accepted"]}
    for index, event in finished:
        if event.fields["rounds"] != len(closed):
            text = f"the run counts {event.fields['rounds']} rounds and the log has {len(closed)}"
            found.add("completeness", "rounds-differ", log.place(index), text)
        for name in sorted(took_part ^ set(event.fields["participants"])):
            text = f"the run's participants and its rounds disagree about {name}"
            found.add("completeness", "participants-differ", log.place(index), text)


def _check_quorum(evidence: Evidence, found: Collector) -> None:
    """Check that enough institutions cosigned the coordinator's checkpoint."""
    log = evidence.coordinator
    closed = [event for _, event in log.of("round-closed", evidence.run)]
    witnesses = set(log.cosigned_by) & set(evidence.invited)
    if evidence.quorum is not None and not len(witnesses) >= evidence.quorum:
        text = (
            f"{len(witnesses)} institutions cosigned the coordinator's checkpoint and the run's "
            f"quorum is {evidence.quorum}"
        )
        found.add("completeness", "quorum-not-met", f"{log.where}/checkpoint", text)
    last = set(closed[-1].fields["accepted"]) if closed else set()
    for name in sorted(last - witnesses):
        found.notices.append(f"{name} took part in the last round but did not cosign its end")
    for name, site in sorted(evidence.sites.items()):
        if log.keys.name not in site.cosigned_by:
            found.notices.append(f"the coordinator did not cosign the last checkpoint of {name}")
