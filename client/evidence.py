"""The institution's half of the evidence: what it witnesses, and what it hands over.

Every message of the coordinator carries its newest checkpoint and the institution's own last
checkpoint as the coordinator cosigned it. The first is checked and cosigned; the second must be
in our log's past: a log or a ledger behind it was restored from an old copy and trains no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit import custody, note, rotation
from audit.canonical import to_base64
from audit.errors import AuditError
from audit.keys import PublicKeys
from audit.log import Log
from client import alarms, succession
from client.errors import ClientError
from client.folder import Folder, Invitation
from privacy.wire import Close, Propose, Round

Down = Propose | Round | Close


@dataclass(frozen=True, slots=True)
class Handover:
    """The evidence part of an answer: newest checkpoint, entries from `have` on, cosignature."""

    checkpoint: str
    entries: tuple[str, ...]
    witnessed: int
    cosignature: str


def take(folder: Folder, log: Log, invitation: Invitation, message: Down) -> str:
    """Check what the coordinator says of both logs, and cosign its checkpoint.

    Returns:
        Our cosignature line on the coordinator's newest checkpoint.

    Raises:
        ClientError: our log or ledger is older than what the coordinator cosigned, or its log
            contradicted itself before and that incident is open.
        StaleRequest: the coordinator asked from a size before the one that we cosigned last.
        AuditError: the coordinator's log does not extend what we saw of it, or it claims entries
            of ours that there never were.
    """
    keys = succession.follow(folder, invitation, message.handovers, message.witness)
    check_not_restored(folder, log, invitation, message.cosigned)
    if not message.have <= log.size:
        raise AuditError("the coordinator claims entries that this log never had", code="have")
    alarms.check(log)
    return folder.witness().cosign_request(
        message.witness.encode(), log_key=keys.log, origin=invitation.origin
    )


def check_not_restored(folder: Folder, log: Log, invitation: Invitation, cosigned: str) -> None:
    """Check that our log and ledger contain everything that the coordinator saw of them.

    Raises:
        ClientError: the log does not (exit code 4): an older copy was restored.
        LedgerFault: the ledger lacks a head that the log published.
    """
    if cosigned:
        seen = note.parse(cosigned)
        _check_cosigned(seen, succession.known(folder, invitation))
        past = rotation.open_note(cosigned, custody.history(folder.path), folder.origin)
        if past.size > log.size or log.root(past.size) != past.root:
            raise ClientError(
                f"the log in {folder.path} is older than what the coordinator has seen of it; "
                "restore the newest copy of the whole folder",
                code="log-restored",
                exit_code=4,
            )
    check_ledger(folder, log)


def _check_cosigned(seen: note.Note, keys: Sequence[PublicKeys]) -> None:
    """Check that the coordinator cosigned, by the keys of today or by those of that time.

    Raises:
        BadSignature: it did not.
    """
    for held in reversed(keys[1:]):
        try:
            note.check_signed(seen, note.parse_key(held.witness))
        except AuditError:
            continue
        return
    note.check_signed(seen, note.parse_key(keys[0].witness))


def check_ledger(folder: Folder, log: Log) -> None:
    """Check that the ledger holds every head that the log published.

    Raises:
        LedgerFault: it does not: an older copy was restored.
    """
    folder.ledger().check_holds(
        *(
            str(entry.event.fields["ledger_head"])
            for kind in ("budget-reserved", "dp-training")
            for entry in log.entries(kind)
        )
    )


def hand_over(folder: Folder, log: Log, origin: str, *, have: int, cosignature: str) -> Handover:
    """Collect the entries that the coordinator does not hold yet, under a fresh checkpoint.

    Raises:
        AuditError: the coordinator claims to hold more entries than there are.
    """
    checkpoint = log.checkpoint()
    size = log.size
    if have > size:
        raise AuditError("the coordinator claims entries that this log never had", code="have")
    entries = tuple(to_base64(log.entry(index)) for index in range(have, size))
    seen = folder.witness().last(origin)
    return Handover(checkpoint, entries, seen[0] if seen else 0, cosignature)
