"""What was refused here, in the institution's own log: who reads it sees what was tried."""

from __future__ import annotations

import logging

from client import alarms
from client.folder import Folder

log = logging.getLogger("privity.refusals")

# A flood of refused requests must not fill the log: repetitions, and what comes after so many
# different ones in one process, are not written.
_MOST = 256


class Refusals:
    """Writes each sort of refusal once a process. Never raises: refusing comes first."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._seen: set[tuple[str, str, str]] = set()

    def alarm(self, fault: BaseException) -> None:
        """Sign into the log that a fault is an incident, if it is one."""
        alarms.note(self._folder, fault)

    def note(self, request: str, word: str, *, plan_digest: str = "") -> None:
        """Sign a refusal into the log.

        Args:
            request: the kind of message; one of those of the event `request-refused`.
            word: the fixed word that leaves in place of an answer.
            plan_digest: of the plan that was declined, if that is what happened.
        """
        key = (request, word, plan_digest)
        if key in self._seen or len(self._seen) >= _MOST:
            return
        self._seen.add(key)
        fields = {"request": request, "word": word}
        if plan_digest:
            fields["plan_digest"] = plan_digest
        try:
            self._folder.log().append("request-refused", dict(fields))
        except Exception as fault:
            log.error("a refusal could not be written down (%s)", type(fault).__name__)
