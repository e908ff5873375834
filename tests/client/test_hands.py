"""Several processes take an institution's steps together, in its cell, with one noise."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import hands, people
from client import train as training
from client.cell import Cell
from client.errors import ClientError
from client.folder import Folder
from client.trainer import Trainer
from model import base, frozen
from model.errors import ModelError
from model.preferences import Preference
from model.prompts import Example
from tests.client.isolation import isolated

_TOKENS = st.lists(st.integers(0, 2**20), min_size=2, max_size=6).map(tuple)
_EXAMPLE = st.builds(Example, _TOKENS, st.just(1))
_PAIR = st.builds(Preference, _EXAMPLE, _EXAMPLE, st.floats(-100, 100, allow_nan=False))


@given(st.one_of(st.lists(st.lists(kind, max_size=3).map(tuple)) for kind in (_EXAMPLE, _PAIR)))
def test_everybody_arrives_as_they_were_sent(everyone: list[Any]) -> None:
    back = hands.unpacked(hands.packed(everyone))
    assert back == tuple(everyone)
    # What the processes compare in every step.
    assert [[hash(item) for item in person] for person in back] == [
        [hash(item) for item in person] for person in everyone
    ]


def _plan(made: Any, **changes: Any) -> tuple[Any, str]:
    from configs.load import check, load
    from configs.run import Plan, Run
    from server import plans

    plan = plans.make(load(made.run_file(rank=8), Run))
    plan = check({**plan.document(), **changes}, Plan, "plan")
    return plan, plans.digest(plan)


def _children(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children() if "client.hands_main" in p.cmdline()]


@pytest.fixture
def site(federation: Callable[..., Any]) -> tuple[Any, Folder]:
    made = federation(("clinic-a",))
    text = (made.root / "clinic-a" / "site.toml").read_text()
    text = text.replace("[runtime]\n", "[runtime]\nprocesses = 2\n").replace(
        "threads = 0", "threads = 1"
    )
    (made.root / "clinic-a" / "site.toml").write_text(text)
    made.set("clinic-a", language="en")
    return made, made.sites["clinic-a"]


def test_two_processes_without_noise_make_the_update_of_one_and_leave_nothing(
    site: tuple[Any, Folder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, folder = site
    monkeypatch.setattr(hands.tempfile, "tempdir", str(tmp_path / "meets"))
    (tmp_path / "meets").mkdir()
    # Everybody is in every step, each with one drawn note at a time: no draw differs.
    changes = {"noise_multiplier": "0.000000001", "sample_rate": "1", "steps_per_round": 2}
    plan, digest = _plan(made, **changes, training={"optimizer": "sgd", "learning_rate": "1"})
    start = frozen.start(_found(plan), _spec(plan))
    trainer = Trainer(folder)
    try:
        assert trainer.load(plan, digest) == "none"
        trainer.open()
        one_note = tuple(person[:1] for person in trainer._people)
        trainer._people = one_note
        assert trainer._hands is not None
        assert len(list((tmp_path / "meets").iterdir())) == 1
        assert len(_children(os.getpid())) == 2
        trainer._hands.open(one_note)
        together = trainer.train(start, None, lambda *_: None)
        alone = training.train(trainer._model, one_note, start, plan, chunk_tokens=384, state=None)
        again = trainer.train(start, together.state, lambda *_: None)
    finally:
        trainer.stop()
    assert list((tmp_path / "meets").iterdir()) == []
    assert _children(os.getpid()) == []
    for name, change in alone.delta.items():
        assert np.abs(change).max() > 1e-4
        np.testing.assert_allclose(together.delta[name], change, rtol=0, atol=1e-6)
        np.testing.assert_allclose(again.delta[name], change, rtol=0, atol=1e-6)


def _found(plan: Any) -> Any:
    from model import catalog

    return catalog.find(plan.model)


def _spec(plan: Any) -> Any:
    from client.border import spec

    return spec(plan.adapter)


@isolated
def test_in_the_cell_noise_is_added_once_and_a_lost_process_fails_the_step(
    site: tuple[Any, Folder], caplog: pytest.LogCaptureFixture
) -> None:
    made, folder = site
    plan, digest = _plan(
        made, sample_rate="0.001", training={"optimizer": "sgd", "learning_rate": "1"}
    )
    start = frozen.start(_found(plan), _spec(plan))
    cell = Cell(folder)
    try:
        assert cell.load(plan, digest) == "none"
        assert cell.network == "none"
        opened = cell.open()
        assert opened is not None
        child: Any = cell._child
        workers = _children(child._process.pid)
        assert len(workers) == 2
        outside = os.readlink("/proc/self/ns/net")
        for worker in workers:  # where the trainer is, and nowhere else
            assert os.readlink(f"/proc/{worker.pid}/ns/net") != outside
            assert os.readlink(f"/proc/{worker.pid}/ns/net") == os.readlink(
                f"/proc/{child._process.pid}/ns/net"
            )
        steps: list[tuple[int, int]] = []
        done = cell.train(start, None, lambda *step: steps.append(step))
        assert steps == [(1, 1)]
        # Hardly anybody is in a step at this rate, so the change is the noise and nothing else.
        values = np.concatenate([array.ravel() for array in done.delta.values()])
        scale = plan.noise_multiplier * plan.clip_norm / (plan.sample_rate * _persons(folder))
        room = 5.0 / math.sqrt(2 * values.size)
        assert abs(values.std() / scale - 1.0) < room
        assert room < (math.sqrt(2) - 1.0) / 2  # noise of both of them would be seen

        workers[1].send_signal(signal.SIGKILL)
        with pytest.raises(ClientError):
            cell.train(start, None, lambda *_: None)
        assert _children(child._process.pid) == []
        # The next round starts others; this one stays charged, as the ledger has it already.
        assert cell.train(start, None, lambda *_: None).delta.keys() == start.keys()
        pids = [worker.pid for worker in _children(child._process.pid)]
        assert len(pids) == 2
    finally:
        cell.stop()
    assert not any(psutil.pid_exists(pid) and _alive(pid) for pid in pids)


def _persons(folder: Folder) -> int:
    return len({record.person for record in people.read(folder).records})


def _alive(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(timeout=60)
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        return True
    return False


def test_processes_that_cannot_load_the_model_say_so_before_anything_is_charged(
    site: tuple[Any, Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = site
    plan, digest = _plan(made)
    popen = hands.subprocess.Popen

    def without_models(command: list[str], **more: Any) -> Any:
        more["env"] = {**more["env"], "PRIVITY_HOME": str(folder.path / "nowhere")}
        return popen(command, **more)

    monkeypatch.setattr(hands.subprocess, "Popen", without_models)
    trainer = Trainer(folder)
    assert trainer.load(plan, digest) == "model-not-available"
    assert trainer._hands is None
    assert _children(os.getpid()) == []


@pytest.mark.parametrize(
    "table",
    [
        {"max_tokens": 16},
        {"max_tokens": 40, "objective": "preference"},
        {"max_tokens": 70, "objective": "label"},
    ],
)
def test_a_plan_without_room_for_an_answer_is_declined_before_anything_is_charged(
    site: tuple[Any, Folder], table: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    made, folder = site
    task = {"labels": ["yes", "certainly " * 5]}
    enough, _ = _plan(made, training={**table, "max_tokens": 400}, task=task)
    training.check_room(enough, base.load(_found(enough)))
    plan, digest = _plan(made, training=table, task=task)
    trainer = Trainer(folder)
    try:
        assert trainer.load(plan, digest) == "plan-inconsistent"
    finally:
        trainer.stop()
    assert "max_tokens" in caplog.text


def test_a_plan_that_learns_thoughts_needs_room_for_one(site: tuple[Any, Folder]) -> None:
    """Else the first record with a thought would fail each round, after its charge."""
    made, _ = site
    plan, _ = _plan(made)
    model = base.load(_found(plan))

    def fits(tokens: int, thoughts: str) -> bool:
        table = plan.training.model_copy(update={"max_tokens": tokens, "thoughts": thoughts})
        try:
            training.check_room(plan.model_copy(update={"training": table}), model)
        except ModelError:
            return False
        return True

    least = next(tokens for tokens in range(8, 400) if fits(tokens, "drop"))
    assert not fits(least, "learn")
    assert fits(400, "learn")
