"""Serving in the institution's log: one entry a release and period, and one a sort of access.

No question, answer, user or exact number is in it. Who asked, by the name of the API key, and how
often are salted commitments; the values lie in the log's erasable table.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from audit import canonical, disclosures, settings
from audit.errors import AuditError
from audit.log import Log
from client.folder import Folder
from client.gateway.access import Row, magnitude
from client.gateway.metrics import Tally
from configs.serving import Serving

State = Literal["started", "going", "rolled-back", "stopped"]
_STRAINED: Final = 0.01  # share of answers that failed
_FAILING: Final = 0.05
_log = logging.getLogger("privity.serving")


@dataclass(frozen=True, slots=True)
class Served:
    """A release as the log names it: by its adapter's digest, within the run that it came of.

    Attributes:
        labels: what it was trained to choose among, and nothing else; empty if it writes.
    """

    digest: str
    run: str | None
    labels: tuple[str, ...] = ()


def served(release: Path) -> Served:
    """What identifies a verified release."""
    text = (release / "release.json").read_bytes()
    facts = json.loads(text)
    run = facts.get("run")
    stated = facts.get("adapter_digest")
    digest = stated if isinstance(stated, str) else canonical.digest(text)
    return Served(digest, run if isinstance(run, str) else None, _labels(facts))


def _labels(facts: Mapping[str, Any]) -> tuple[str, ...]:
    plan = facts.get("plan", {})
    if plan.get("training", {}).get("objective") != "label":
        return ()
    return tuple(map(str, plan.get("task", {}).get("labels", ())))


class Journal:
    """Writes to the institution's log; without a folder there is no log to write to.

    Serving is not stopped by a log that cannot be written, since people may need the answer: the
    fault is told on standard error, and the gap is to be seen in the log.
    """

    def __init__(self, folder: Folder | None, chosen: Serving, *, upstream: bool) -> None:
        self._folder, self._upstream, self._settings = folder, upstream, chosen
        self.releases: dict[str, Served] = {}

    def started(self) -> None:
        """Enter that every release is served from now on, and under which settings."""
        with self._log() as log:
            if log is not None:
                self._settle(log)
                for name in self.releases:
                    self._enter(log, name, "started", "idle")

    def period(
        self, tally: Tally, state: State = "going", rows: Sequence[tuple[Row, int]] = ()
    ) -> None:
        """Enter how the period went for the service as a whole, and who was served."""
        with self._log() as log:
            if log is not None:
                self._admit(log, rows)
                for name in self.releases:
                    self._enter(log, name, state, condition(tally))

    def exchanged(
        self, releases: Mapping[str, Served], rows: Sequence[tuple[Row, int]] = ()
    ) -> None:
        """Enter which releases are served no more, and which from now on."""
        before, now = self.releases, dict(releases)
        with self._log() as log:
            if log is not None:
                self._admit(log, rows)
                for name in before.keys() - now.keys():
                    self._enter(log, name, "stopped", "idle")
                self.releases = now
                for name in now.keys() - before.keys():
                    self._enter(log, name, "started", "idle")
        self.releases = now

    def rolled_back(self, name: str) -> None:
        """Enter that a release on trial is served no more."""
        with self._log() as log:
            if log is not None and name in self.releases:
                self._enter(log, name, "rolled-back", "failing")

    def _enter(self, log: Log, name: str, state: State, condition: str) -> None:
        it, policy = self.releases[name], self._settings.policy
        fields: Mapping[str, Any] = {
            "release_digest": it.digest,
            "state": state,
            "engine": "upstream" if self._upstream else "embedded",
            "input_policy": policy.input,
            "output_policy": policy.output,
            "condition": condition,
        }
        log.append("serving", fields, run=it.run)

    def _admit(self, log: Log, rows: Sequence[tuple[Row, int]]) -> None:
        """Enter who was served: one entry a caller, release, route and outcome."""
        if self._settings.access_log == "off":
            return
        table = disclosures.Table(log.folder)
        for row, count in rows:
            # The base model is asked beside a release; the entry names that one.
            bare = row.model not in self.releases
            it = next(iter(self.releases.values())) if bare else self.releases[row.model]
            fields: dict[str, Any] = {
                "adapter_digest": it.digest,
                "route": f"base-{row.route}" if bare else row.route,
                "outcome": row.outcome,
                "requests": magnitude(count),
                **table.commit({"caller": row.caller, "requests": str(count)}),
            }
            log.append("serving-access", fields, run=it.run)

    def _settle(self, log: Log) -> None:
        values = self._settings.model_dump(mode="json")
        content = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        memory = log.folder.parent / "state" / "serving.seen.json"
        settings.note(log, subject="serving", memory=memory, content=content, values=values)

    @contextmanager
    def _log(self) -> Iterator[Log | None]:
        """The log for a few entries, None where there is none; a fault is told, and ends them."""
        with ExitStack() as stack:
            log: Log | None = None
            try:
                if self._folder is not None:
                    log = stack.enter_context(closing(self._folder.log()))
            except AuditError as error:
                _tell(error)
            try:
                yield log
            except AuditError as error:
                _tell(error)


def _tell(error: AuditError) -> None:
    _log.error("the institution's log took no entry about serving: %s", error.code)


def condition(tally: Tally) -> str:
    """How a period went, in one word: coarse enough to say nothing about any one question."""
    if not tally.asked:
        return "idle"
    share = tally.failed / tally.asked
    if share > _FAILING:
        return "failing"
    return "strained" if share > _STRAINED or "busy" in tally.outcomes else "good"
