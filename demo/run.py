"""The demo, top to bottom: every step is a command that a person could type."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.files import replace
from demo import data, generate, place, story
from demo.data import Prepared
from demo.errors import DemoError
from demo.processes import Processes, free_port
from demo.screen import Screen
from model import catalog

_READY_SECONDS = 120.0
# Each institution decides by policy, and trains with one thread, for all share a machine.
_APPROVE = ('approve = "ask"   ', 'approve = "policy"')
_THREADS = ("threads = 0", "threads = 1")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for on the command line."""

    out: Path
    source: Path | None
    institutions: int
    rounds: int
    epsilon: float
    force: bool


@dataclass(frozen=True, slots=True)
class _Sampling:
    rate: float
    steps_per_round: int


def run(wish: Wish, screen: Screen) -> dict[str, Any]:
    """Take the whole way, and return the figures of the closing table.

    Raises:
        DemoError: a step failed, with the failed command's sentence and exit code.
    """
    if wish.institutions < 1 or wish.institutions > 20:
        raise DemoError("--institutions must be 1 to 20")
    began = time.monotonic()
    with place.claim(wish.out, force=wish.force) as out, Processes(out / "logs") as processes:
        screen.step("model")
        model = catalog.pull(catalog.DEFAULT, progress=screen.part)
        pulled = time.monotonic()
        screen.step("records")
        prepared = _records(wish, out)
        screen.step("enrol")
        network = _enrol(prepared, out, processes, screen)
        screen.step("connect")
        coordinator = processes.service(
            "coordinator", ["server", "start", str(out / "coordinator")]
        )
        processes.wait_for("coordinator", "is ready on", seconds=_READY_SECONDS)
        for name in prepared.sites:
            processes.service(name, ["client", "run", str(out / "institutions" / name)])
        run_file = _run_file(wish, prepared, out, model.digest)
        screen.step("train")
        sites = {name: out / "institutions" / name for name in prepared.sites}
        story.train(
            processes, screen, out / "coordinator", sites, run="demo",
            arguments=["--run", str(run_file)],
        )  # fmt: skip
        trained = time.monotonic()
        screen.step("release")
        released = processes.json(
            "release",
            ["server", "release", str(out / "coordinator"), "demo", "--run", str(run_file)],
            meanwhile=story.Story(out / "coordinator", "demo", screen).follow,
        )
        shutil.copytree(released["release"], out / "release")
        shutil.copytree(released["bundle"], out / "bundle")
        screen.step("verify")
        verified = _verify(processes, out)
        budgets = {
            name: processes.json(
                f"budget-{name}", ["client", "budget", str(out / "institutions" / name)]
            )
            for name in prepared.sites
        }
        del coordinator
        screen.step("stop")
    ended = time.monotonic()
    result = {
        "institutions": {
            name: {
                "epsilon": budgets[name]["spent"] + budgets[name]["reserved"],
                "cap": budgets[name]["cap"],
                "delta": budgets[name]["delta"],
                **_scrubbed(out / "institutions" / name, prepared.sites[name], prepared.generated),
            }
            for name in prepared.sites
        },
        "rounds": wish.rounds,
        "evaluation": released["evaluation"],
        "watermark": released["watermark"],
        "witnesses": released["witnesses"],
        "trainer": "cut off" if network == "none" else "not cut off",
        "verified": verified,
        "generated": prepared.generated,
        "seconds": {
            "model": round(pulled - began, 1),
            "training": round(trained - pulled, 1),
            "release_and_verification": round(ended - trained, 1),
            "total": round(ended - began, 1),
            "without_model": round(ended - pulled, 1),
        },
    }
    place.finish(wish.out, result)
    return result


def _records(wish: Wish, out: Path) -> Prepared:
    if wish.source is None:
        return data.made_up(out, institutions=wish.institutions)
    return data.split(out, wish.source, institutions=wish.institutions)


def _enrol(prepared: Prepared, out: Path, processes: Processes, screen: Screen) -> str:
    """Make the coordinator and the institutions, and exchange their files.

    Returns:
        What the institutions' trainers may do without being cut off: "none" or "warn".
    """
    coordinator = out / "coordinator"
    doctor = None
    port, control = free_port(), free_port()
    processes.command(
        "init",
        ["server", "init", str(coordinator), "--name", "coordinator",
         "--port", str(port), "--control-port", str(control)],
    )  # fmt: skip
    for number, (name, records) in enumerate(prepared.sites.items(), start=1):
        screen.part(name, number / len(prepared.sites))
        site = out / "institutions" / name
        processes.command(
            f"init-{name}",
            ["client", "init", str(site), "--name", name, "--coordinator", f"127.0.0.1:{port}"],
        )
        replace(site / "records.jsonl", records.read_bytes(), mode=0o600)
        _allow(site / "site.toml", (_APPROVE, _THREADS))
        doctor = doctor or processes.begin("doctor", ["client", "doctor", str(site)])
        processes.command(
            f"enroll-{name}", ["server", "enroll", str(coordinator), str(site / "enroll.json")]
        )
        invitation = coordinator / "invitations" / f"{name}.json"
        replace(site / "invitation.json", invitation.read_bytes())
    network = _network(processes.outcome(doctor) if doctor else None)
    for name in prepared.sites:
        choice = ('network = "none"', f'network = "{network}"')
        _allow(out / "institutions" / name / "site.toml", (choice,))
    return network


