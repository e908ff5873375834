"""The egress gate: every answer passes here, in the SuperNode's process, or does not leave.

The runner, which sees records, is not trusted with the border. The gate compares each field of an
answer with what the institution's own log, ledger and plan say, so that what leaves is the update's
values, which the ledger was charged for, and statements that are in the log. It cannot judge the
values themselves: a runner that was replaced by other code could put anything into them.
"""

from __future__ import annotations

from collections.abc import Mapping

from audit import dsse, events, note
from audit.canonical import to_base64
from audit.digests import arrays_digest
from audit.errors import AuditError
from audit.merkle import EMPTY_ROOT
from client import decisions
from client.folder import Folder
from configs.run import AdapterTable, Plan
from model import catalog, shapes
from model.shapes import Spec
from privacy import egress
from privacy.egress import Cleared
from privacy.errors import EgressDenied
from privacy.wire import Answer, Closed, Message, Update, pack, unpack

_KINDS: Mapping[str, type[Answer] | type[Update] | type[Closed]] = {
    "answer": Answer,
    "update": Update,
    "closed": Closed,
}


def clear(folder: Folder, message: Message) -> Cleared | None:
    """Check one answer against everything that the institution knows itself.

    Args:
        folder: the institution.
        message: the answer as the runner wrote it.

    Returns:
        The cleared update for a message of kind 'update'; None for the others.

    Guarantees: the entries are exactly those of our log, the checkpoint is ours, the cosignature
        is ours over what we witnessed last, the arrays fit the approved plan, and the log holds
        the statement about them.

    Raises:
        EgressDenied: anything else. AuditError: the log cannot be read.
    """
    expected = _KINDS.get(message.kind)
    if expected is None:
        raise EgressDenied("an answer of an unknown kind was held back; restart the runner")
    header: Answer | Update | Closed = unpack(message, expected)
    _check_evidence(folder, header)
    if isinstance(header, Update):
        return _clear_update(folder, header, message)
    _check_run(folder, header)
    return None


def with_verdict(folder: Folder, message: Message) -> Message:
    """The cleared update `message` with the log entries that were added since it was written.

    The gate's own verdict is one of them: an institution that leaves after its last update has
    handed over everything about it.
    """
    header = unpack(message, Update)
    log = folder.log()
    keys = folder.keys().public()
    checkpoint = log.checkpoint()
    old, new = (
        note.open_checkpoint(text, key=note.parse_key(keys.log), origin=folder.origin).size
        for text in (header.checkpoint, checkpoint)
    )
    added = tuple(to_base64(log.entry(index)) for index in range(old, new))
    evidence = {"checkpoint": checkpoint, "entries": (*header.entries, *added)}
    return pack(header.model_copy(update=evidence), message.arrays)


def _check_run(folder: Folder, header: Answer | Closed) -> None:
    """Hold back names and digests that are none of a proposed run's."""
    if isinstance(header, Answer) and header.reason == "coordinator-behind":
        return
    plan = decisions.proposed(folder, header.run)
    if isinstance(header, Answer) and header.plan_digest != decisions.digest(plan):
        raise EgressDenied("an answer about another plan was held back; restart the runner")


def _check_evidence(folder: Folder, header: Answer | Update | Closed) -> None:
    log = folder.log()
    keys = folder.keys().public()
    checkpoint = note.open_checkpoint(
        header.checkpoint, key=note.parse_key(keys.log), origin=folder.origin
    )
    if checkpoint.size > log.size or log.note_for(checkpoint.size) != header.checkpoint:
        raise EgressDenied("an answer with a foreign checkpoint was held back; restart the runner")
    start = checkpoint.size - len(header.entries)
    for offset, entry in enumerate(header.entries):
        if start < 0 or entry != to_base64(log.entry(start + offset)):
            raise EgressDenied("an answer with foreign entries was held back; restart the runner")
    size, root = folder.witness().last(folder.invitation().origin) or (0, EMPTY_ROOT)
    if header.witnessed != size:
        raise EgressDenied("an answer that misstates what was witnessed was held back")
    if not header.cosignature and isinstance(header, Answer):
        if header.reason != "coordinator-behind":
            raise EgressDenied("an answer without a cosignature was held back")
        return
    text = note.Checkpoint(folder.invitation().origin, size, root).text
    try:
        note.check_signature(
            text, note.parse_signature(header.cosignature), note.parse_key(keys.witness)
        )
    except AuditError:
        raise EgressDenied(
            "an answer with a foreign cosignature was held back; restart the runner"
        ) from None


def _clear_update(folder: Folder, header: Update, message: Message) -> Cleared:
    plan = decisions.proposed(folder, header.run)
    if decisions.digest(plan) != header.plan_digest or decisions.read(folder, plan) != "approved":
        raise EgressDenied("an update of a plan that was not approved was held back")
    if header.round not in folder.ledger().begun(header.run):
        raise EgressDenied("an update of a round that was not charged was held back")
    cleared = egress.clear(
        message.arrays,
        shapes=shapes_of(folder, plan),
        max_norm=folder.settings.policy.max_update_norm,
    )
    if arrays_digest(cleared.arrays) != header.update_digest:
        raise EgressDenied("an update with another digest was held back; restart the runner")
    event = events.read(dsse.parse(folder.log().entry(header.statement_index)).statement)
    if (
        event.kind != "dp-training"
        or event.subject("update") != header.update_digest
        or (event.run, event.round) != (header.run, header.round)
        or event.fields["plan_digest"] != header.plan_digest
        or event.fields.get("columns") != stated_columns(folder, plan).get("columns")
    ):
        raise EgressDenied("an update without its statement in the log was held back")
    return cleared


def columns(folder: Folder, plan: Plan) -> int:
    """How many columns of each B this institution trains: the plan's, or what its machine can."""
    return min(folder.settings.runtime.columns or plan.adapter.rank, plan.adapter.rank)


def stated_columns(folder: Folder, plan: Plan) -> dict[str, int]:
    """The field of a training statement that says so; empty where all columns are trained."""
    count = columns(folder, plan)
    return {} if count == plan.adapter.rank else {"columns": count}


def shapes_of(folder: Folder, plan: Plan) -> dict[str, tuple[int, int]]:
    """Name and shape of every array of this institution's updates.

    Raises:
        ModelError: the plan's model is not on this machine, or is another.
    """
    found = catalog.find(plan.model, expect_digest=plan.model_digest)
    whole, count = shapes.shapes(found, spec(plan.adapter)), columns(folder, plan)
    if count == plan.adapter.rank:
        return whole
    return {name: (rows, count) for name, (rows, _) in whole.items()}


def spec(table: AdapterTable) -> Spec:
    """The adapter of a plan in the model package's terms."""
    return Spec(**table.model_dump())
