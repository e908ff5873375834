"""An institution alone: a federation of one, with a coordinator of its own on loopback.

Nothing is trained, charged, logged or released in another way than in a federation: the same
commands run, with the institution's own ledger, log, gate and policy. The coordinator's keys lie in
the institution's folder, so that it signs its release itself.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.files import replace
from configs.load import load
from configs.run import Run
from configs.site import Site
from demo import story
from demo.errors import DemoError
from demo.processes import Processes, free_port
from demo.screen import Screen

STEPS = {
    "enrol": "a coordinator of your own, on loopback",
    "connect": "SuperLink behind TLS, one SuperNode and runner",
    "train": "scrub, reserve ε, train privately, gate",
    "release": "watermark, evaluate, sign, bundle",
    "verify": "offline verification",
    "stop": "stop every process",
}
_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for on the command line.

    Attributes:
        site: the institution's folder.
        run_file: RUN.toml; it may leave out `[federation]`.
        resume: go on with a run that was stopped.
    """

    site: Path
    run_file: Path
    resume: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of one run lies, inside the institution's folder.

    Attributes:
        asks: whether site.toml wants a person to approve each run.
    """

    name: str
    run: str
    coordinator: Path
    run_file: Path
    release: Path
    bundle: Path
    logs: Path
    asks: bool


def train(wish: Wish, place: Place, screen: Screen) -> dict[str, Any]:
    """Take the whole way in the institution's folder; asking for it is the person's approval.

    Args:
        wish: what to train.
        place: from `prepare`.
        screen: what is shown.

    Returns:
        The figures of the closing table.

    Raises:
        DemoError: a step failed, with the failed command's sentence and exit code.
    """
    with Processes(place.logs) as processes:
        screen.step("enrol")
        enrol(place, wish.site, processes)
        screen.step("connect")
        processes.service("coordinator", ["server", "start", str(place.coordinator)])
        processes.wait_for("coordinator", "is ready on", seconds=_READY_SECONDS)
        processes.service(place.name, ["client", "run", str(wish.site)])
        screen.step("train")
        resume = ["--resume"] if wish.resume else []
        story.train(
            processes, screen, place.coordinator, {place.name: wish.site}, run=place.run,
            arguments=["--run", str(place.run_file), *resume],
            undecided=lambda: _approve(place, wish.site, processes),
        )  # fmt: skip
        screen.step("release")
        released = processes.json(
            "release",
            ["server", "release", str(place.coordinator), place.run, "--run", str(place.run_file)],
            meanwhile=story.Story(place.coordinator, place.run, screen).follow,
        )
        shutil.copytree(released["bundle"], place.bundle)
        shutil.copytree(released["release"], place.release)
        screen.step("verify")
        found = processes.json("verify", ["audit", "verify", str(place.bundle)])
        budget = processes.json("budget", ["client", "budget", str(wish.site)])
        screen.step("stop")
    return {
        "run": place.run,
        "release": str(place.release),
        "bundle": str(place.bundle),
        "epsilon": budget["spent"] + budget["reserved"],
        "cap": budget["cap"],
        "delta": budget["delta"],
        "rounds": found["rounds"],
        "evaluation": released["evaluation"],
        "watermark": released["watermark"],
        "verified": {"ok": found["ok"], "faults": len(found["faults"])},
    }


def prepare(wish: Wish) -> Place:
    """Read the settings, and complete the run file with the one institution that there is.

    Raises:
        DemoError: the run invites somebody else, or was finished before.
        ConfigError: site.toml or RUN.toml cannot be used.
    """
    if not (wish.site / "site.toml").exists():
        raise DemoError(
            f"{wish.site} is not an institution's folder; run: privity client init {wish.site} "
            "--name NAME --coordinator 127.0.0.1:8443"
        )
    settings = load(wish.site / "site.toml", Site)
    name = settings.name
    own = wish.site / "alone"
    text = _completed(wish.run_file, name)
    own.mkdir(mode=0o700, exist_ok=True)
    (own / "runs").mkdir(mode=0o700, exist_ok=True)
    # Kept under the file's name for its sentences, then under the run's.
    written = own / "runs" / wish.run_file.name
    replace(written, text.encode())
    run = load(written, Run)
    if run.federation.institutions != (name,):
        raise DemoError(
            f"{wish.run_file} invites others than {name}; leave [federation] out, or train with "
            "them: privity client run"
        )
    held = run.evaluation.path
    if held and not Path(held).is_absolute():
        absolute = (wish.run_file.parent / held).resolve()
        text = text.replace(f'path = "{held}"', f"path = {json.dumps(str(absolute))}", 1)
    run_file = own / "runs" / f"{run.name}.toml"
    replace(run_file, text.encode())
    if written != run_file:
        written.unlink()
    results = own / run.name
    for done in (results / "release", results / "bundle"):
        if done.exists():
            raise DemoError(f"{done} exists, so this run was finished; choose another name for it")
    logs = results / "logs"
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    coordinator = own / "coordinator"
    return Place(
        name, run.name, coordinator, run_file, results / "release", results / "bundle", logs,
        asks=settings.policy.approve == "ask",
    )  # fmt: skip


def _completed(run_file: Path, name: str) -> str:
    try:
        text = run_file.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise DemoError(
            f"{run_file} cannot be read as TOML; see configs/run.example.toml"
        ) from None
    if "federation" in tables:
        return text
    return f"{text.rstrip()}\n\n[federation]\ninstitutions = [{json.dumps(name)}]\nquorum = 1\n"


def enrol(place: Place, site: Path, processes: Processes) -> None:
    """Make the institution's own coordinator, unless it is there, and enrol the institution.

    Raises:
        DemoError: the folder holds another coordinator's invitation.
    """
    invitation = site / "invitation.json"
    ours = place.coordinator / "invitations" / f"{place.name}.json"
    if invitation.exists() and not (ours.exists() and ours.read_bytes() == invitation.read_bytes()):
        raise DemoError(
            f"{invitation} is of another coordinator, with which this institution trains; a run "
            "alone would need a folder of its own, with what is left of the budget as its cap",
            exit_code=3,
        )
    if not (place.coordinator / "coordinator.toml").exists():
        shutil.rmtree(place.coordinator, ignore_errors=True)
        processes.command(
            "init",
            ["server", "init", str(place.coordinator), "--name", f"{place.name}-own",
             "--port", str(free_port()), "--control-port", str(free_port())],
        )  # fmt: skip
    if not ours.exists():
        processes.command(
            "enroll", ["server", "enroll", str(place.coordinator), str(site / "enroll.json")]
        )
    replace(invitation, ours.read_bytes())


def cost(wish: Wish, place: Place) -> str:
    """What the run would cost and send, in the words of `privity client plan`."""
    with Processes(place.logs) as processes:
        return processes.command(
            "plan", ["client", "plan", str(wish.site), "--run", str(place.run_file)]
        )


def _approve(place: Place, site: Path, processes: Processes) -> None:
    processes.command("approve", ["client", "approve", str(site), place.run])
