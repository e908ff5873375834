"""Serving in the institution's log: one entry a release and period, without users or numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from audit import canonical
from audit.errors import AuditError
from audit.log import Log
from client.folder import Folder
from client.gateway.metrics import Tally
from configs.serving import Serving

State = Literal["started", "going", "rolled-back", "stopped"]
_STRAINED: Final = 0.01  # share of answers that failed
_FAILING: Final = 0.05
_log = logging.getLogger("privity.serving")


@dataclass(frozen=True, slots=True)
class Served:
    """A release as the log names it: by its adapter's digest, within the run that it came of."""

    digest: str
    run: str | None


def served(release: Path) -> Served:
    """What identifies a verified release."""
    text = (release / "release.json").read_bytes()
    facts = json.loads(text)
    run = facts.get("run")
    stated = facts.get("adapter_digest")
    digest = stated if isinstance(stated, str) else canonical.digest(text)
    return Served(digest, run if isinstance(run, str) else None)


class Journal:
    """Writes to the institution's log; without a folder there is no log to write to.

    Serving is not stopped by a log that cannot be written, since people may need the answer: the
    fault is told on standard error, and the gap is to be seen in the log.
    """

    def __init__(self, folder: Folder | None, settings: Serving, *, upstream: bool) -> None:
        self._folder, self._upstream, self._policy = folder, upstream, settings.policy
        self.releases: dict[str, Served] = {}

    def started(self) -> None:
        """Enter that every release is served from now on."""
        for name in self.releases:
            self._enter(name, "started", "idle")

    def period(self, tally: Tally, state: State = "going") -> None:
        """Enter how the period went for the service as a whole, under each release."""
        for name in self.releases:
            self._enter(name, state, condition(tally))

    def rolled_back(self, name: str) -> None:
        """Enter that a release on trial is served no more."""
        if name in self.releases:
            self._enter(name, "rolled-back", "failing")

    def _enter(self, name: str, state: State, condition: str) -> None:
        if self._folder is None:
            return
        it = self.releases[name]
        fields: Mapping[str, Any] = {
            "release_digest": it.digest,
            "state": state,
            "engine": "upstream" if self._upstream else "embedded",
            "input_policy": self._policy.input,
            "output_policy": self._policy.output,
            "condition": condition,
        }
        log: Log | None = None
        try:
            log = self._folder.log()
            log.append("serving", fields, run=it.run)
        except AuditError as error:
            _log.error("the institution's log took no entry about serving: %s", error.code)
        finally:
            if log is not None:
                log.close()


def condition(tally: Tally) -> str:
    """How a period went, in one word: coarse enough to say nothing about any one question."""
    if not tally.asked:
        return "idle"
    share = tally.failed / tally.asked
    if share > _FAILING:
        return "failing"
    return "strained" if share > _STRAINED or "busy" in tally.outcomes else "good"
