"""The coordinator's keys over time: those of the invitation, and those that followed in its log.

A coordinator that rotates its keys says so in its log. The entry is signed by the old event key and
its note by the old and the new log key; it counts only if it is in the tree that this institution
is asked to cosign, which extends what it cosigned before. So nobody who lacks the old keys can hand
them over, and whoever has them can do it only in the sight of every witness. A retired key counts
for nothing afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from audit import dsse, events, merkle, note, rotation, witness
from audit.canonical import from_base64
from audit.errors import AuditError, BadSignature
from audit.events import Event
from audit.keys import PublicKeys
from client.folder import Folder, Invitation
from configs import files
from privacy.wire import Handover

_FILE = "succession.json"


def known(folder: Folder, invitation: Invitation) -> list[PublicKeys]:
    """The keys that were followed so far, those of the invitation first, those in force last."""
    return [invitation.keys, *(keys for _, keys in _walk(invitation, _kept(folder)))]


def offered(folder: Folder, invitation: Invitation, handovers: Sequence[Handover]) -> PublicKeys:
    """The keys in force if what a message hands over holds; nothing is remembered.

    Raises:
        AuditError: a hand-over is not signed by the keys before it, or differs from one that was
            followed.
    """
    before = known(folder, invitation)
    after = [invitation.keys, *(keys for _, keys in _walk(invitation, _bodies(handovers)))]
    if after[: len(before)] == before:
        return after[-1]
    if before[: len(after)] == after:  # a message that was written before the last one
        return before[-1]
    raise BadSignature(
        f"{invitation.keys.name} hands its keys over to others than it did before; keep the "
        "message and ask its operator",
        code="bad-rotation",
    )


def follow(
    folder: Folder, invitation: Invitation, handovers: Sequence[Handover], request: str
) -> PublicKeys:
    """Follow what a message hands over, and remember it.

    Args:
        folder: the institution.
        invitation: where the keys begin.
        handovers: of the message.
        request: the message's add-checkpoint body; the new keys signed its checkpoint.

    Returns:
        The keys in force.

    Raises:
        AuditError: as `offered`, or a hand-over is not in the tree that the checkpoint states.
    """
    keys, before = offered(folder, invitation, handovers), known(folder, invitation)
    if keys == before[-1]:
        return keys
    asked = witness.parse_request(request.encode())
    stated = note.open_checkpoint(
        asked.checkpoint, key=note.parse_key(keys.log), origin=invitation.origin
    )
    bodies = _bodies(handovers)
    proofs = dict(zip(bodies, handovers, strict=True))
    for body, _ in list(_walk(invitation, bodies))[len(before) - 1 :]:
        path = [from_base64(line, where="a proof line") for line in proofs[body].proof]
        seq = _event(body).seq
        merkle.check_inclusion(merkle.leaf_hash(body), seq, stated.size, path, stated.root)
    kept = {"format": 1, "handovers": [item.entry for item in handovers]}
    files.replace(_place(folder), json.dumps(kept).encode() + b"\n", mode=files.PRIVATE)
    return keys


def _walk(invitation: Invitation, bodies: Sequence[bytes]) -> Sequence[tuple[bytes, PublicKeys]]:
    """Each hand-over after the invitation, with the keys that it puts in force."""
    keys, found = invitation.keys, list[tuple[bytes, PublicKeys]]()
    for body in bodies:
        envelope, event = dsse.parse(body), _event(body)
        if event.kind != "key-rotated" or event.origin != invitation.origin:
            raise BadSignature("a hand-over of keys is none of this log", code="bad-rotation")
        try:
            dsse.check(envelope, note.parse_key(keys.event).public)
        except AuditError:
            if found:
                raise
            continue  # it was before the invitation
        keys = rotation.follow(event, keys).keys
        found.append((body, keys))
    return found


def _event(body: bytes) -> Event:
    return events.read(dsse.parse(body).statement)


def _bodies(handovers: Sequence[Handover]) -> list[bytes]:
    return [from_base64(item.entry, where="a hand-over") for item in handovers]


def _place(folder: Folder) -> Path:
    return folder.path / "state" / _FILE


def _kept(folder: Folder) -> list[bytes]:
    try:
        document = json.loads(_place(folder).read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or document.get("format") != 1:
        raise AuditError(
            f"{_place(folder)} is damaged; restore it, or ask the coordinator for a new invitation "
            "and delete it",
            code="succession-damaged",
        )
    return [from_base64(str(text), where="a hand-over") for text in document["handovers"]]
