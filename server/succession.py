"""What every message to a site carries of the logs: ours to be witnessed, theirs, and our keys."""

from __future__ import annotations

from typing import Any

from audit import note, witness
from audit.canonical import to_base64
from audit.log import Log
from privacy.wire import Handover
from server.mirror import Mirror


def down(log: Log, mirror: Mirror, witnessed: int) -> dict[str, Any]:
    """The evidence part of a message to the site of a mirror.

    Args:
        log: the coordinator's log.
        mirror: the site's log.
        witnessed: the size of the coordinator's log that the site cosigned last.
    """
    body = witness.request(log, witnessed)
    size = note.parse_checkpoint(note.parse(witness.parse_request(body).checkpoint)).size
    rotated = [entry.index for entry in log.entries("key-rotated") if entry.index < size]
    return {
        "witness": body.decode(),
        "cosigned": mirror.cosigned,
        "have": mirror.size,
        "handovers": tuple(
            Handover(
                entry=to_base64(log.entry(index)),
                proof=tuple(to_base64(node) for node in log.inclusion(index, size)),
            )
            for index in rotated
        ),
    }
