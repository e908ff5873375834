"""Refusals and the trainer's isolation in a bundle: told to the reader, and in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audit import entries


def _federation(federate: Any, *, network: str, late: bool = False) -> Any:
    class Told(federate):  # type: ignore[misc]
        """A federation in which alpha refuses a proposal and states how its trainer runs."""

        def _state(self) -> None:
            alpha = self.sites["alpha"]
            self.append(alpha, "trainer-started", {"network": network})

        def prepare(self, site: Any) -> None:
            if site is self.sites["alpha"]:
                refused = {"request": "propose", "word": "plan-inconsistent"}
                self.append(site, "request-refused", refused, run=None)
                if not late:
                    self._state()
            super().prepare(site)

        def play_round(self, turn: int, adapter: str) -> Any:
            output = super().play_round(turn, adapter)
            if late and turn == 0:
                self._state()
            return output

    return Told


def _play(made: Any, root: Path) -> Path:
    federation = made(root)
    hub = federation.coordinator
    federation.append(hub, "access-refused", {"interface": "control"}, run=None)
    return Path(federation.play().bundle())


@pytest.mark.parametrize(("network", "told"), [("none", False), ("open", True)])
def test_refusals_and_open_trainers_are_told_and_are_no_fault(
    federate: Any, judge: Any, tmp_path: Path, network: str, told: bool
) -> None:
    bundle = _play(_federation(federate, network=network), tmp_path)
    findings = judge(bundle)
    assert findings.ok
    text = "\n".join(findings.notices)
    assert "alpha refused requests: plan-inconsistent" in text
    assert ("alpha could not cut its trainer off" in text) is told
    assert "beta" not in text
    said = {e.event.kind: e.problem for e in entries.read(bundle).entries}
    assert "propose, plan-inconsistent" in said["request-refused"]
    assert bool(said["trainer-started"]) is told
    assert "control" in said["access-refused"]


def test_a_trainer_that_is_stated_after_it_trained_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    findings = judge(_play(_federation(federate, network="none", late=True), tmp_path))
    assert not findings.ok
    assert ("meaning", "trainer-late") in {(f.layer, f.code) for f in findings.faults}
