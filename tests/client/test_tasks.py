"""What a round meets before it is charged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client import folder as folders
from client.errors import ClientError
from client.folder import Folder
from client.tasks import Tasks
from client.trainer import Trainer


def test_records_that_are_gone_are_met_before_the_round_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = folders.create(tmp_path / "clinic-a", name="clinic-a", coordinator="127.0.0.1:8443")
    monkeypatch.setattr(Folder, "invitation", lambda self: None)
    monkeypatch.setattr(Tasks, "_judge", lambda *_: "none")
    monkeypatch.setattr("client.tasks._read_state", lambda *_: pytest.fail("went on"))
    monkeypatch.setattr("client.border.shapes_of", lambda *_: {})
    trainer: Any = SimpleNamespace(network="none", load=lambda plan, digest: "none")
    plan: Any = SimpleNamespace(run="triage")
    given: Any = (plan, "sha256:1", None, {}, site.log(), None)
    with pytest.raises(ClientError, match=r"records\.jsonl does not exist.*nothing") as fault:
        Tasks(site, trainer)._train(*given)
    assert fault.value.code == "records-missing"


def test_lists_that_are_gone_are_met_when_a_plan_is_loaded(federation: Callable[..., Any]) -> None:
    from configs.load import load
    from configs.run import Run
    from server import plans

    made = federation(("clinic-a",))
    site = made.sites["clinic-a"]
    scrub = site.settings.scrub.model_copy(update={"lists": "gone.yaml"})
    site = replace(site, settings=site.settings.model_copy(update={"scrub": scrub}))
    plan = plans.make(load(made.run_file(), Run))
    with pytest.raises(ClientError) as fault:
        Trainer(site).load(plan, plans.digest(plan))
    assert fault.value.code == "bad-lists"
