"""One bad day: everything that breaks in the matrix of faults, once, inside two runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.field import Field, field

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def day(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with field(tiny_home, tmp_path_factory.mktemp("day")) as made:
        yield made


def test_a_run_survives_its_day(day: Field) -> None:
    run_file = day.federation.run_file(
        rounds=4, quorum=1, steps_per_round=40, round_timeout_s=120.0, join_timeout_s=150.0
    )
    run = day.train(run_file)
    # Round 1: a runner is killed in the middle of its steps; the institution starts again.
    day.until(lambda: day.at_step("clinic-b", "triage", 0), "steps of round 1")
    day.kill("runner:clinic-b")
    day.processes["clinic-b"].wait(timeout=60)  # a client without runner ends, loudly
    day.start("clinic-b")
    day.until(lambda: day.told("triage", "closed", round=0), "the end of round 1")
    # Round 2: the network is cut for five seconds.
    day.relays["clinic-a"].cut()
    time.sleep(5)
    day.relays["clinic-a"].heal()
    day.until(lambda: day.told("triage", "closed", round=1), "the end of round 2")
    # Round 3: the SuperLink is killed and comes back.
    day.kill("hub")
    day.start("hub")
    day.until(lambda: day.told("triage", "closed", round=2), "the end of round 3")
    # Round 4: the command is killed, and resumed.
    day.kill("run")
    again = day.train(run_file, resume=True)
    assert day.ended(again) == 0, day.tail()
    del run
    closed = day.check("triage")
    assert sorted(closed) == [0, 1, 2, 3]
    assert all(fates["accepted"] for fates in closed.values())


def test_an_institution_that_is_killed_is_back_within_ten_seconds(day: Field) -> None:
    day.back("clinic-a")
    for number in (signal.SIGKILL, signal.SIGTERM):
        day.kill("clinic-a", number)
        day.start("clinic-a")
        # Importing what it needs is the machine's time; the way back is ours.
        day.until(
            lambda: "joining" in (day.machine.logs / f"clinic-a-{day.starts}.log").read_text(),
            "joining",
        )
        joining = time.time()
        # A look a moment before may have been the predecessor's: two beats are the new one's.
        assert day.back("clinic-a", since=joining) < 10, number
        day.back("clinic-a", since=time.time() + 2)


def test_a_revoked_institution_is_shut_out_within_a_minute_while_it_runs(day: Field) -> None:
    day.back("clinic-b")
    day.machine.command("server", "revoke", day.hub, "clinic-b")
    began = time.monotonic()
    day.until(lambda: "clinic-b" not in day.connected(), "clinic-b shut out", step=0.5)
    assert time.monotonic() - began < 60
    process = day.processes["clinic-b"]
    assert process.wait(timeout=120) != 0, "it ends by itself and says why"
    assert "revoked" in day.tail()
