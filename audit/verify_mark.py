"""Layer three, watermark: keys first, every copy marked under them, each receipt its own copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from audit import aggregation
from audit.events import Event
from audit.evidence import Collector, Evidence

OWNER_ROW = "owner"
# What travels in the rounds of adapters whose broadcasts have no mark; their releases have one.
_UNMARKED: Mapping[str, str] = {"lora-xs": "R", "lora": "A and B"}


class _Keys(NamedTuple):
    """Where a run's watermark keys were fixed, and each recipient's commitment."""

    at: int
    stated: Mapping[str, str]
    event: Event


def check(evidence: Evidence, found: Collector) -> None:
    """Check the keys' commitment, the broadcasts of the rounds, and what the sites signed for."""
    unmarked = _UNMARKED.get(_method(evidence), "")
    if unmarked:
        found.notices.append(
            f"the rounds were sent without a mark, as the plan's {_method(evidence)} sends only "
            f"{unmarked}; the release is marked"
        )
    keys = _check_keys(evidence, found)
    _check_release(evidence, keys, found)
    copies = _check_broadcasts(evidence, keys, found)
    _check_starts(evidence, copies, found)
    _check_receipts(evidence, found)


def _method(evidence: Evidence) -> str:
    """How the logged plan trains its adapter; empty without one, where every mark is expected."""
    return aggregation.adapter(evidence.started[1].fields["plan"]) if evidence.started else ""


def _check_keys(evidence: Evidence, found: Collector) -> _Keys | None:
    """Check that the keys were fixed once, right after the tree head that they are bound to."""
    log = evidence.coordinator
    logged = list(log.of("watermark-keys", evidence.run))
    for index, _ in logged[1:]:
        text = "the run's watermark keys were committed to twice"
        found.add("meaning", "mark-recommitted", log.place(index), text)
    if not logged:
        return None
    index, event = logged[0]
    size = event.fields["tree_size"]
    if size != index or "sha256:" + log.tree.root(index).hex() != event.fields["tree_root"]:
        text = "the watermark keys are not bound to the newest tree head before them"
        found.add("meaning", "mark-unbound", log.place(index), text)
    if ("broadcasts" in event.fields) != (_method(evidence) in _UNMARKED):
        text = "the log and the plan's adapter disagree on whether the rounds are sent marked"
        found.add("meaning", "broadcast-unmarked", log.place(index), text)
    stated = {row["recipient"]: row["commitment"] for row in event.fields["commitments"]}
    if len(stated) != len(event.fields["commitments"]) or len(set(stated.values())) != len(stated):
        text = "two watermark commitments are for one recipient, or two recipients share one"
        found.add("meaning", "mark-recommitted", log.place(index), text)
    return _Keys(index, stated, event)


def _check_release(evidence: Evidence, keys: _Keys | None, found: Collector) -> None:
    """Check that the release is marked with the keys that were fixed at the run's start."""
    log = evidence.coordinator
    for index, event in log.of("watermark-committed", evidence.run):
        place = log.place(index)
        if keys is None or not keys.at < index:
            text = "the release's watermark rests on keys that were not committed to before"
            found.add("meaning", "mark-uncommitted", place, text)
            continue
        for row in event.fields["commitments"]:
            if keys.stated.get(row["recipient"]) != row["commitment"]:
                text = f"the key for {row['recipient']} is not the one committed to at the start"
                found.add("meaning", "mark-changed", place, text)
        for name in ("basis_digest", "table_digest", "strength"):
            if name == "basis_digest" and _method(evidence) == "lora":
                continue  # it trains A, which the basis is of
            if event.fields[name] != keys.event.fields[name]:
                text = f"the watermark's {name.replace('_', ' ')} changed since the run's start"
                found.add("meaning", "mark-changed", place, text)


