"""The whole matrix: each process, each signal, each phase; cuts of each length. `make faults`."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.flow.field import Field, field

pytestmark = [pytest.mark.flow, pytest.mark.soak]

BACK_SECONDS = 10.0


@pytest.fixture(scope="module")
def here(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with field(tiny_home, tmp_path_factory.mktemp("matrix")) as made:
        yield made


@pytest.fixture(autouse=True)
def everybody(here: Field) -> None:
    """Whoever an earlier test left dead is started again; then all are there, with runners."""
    for name in ("hub", *here.federation.sites):
        if here.processes[name].poll() is not None:
            here.start(name)
    for name, relay in here.relays.items():
        relay.heal()
        here.victim(f"runner:{name}")
        here.back(name)


PHASES: dict[str, Callable[[Field, str], bool]] = {
    "agreeing": lambda f, run: f.told(run, "inviting"),
    "training": lambda f, run: f.at_step("clinic-b", run, 1),
    "uploaded": lambda f, run: f.told(run, "update", round=1),
    "between": lambda f, run: f.told(run, "closed", round=0),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
@pytest.mark.parametrize("victim", ["clinic-b", "runner:clinic-b", "hub", "run"])
def test_the_run_ends_or_resumes_and_nothing_is_spent_twice(
    here: Field, victim: str, number: int, phase: str
) -> None:
    word = victim.replace(":", "-")
    run = f"{word}-{number.name.lower()}-{phase}"  # type: ignore[attr-defined]
    run_file = here.federation.run_file(
        name=run,
        rounds=3,
        quorum=2,
        steps_per_round=30,
        epsilon=0.3,
        round_timeout_s=400.0,
        join_timeout_s=400.0,
    )
    command = here.train(run_file)
    here.until(lambda: PHASES[phase](here, run), phase)
    here.kill(victim, number)
    site = "clinic-b" if "clinic-b" in victim else ""
    if site:
        here.processes[site].wait(timeout=60)
        took = here.return_of(site)
        here.note(run, **took)
        assert took["running"] < BACK_SECONDS
    elif victim == "hub":
        here.start("hub")
    code = here.ended(command)
    if victim == "run" or code in (3, 5):
        assert victim == "run" or phase != "agreeing" or code == 3
        command = here.train(run_file, resume=True)
        code = here.ended(command)
    assert code == 0, here.tail()
    closed = here.check(run)
    assert sorted(closed) == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_killed_trainer_costs_the_round_and_not_the_client(here: Field, number: int) -> None:
    run = f"trainer-{number.name.lower()}"  # type: ignore[attr-defined]
    run_file = here.federation.run_file(
        name=run,
        rounds=2,
        quorum=2,
        steps_per_round=30,
        epsilon=0.3,
        round_timeout_s=400.0,
        join_timeout_s=400.0,
    )
    command = here.train(run_file)
    ledger = here.federation.sites["clinic-b"].ledger()
    here.until(lambda: 0 in ledger.begun(run), "the charge")  # opening the records takes seconds
    here.kill("trainer:clinic-b", number)
    assert here.ended(command) == 0, here.tail()
    closed = here.check(run)
    # The round was charged and its answer is lost: it is closed without being averaged.
    assert closed[0]["accepted"] == ["clinic-a"]
    assert closed[1]["accepted"] == ["clinic-a", "clinic-b"]
    assert here.processes["clinic-b"].poll() is None, "the client outlived its trainer"


@pytest.mark.parametrize("seconds", [5, 60])
@pytest.mark.parametrize("at", ["training", "upload"])
def test_a_cut_network_costs_no_answer_or_no_round(here: Field, seconds: int, at: str) -> None:
    run = f"cut-{at}-{seconds}"
    run_file = here.federation.run_file(
        name=run,
        rounds=2,
        quorum=2,
        steps_per_round=30,
        epsilon=0.3,
        round_timeout_s=400.0,
        join_timeout_s=400.0,
    )
    relay, cuts = here.relays["clinic-b"], here.relays["clinic-b"].cuts
    command = here.train(run_file)
    here.until(lambda: here.at_step("clinic-b", run, 0), "steps")
    if at == "upload":
        relay.cut_after = 4000  # only the part with the update is longer than this
        here.until(lambda: relay.cuts > cuts, "a cut in the upload")
    else:
        relay.cut()
    time.sleep(seconds)
    relay.heal()
    took = here.back_from_cut("clinic-b")
    here.note(run, healed=round(took, 1))
    assert took < BACK_SECONDS
    code = here.ended(command)
    if code == 3:
        code = here.ended(here.train(run_file, resume=True))
    assert code == 0, here.tail()
    assert sorted(here.check(run)) == [0, 1]


def test_a_slow_site_misses_its_round_and_the_run_goes_on(here: Field) -> None:
    run_file = here.federation.run_file(
        name="slow", rounds=2, quorum=1, steps_per_round=20, epsilon=0.3, round_timeout_s=90.0
    )
    slow = here.victim("runner:clinic-b")
    command = here.train(run_file)
    here.until(lambda: here.at_step("clinic-b", "slow", 0), "steps")
    slow.suspend()
    here.until(lambda: here.told("slow", "closed", round=0), "the end of round 1")
    slow.resume()
    assert here.ended(command) == 0, here.tail()
    closed = here.check("slow")
    assert closed[0]["accepted"] == ["clinic-a"]
    assert "clinic-b" in closed[0]["absent"] + closed[0]["rejected"]


def test_a_copy_of_an_institution_elsewhere_is_refused_while_the_first_is_connected(
    here: Field, tmp_path: Path
) -> None:
    copy = tmp_path / "clinic-a"
    shutil.copytree(here.site("clinic-a"), copy, ignore=shutil.ignore_patterns("runtime"))
    (copy / "runtime").mkdir()
    said = here.machine.command("client", "run", copy, code=3)
    assert "another client with the same identity" in said
    assert "clinic-a" in here.connected()


def test_a_node_with_a_wrong_clock_is_told_so(here: Field, tmp_path: Path) -> None:
    import subprocess

    here.kill("clinic-b", signal.SIGTERM)
    script = tmp_path / "clock.py"
    script.write_text(
        "import datetime, sys\n"
        "import client.connect as connect, privity\n"
        "class Ahead(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return datetime.datetime.now(tz) + datetime.timedelta(hours=1)\n"
        "connect.datetime = Ahead\n"
        "raise SystemExit(privity.main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "client", "run", str(here.site("clinic-b"))],
        env=here.machine.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    told = re.search(r"clock is (\d+) s ahead of the coordinator's", done.stderr)
    assert told, done.stderr
    assert 3590 < int(told[1]) < 3700  # the answer is as old as the machine is slow


def test_a_certificate_and_a_node_key_are_renewed_while_everything_runs(here: Field) -> None:
    import ssl

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", here.public))

    before = shown()
    here.machine.command("server", "renew", here.hub)
    here.until(lambda: shown() != before, "the new certificate", step=0.5)
    old = here.federation.coordinator.enrolled()["clinic-a"].node_key
    here.machine.command("client", "renew", here.site("clinic-a"))
    here.machine.command(
        "server", "renew", here.hub, "clinic-a", "--request", here.site("clinic-a") / "renew.json"
    )
    assert "clinic-a" in here.connected(), "the old key works until the new one has connected"
    here.kill("clinic-a", signal.SIGTERM)
    here.start("clinic-a")
    here.back("clinic-a")

    def renewed() -> bool:
        site = here.federation.coordinator.enrolled()["clinic-a"]
        return site.node_key != old and not site.next_key

    here.until(renewed, "the old key let go of", step=0.5)
    here.back("clinic-a")
