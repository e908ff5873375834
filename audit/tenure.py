"""Which of a party's keys are in force in its own log: it follows what the log says itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from audit import events, rotation
from audit.errors import AuditError
from audit.events import Event
from audit.keys import PublicKeys
from audit.rotation import Segment

KINDS = ("log-started", "key-rotated")


class Tenure:
    """The keys of one log over time, as far as its entries were read."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.history: list[Segment] = []

    @property
    def since(self) -> int:
        """The size from which on the last keys are in force."""
        return self.history[-1].first

    def follow(self, event: Event) -> None:
        """Take over the keys that an event of `KINDS` puts in force.

        Raises:
            AuditError: a rotation is not signed by the old and the new log key.
        """
        if event.kind == "log-started":
            keys = PublicKeys.from_json(event.fields["keys"])
            self.history = [Segment(0, keys, event.fields.get("keys_expire"))]
        else:
            self.history.append(rotation.follow(event, self.history[-1].keys))

    def forget(self, size: int) -> None:
        """Forget what entries after the first `size` said: they were not stored."""
        self.history = [segment for segment in self.history if segment.first <= size]

    def check(self, keys: PublicKeys, time: datetime | None = None) -> None:
        """Refuse keys that are not in force or, at a given time, no longer.

        Raises:
            AuditError: code `retired-key` or `expired-key`.
        """
        if not self.history:
            return
        held = self.history[-1]
        if held.keys != keys:
            raise AuditError(
                f"the keys of {keys.name} are not those in force in {self._folder}; start again "
                "with the new ones, or finish with privity audit rotate",
                code="retired-key",
                exit_code=2,
            )
        if time is None or held.expires is None or events.timestamp(time) <= held.expires:
            return
        raise AuditError(
            f"the keys of {keys.name} expired at {held.expires}; run privity audit rotate",
            code="expired-key",
            exit_code=3,
        )