def _check_broadcasts(
    evidence: Evidence, keys: _Keys | None, found: Collector
) -> dict[tuple[int, str], tuple[int, str]]:
    """Return (round, site) -> (entry, digest) of every marked copy that a round was sent as."""
    log = evidence.coordinator
    copies: dict[tuple[int, str], tuple[int, str]] = {}
    owners: dict[str, str] = {}
    for index, event in log.of("broadcast-marked", evidence.run):
        place = log.place(index)
        for row in event.fields["copies"]:
            name, digest = row["recipient"], row["adapter_digest"]
            if keys is None or not keys.at < index or name not in keys.stated:
                text = f"the broadcast for {name} was marked without a commitment before it"
                found.add("meaning", "mark-uncommitted", place, text)
            if digest == event.fields["input_adapter"]:
                text = f"{name} was sent the adapter of round {event.round} without a mark"
                found.add("meaning", "broadcast-unmarked", place, text)
            if owners.setdefault(digest, name) != name:
                text = f"{name} and {owners[digest]} were sent one and the same copy"
                found.add("meaning", "broadcast-shared", place, text)
            key = (event.round or 0, name)
            if key in copies:
                text = f"{name} has two copies of round {event.round}"
                found.add("meaning", "broadcast-repeated", place, text)
            copies[key] = index, digest
    for index, event in log.of("aggregation", evidence.run):
        for at, item in log.of("broadcast-marked", evidence.run):
            same = event.fields["input_adapter"] == item.fields["input_adapter"]
            if item.round == event.round and not same:
                text = f"the broadcast of round {item.round} is of another adapter than the round's"
                found.add("meaning", "input-differs", log.place(max(index, at)), text)
    return copies


def _check_starts(
    evidence: Evidence, copies: Mapping[tuple[int, str], tuple[int, str]], found: Collector
) -> None:
    """Check that each site trained from its own marked copy of what the round started from.

    Only the first round that was averaged may start unmarked: until then the adapter is zero and
    can carry nothing; or every round, where the plan's adapter says so.
    """
    unmarked = _method(evidence) in _UNMARKED
    log = evidence.coordinator
    inputs = {
        event.round: event.fields["input_adapter"]
        for _, event in log.of("aggregation", evidence.run)
    }
    for at, accepted in log.of("update-accepted", evidence.run):
        trained = _training(evidence, accepted)
        if trained is None or accepted.round not in inputs:
            continue
        name, start = accepted.fields["institution"], trained.fields["input_digest"]
        place = evidence.sites[name].place(accepted.fields["statement_index"])
        sent = copies.get((accepted.round or 0, name))
        if sent is None:
            first = min(round_ for round_ in inputs if round_ is not None)
            if accepted.round != first and not unmarked:
                text = f"round {accepted.round} was sent to {name} without a logged mark"
                found.add("meaning", "broadcast-unmarked", log.place(at), text)
            sent = at, inputs[accepted.round]
        elif not sent[0] < at:
            text = f"the copy for {name} was logged after its update came back"
            found.add("meaning", "mark-uncommitted", log.place(sent[0]), text)
        if start != sent[1]:
            text = f"{name} trained from another adapter than round {accepted.round} had"
            found.add("meaning", "input-differs", place, text)


def _training(evidence: Evidence, accepted: Event) -> Event | None:
    site = evidence.sites.get(accepted.fields["institution"])
    index = accepted.fields["statement_index"]
    if site is None or not index < len(site.events):
        return None
    trained = site.events[index]
    return trained if trained.kind == "dp-training" else None


def _check_receipts(evidence: Evidence, found: Collector) -> None:
    """Check that each site signed for the copy that was marked for it, and for no other's."""
    own = {
        (copy["recipient"], copy["adapter_digest"])
        for _, event in evidence.coordinator.of("watermark-embedded", evidence.run)
        for copy in event.fields["copies"]
    }
    known = {digest for _, digest in own}
    for name, site in evidence.sites.items():
        for index, event in site.of("release-received", evidence.run):
            digest = event.fields["release_digest"]
            if digest in known and (name, digest) not in own:
                text = f"{name} signed for a copy that was marked for somebody else"
                found.add("meaning", "receipt-differs", site.place(index), text)
    for name, digest in sorted(own):
        signed = evidence.sites.get(name)
        if signed is not None and digest not in {
            event.fields["release_digest"]
            for _, event in signed.of("release-received", evidence.run)
        }:
            found.notices.append(f"{name} has not signed for its copy of the release")
