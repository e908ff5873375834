"""A site's log that contradicts itself is an incident, and both its notes are kept in our log."""

from __future__ import annotations

from typing import Protocol

from audit import incidents
from audit.errors import InconsistentLog
from audit.log import Log
from audit.witness import Witness
from server.mirror import Head, Mirror


class Evidence(Protocol):
    """The part of an answer that extends a site's log."""

    @property
    def entries(self) -> tuple[str, ...]:
        """The entries that are new."""

    @property
    def checkpoint(self) -> str:
        """The site's signed checkpoint over them and all before."""


def extend(mirror: Mirror, answer: Evidence, witness: Witness, log: Log) -> Head:
    """Extend a mirror by an answer's entries (`Mirror.extend`), and log a contradiction.

    Raises:
        AuditError, ServerError: as `Mirror.extend`.
    """
    try:
        return mirror.extend(answer.entries, answer.checkpoint, witness)
    except InconsistentLog as fault:
        incidents.contradiction(log, mirror.origin, fault)
        raise
