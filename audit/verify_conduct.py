"""Layers two and three, conduct: settings, incidents, terms of retention, and accusations.

What a party logs about its own house is its own word; these checks hold it to that word. An
accusation of another party is different: it carries both of that party's signatures.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from audit import note
from audit.errors import AuditError
from audit.events import Event
from audit.evidence import Collector, Evidence, LogView

_LEAST = timedelta(days=183)  # audit.retention.LEAST_DAYS


def check(evidence: Evidence, found: Collector) -> None:
    """Check every log for gaps in these chains, and every accusation for its proof."""
    logs = {log.checkpoint.origin: log for log in _logs(evidence)}
    for log in _logs(evidence):
        _check_settings(log, found)
        _check_incidents(log, found)
        _check_terms(log, found)
        for index, event in log.of("witness-refused"):
            accused = logs.get(event.fields["origin"])
            _check_accusation(log, index, event, accused, found)


def _logs(evidence: Evidence) -> tuple[LogView, ...]:
    return evidence.coordinator, *evidence.sites.values()


def _check_settings(log: LogView, found: Collector) -> None:
    """Check that each change of settings starts where the one before it ended."""
    last: dict[str, str] = {}
    for index, event in log.of("config-changed"):
        subject, before = event.fields["subject"], event.fields["before_commitment"]
        if before != last.get(subject, before):
            text = f"a change of the {subject} settings is missing before this one"
            found.add("completeness", "settings-gap", log.place(index), text)
        last[subject] = event.fields["after_commitment"]


def _check_incidents(log: LogView, found: Collector) -> None:
    """Check that what is closed was open, once and as the same sort; tell what is open still."""
    opened: dict[int, Event] = {}
    for index, event in log.of("incident"):
        if event.fields["state"] == "opened":
            opened[index] = event
            if "opened" in event.fields:
                text = "the entry opens an incident and names another as its own opening"
                found.add("meaning", "incident-unopened", log.place(index), text)
            continue
        began = opened.pop(event.fields.get("opened", -1), None)
        if began is None or began.fields["code"] != event.fields["code"]:
            text = "the entry closes an incident that was not open under that name"
            found.add("meaning", "incident-unopened", log.place(index), text)
    for index, event in opened.items():
        code, severity = event.fields["code"], event.fields["severity"]
        found.notices.append(
            f"an incident in the log of {log.keys.name} is open: entry {index}, {code}, {severity}"
        )


def _check_terms(log: LogView, found: Collector) -> None:
    """Check that nothing that lies behind entries was erased before its shortest term ended."""
    for index, event in log.of("retention-pruned"):
        if event.fields["retention"] == "ops":
            continue
        if not event.time - cutoff(event) >= _LEAST:
            text = f"values were erased as due that were less than {_LEAST.days} days old"
            found.add("meaning", "retention-early", log.place(index), text)


def cutoff(event: Event) -> datetime:
    """The time before which a term ended."""
    text = str(event.fields["before"])
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:  # such as 31 February: nothing is before it
        return datetime.min.replace(tzinfo=UTC)


def _check_accusation(
    log: LogView, index: int, event: Event, accused: LogView | None, found: Collector
) -> None:
    """Check the two notes that show a party's log to contradict itself.

    A note that the accused signed and that is not of the history in this bundle is a fault of the
    accused; notes that it did not sign, or that agree, are one of the accuser.
    """
    notes = [event.fields[name] for name in ("older", "newer") if name in event.fields]
    if accused is None:
        return
    place, stated = log.place(index), []
    for text in notes:
        try:
            stated.append(_signed(text, accused))
        except AuditError:
            said = f"the notes are not both signed by {accused.keys.name}, whom they accuse"
            found.add("meaning", "accusation-unsigned", place, said)
            return
    if not all(_belongs(accused, one) for one in stated):
        said = (
            f"{accused.keys.name} signed a history that is not the one in this bundle; the entry "
            "holds its notes"
        )
        found.add("completeness", "log-forked", place, said)
    elif len(stated) == 2 and stated[0].size <= stated[1].size:
        said = f"the notes of {accused.keys.name} do not contradict each other"
        found.add("meaning", "accusation-empty", place, said)


def _signed(text: str, accused: LogView) -> note.Checkpoint:
    """Read a note that one of the accused's log keys signed.

    Raises:
        AuditError: none did, or it is no checkpoint of that log.
    """
    last: AuditError | None = None
    for keys in accused.everyone():
        try:
            return note.open_checkpoint(
                text, key=note.parse_key(keys.log), origin=accused.checkpoint.origin
            )
        except AuditError as error:
            last = error
    assert last is not None  # noqa: S101 - everyone() is never empty
    raise last


def _belongs(accused: LogView, stated: note.Checkpoint) -> bool:
    """Whether a checkpoint is of the log in the bundle, or of a longer one that may extend it."""
    if not stated.size <= accused.checkpoint.size:
        return True  # what it holds beyond the bundle cannot be judged here
    return accused.tree.root(stated.size) == stated.root
