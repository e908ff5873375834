"""The commands on one run: one process at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server import conduct, state
from server.errors import ServerError


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    (tmp_path / "runs" / "triage").mkdir(parents=True)
    return SimpleNamespace(path=tmp_path, run=lambda name: tmp_path / "runs" / name)


def test_a_run_that_another_process_holds_is_refused_with_the_way_on(folder: Any) -> None:
    run: Any = SimpleNamespace(name="triage")

    def release() -> None:
        conduct.release(folder, "triage", None, base=folder.path, licence="MIT")

    acts = [
        lambda: conduct.train(folder, run, resume=False),
        lambda: conduct.train(folder, run, resume=True),
        release,
    ]
    with state.alone(folder.run("triage")):
        for act in acts:
            with pytest.raises(ServerError, match=r"another process.*--resume") as refused:
                act()
            assert (refused.value.code, refused.value.exit_code) == ("already-running", 3)
    with pytest.raises(ServerError, match="holds no run"):
        release()  # the end of the other freed it


def test_last_evidence_waits_for_the_process_that_holds_the_run(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = folder.run("triage"), threading.Event()
    monkeypatch.setattr(conduct, "_take_last_evidence", lambda *_: done.set())
    taker = threading.Thread(target=conduct.take_last_evidence, args=(folder, "triage"))
    with state.alone(path):
        taker.start()
        assert not done.wait(0.2)
    assert done.wait(300)
    taker.join()


def test_a_misspelt_run_is_none_and_leaves_nothing_behind(folder: Any) -> None:
    with pytest.raises(ServerError, match="holds no run"):
        conduct.take_last_evidence(folder, "triaje")
    assert not folder.run("triaje").exists()