def _network(checks: Any) -> str:
    """What site.toml asks of the trainer: to be cut off, unless this machine does not allow it.

    The records are made up or the person's own, so the demo also runs where it cannot be.

    Args:
        checks: what `privity client doctor` found, or None.
    """
    passed = [check["name"] for check in checks or () if check["verdict"] == "PASS"]
    return "none" if "trainer" in passed else "warn"


def _allow(settings: Path, choices: Sequence[tuple[str, str]]) -> None:
    """Make the institution's own choices in its site.toml."""
    text = settings.read_text(encoding="utf-8")
    for old, new in choices:
        if old not in text:
            raise DemoError(f"{settings} is not as expected; install privity again", exit_code=1)
        text = text.replace(old, new)
    replace(settings, text.encode())


def _run_file(wish: Wish, prepared: Prepared, out: Path, digest: str) -> Path:
    """RUN.toml of the demo, as the coordinator would write it."""
    names = ", ".join(json.dumps(name) for name in prepared.sites)
    labels = ", ".join(json.dumps(label, ensure_ascii=False) for label in prepared.labels)
    sampling = _MADE_UP if wish.source is None else _FROM_FILE
    targets = ", ".join(
        f'"model.layers.{layer}.self_attn.v_proj"' for layer in range(_FIRST_LAYER, _LAYERS)
    )
    text = f"""\
format = 1
name = "demo"

[model]
name = "{catalog.DEFAULT}"
digest = "{digest}"

[adapter]
rank = 8
alpha = 16
targets = [{targets}]

[privacy]
epsilon = {wish.epsilon}
delta = 1e-5
clip_norm = 1.0
sample_rate = {sampling.rate}
rounds = {wish.rounds}
steps_per_round = {sampling.steps_per_round}

[training]
learning_rate = {_LEARNING_RATE}
max_tokens = 128

[federation]
institutions = [{names}]
quorum = {len(prepared.sites)}

[task]
description = "Say which desk or intent a short text belongs to."
labels = [{labels}]

[evaluation]
path = "heldout.jsonl"
description = {json.dumps(prepared.description)}
limit = {_EVALUATION_RECORDS}
"""
    path = out / "run.toml"
    replace(path, text.encode())
    return path


# Chosen on made-up records only; see docs/decisions/0007-demo-settings.md.
_MADE_UP = _Sampling(0.0333, 2)
# Files tend to hold fewer persons and shorter texts: more of them a step, and more steps.
_FROM_FILE = _Sampling(0.2, 4)
_LEARNING_RATE = 0.03
_EVALUATION_RECORDS = 200
_FIRST_LAYER, _LAYERS = 10, 30


def _verify(processes: Processes, out: Path) -> dict[str, Any]:
    """Verify the bundle with the officer's command; a fault ends the demo with exit code 4."""
    found = processes.json("verify", ["audit", "verify", str(out / "bundle")])
    return {"ok": found["ok"], "faults": len(found["faults"]), "rounds": found["rounds"]}


def _scrubbed(site: Path, records: Path, generated: bool) -> dict[str, Any]:
    """What the site's scrub report says, and how much of the known identifiers it caught."""
    report = json.loads((site / "scrub-report.json").read_text(encoding="utf-8"))["report"]
    facts: dict[str, Any] = {
        "records": report["records"],
        "persons": report["persons"],
        "kept": report["kept"],
        "removed": sum(report["removed"].values()),
        "quarantined": sum(report["quarantined"].values()),
    }
    if generated:
        facts["caught"] = _caught(records)
    return facts


def _caught(records: Path) -> float:
    """Share of the known identifiers that the scrub covers, on a sample of the site's records."""
    from privacy.scrub import Scrubbed, Scrubber

    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    rows = rows[:: max(1, len(rows) // 200)]
    tool = Scrubber.load(secret=bytes(32))
    texts, persons = [r["instruction"] for r in rows], [str(r["unit_id"]) for r in rows]
    pairs = [
        (generate.Note(r["instruction"], r["response"], _known(r)), done.spans)
        for r, done in zip(rows, tool.scrub_many(texts, persons), strict=True)
        if isinstance(done, Scrubbed)
    ]
    return generate.caught_share([note for note, _ in pairs], [spans for _, spans in pairs])


def _known(row: dict[str, Any]) -> tuple[generate.Identifier, ...]:
    return tuple(
        generate.Identifier(start, end, kind, row["instruction"][start:end])
        for start, end, kind in row["identifiers"]
    )
