"""A run without sockets in which something crashes, or a disk is full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from privacy.wire import Message, Update, unpack
from server import rounds
from tests.flow.world import of_round, once

Make = Callable[..., Any]


def _updates(world: Any, site: str) -> list[str]:
    return [unpack(m, Update).update_digest for m in world.wire.sent(site, "update")]


# -- crashes --------------------------------------------------------------------------------------


def test_a_coordinator_that_crashed_in_a_round_goes_on_without_new_spend(world: Make) -> None:
    made = world()
    run = made.federation.run_file()

    def crash() -> None:
        raise KeyboardInterrupt

    made.wire.before = once(crash, of_round(0, "clinic-b"))
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    first = _updates(made, "clinic-a")
    assert len(first) == 1
    made.connect()
    assert made.train(run, resume=True).participants == ["clinic-a", "clinic-b"]
    assert len(_updates(made, "clinic-a")) == 1, "an accepted update is not asked for again"
    assert len(_updates(made, "clinic-b")) == 2
    assert made.events("hub", "update-accepted")[0].fields["update_digest"] == first[0]
    assert len(made.events("clinic-a", "dp-training")) == 2
    assert made.sites["clinic-a"].ledger().begun("triage") == {0, 1}
    assert len(made.events("hub", "update-accepted")) == 4
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_lost_answer_is_given_again_with_the_same_bytes(world: Make) -> None:
    made = world("clinic-a")
    run = made.federation.run_file()
    lost: list[bytes] = []

    def lose(message: Message) -> Message:
        if message.kind == "update" and not lost:
            lost.append(b"".join(a.tobytes() for _, a in sorted(message.arrays.items())))
            raise KeyboardInterrupt
        return message

    made.wire.swap["clinic-a"] = lose
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    made.connect()
    made.train(run, resume=True)
    again = made.wire.sent("clinic-a", "update")[0]
    assert b"".join(a.tobytes() for _, a in sorted(again.arrays.items())) == lost[0]
    assert made.spent("clinic-a").rows[0].rounds_begun == 2
    assert made.verify(made.release(run)).ok


@pytest.mark.parametrize("at", ["aggregation", "round-closed"])
def test_a_crash_while_a_round_is_closed_leaves_one_closing(
    world: Make, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    from audit.log import Log

    made = world()
    run = made.federation.run_file()
    real = Log.append
    crashed: list[str] = []

    def append(log: Any, kind: str, *given: Any, **more: Any) -> Any:
        receipt = real(log, kind, *given, **more)
        if kind == at and not crashed:
            crashed.append(kind)
            raise KeyboardInterrupt
        return receipt

    monkeypatch.setattr(Log, "append", append)
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    made.connect()
    made.train(run, resume=True)
    assert [e.round for e in made.events("hub", "aggregation")] == [0, 1]
    assert [e.round for e in made.events("hub", "round-closed")] == [0, 1]
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_site_that_is_gone_when_its_round_is_resumed_does_not_spoil_the_evidence(
    world: Make,
) -> None:
    made = world()
    run = made.federation.run_file(join_timeout_s=3.0)

    def crash() -> None:
        raise KeyboardInterrupt

    made.wire.before = once(crash, of_round(0, "clinic-b"))
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    made.connect().offline.add("clinic-a")
    made.train(run, resume=True)
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


@pytest.mark.parametrize("state", [b"", b"\0" * 64, {"v.exp_avg": np.zeros((32, 1), np.float32)},
                                   {"v.step": np.array(np.nan, np.float32)}])  # fmt: skip
def test_an_optimizer_state_that_does_not_fit_fails_its_round_before_it_costs_one(
    world: Make, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    """As after a change of runtime.columns in the middle of a run."""
    monkeypatch.setattr(rounds, "_GRACE_SECONDS", 60.0)
    made = world()
    data = state if isinstance(state, bytes) else save(state)
    path = made.sites["clinic-b"].run("triage") / "optimizer.safetensors"

    def spoil() -> None:
        assert path.exists()
        path.write_bytes(data)

    made.wire.before = once(spoil, of_round(1, "clinic-b"))
    made.train(made.federation.run_file())
    assert made.wire.failures("clinic-b") == ["failed"]
    assert made.sites["clinic-b"].ledger().begun("triage") == {0}
    assert made.sites["clinic-a"].ledger().begun("triage") == {0, 1}


# -- full disks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["round-0.safetensors", "round-0.json", "optimizer.safetensors"])
def test_a_site_with_a_full_disk_fails_its_round_and_spends_it_once(
    world: Make, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    from configs import files
    from configs.errors import ConfigError

    monkeypatch.setattr(rounds, "_GRACE_SECONDS", 60.0)  # for a machine with other work to do
    made = world()
    real = files.replace

    def replace(path: Any, data: bytes, **more: Any) -> None:
        if path.name == at and "clinic-b" in path.parts and not made.heard("closed"):
            raise ConfigError(f"{path.name} cannot be written (no space left); free space")
        real(path, data, **more)

    monkeypatch.setattr(files, "replace", replace)
    run = made.federation.run_file()
    made.train(run)
    closed = made.events("hub", "round-closed")
    assert [e.fields["accepted"] for e in closed] == [["clinic-a"], ["clinic-a", "clinic-b"]]
    assert closed[0].fields["rejected"] == ["clinic-b"]
    assert made.wire.failures("clinic-b") == ["failed"]
    assert made.sites["clinic-b"].ledger().begun("triage") == {0, 1}
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_coordinator_with_a_full_disk_ends_and_goes_on_when_there_is_room(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from configs import files
    from configs.errors import ConfigError

    made = world()
    real = files.replace

    def replace(path: Any, data: bytes, **more: Any) -> None:
        if path.name.startswith("update-0-clinic-b"):
            raise ConfigError(f"{path.name} cannot be written (no space left); free space")
        real(path, data, **more)

    monkeypatch.setattr(files, "replace", replace)
    run = made.federation.run_file(quorum=2)
    with pytest.raises(ConfigError, match="free space"):
        made.train(run)
    monkeypatch.setattr(files, "replace", real)
    made.connect()
    made.train(run, resume=True)
    assert all(len(e.fields["accepted"]) == 2 for e in made.events("hub", "round-closed"))
    for site in made.sites:
        assert len(made.events(site, "dp-training")) == 2
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())
