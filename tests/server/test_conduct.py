"""The commands on one run: one process at a time, and a way on from wherever one ended."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server import conduct, publish, state
from server.errors import ServerError
from server.marking import OWN_COPY

Make = Callable[..., Any]


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


def test_a_release_goes_on_from_wherever_it_ended(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world("clinic-a")
    run = made.federation.run_file()
    made.train(run)
    out, bundle = (made.coordinator.path / kind / "triage" for kind in ("releases", "bundles"))
    cut, tell_log = publish.releasing.cut, publish._tell_log

    def full(target: Path, **given: Any) -> Any:
        if target.name != OWN_COPY:
            raise OSError(errno.ENOSPC, "No space left on device")
        return cut(target, **given)

    def killed(*given: Any) -> None:
        tell_log(*given)
        raise KeyboardInterrupt

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for place, name, act, copies, entries in (
        (publish.releasing, "cut", full, False, 0),
        (publish, "_tell_log", killed, False, 1),  # between the log's entry and the rename
        (conduct, "_close", interrupted, True, 1),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, act)
            with pytest.raises((OSError, KeyboardInterrupt)):
                made.release(run)
        assert (out.exists(), len(made.events("hub", "release"))) == (copies, entries), name
        assert not bundle.exists()
    released = made.release(run)
    assert released["witnesses"] == ["clinic-a"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["triage"], "no draft is left"
    found = made.verify(released)
    assert found.ok, list(found.lines())
    assert len(made.events("hub", "release")) == 1
    with pytest.raises(ServerError, match="released before"):
        made.release(run)
    out.rename(out.with_name("elsewhere"))
    with pytest.raises(ServerError, match="copies are missing") as lost:
        made.release(run)
    assert lost.value.exit_code == 4


def test_the_old_bundle_is_deleted_only_when_the_new_one_is_in_its_place(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = folder.path / "bundles" / "triage"
    target.mkdir(parents=True)
    kept: Any = SimpleNamespace(path=folder.run("triage"))
    folder.keys = lambda: None
    monkeypatch.setattr(conduct.states, "load", lambda _: kept)
    monkeypatch.setattr(conduct, "Box", lambda *_: SimpleNamespace(arrived=lambda _: ["answer"]))
    taker = SimpleNamespace(take_closed=lambda _: "clinic-a")
    monkeypatch.setattr(conduct, "_conductor", lambda *_: taker)
    monkeypatch.setattr(conduct, "_mirrors", lambda *_: {})
    monkeypatch.setattr(publish, "bundle", lambda *given: (given[-1] / "new").mkdir(parents=True))
    seen: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(conduct.shutil, "rmtree", lambda _: seen.append((target / "new").exists()))
        assert conduct.take_last_evidence(folder, "triage") == target
    assert seen == [True]
