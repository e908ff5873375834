"""What a run would mean for this institution, computed without opening a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client import decisions, judge, memory
from client.border import spec
from client.folder import Folder
from configs.load import load
from configs.run import Plan, Run
from model import catalog, frozen, shapes
from model.manifest import ModelFolder
from privacy import plan as accounting

# A forward and backward pass costs about four operations a parameter and token when the base is
# frozen; processors of this class sustain about this many a second and core in float32.
_OPERATIONS_PER_SECOND = 3.0e10
_CORES = 2


def plan(folder: Folder, run_file: Path) -> dict[str, Any]:
    """Hold RUN.toml against this site: ε before and after, megabytes, minutes, and the decision.

    The number of persons is taken from the number of lines of the records file at most; the time
    is a rough estimate from the model's size.

    Raises:
        ConfigError: RUN.toml cannot be used. ModelError: its model is not on this machine.
    """
    run = load(run_file, Run)
    found = catalog.find(run.model.name, expect_digest=run.model.digest)
    proposed = proposal(run, found)
    wanted = shapes.shapes(found, spec(run.adapter))
    limits = folder.settings.budget
    rows = folder.ledger().rows(limits.cohort)
    verdict = judge.judge(
        proposed,
        folder.settings,
        spent=tuple(row.mechanism for row in rows),
        reserved=any(
            row.run == run.name and row.plan_digest == decisions.digest(proposed) for row in rows
        ),
    )
    values = sum(height * width for height, width in wanted.values())
    megabytes = values * 4 / 1e6
    lines = _lines(folder.data)
    passes = lines * run.privacy.sample_rate * proposed.steps
    tokens = passes * run.training.max_tokens / 2
    taken = seconds(found, tokens=tokens)
    needed = {
        precision: memory.gigabytes(
            found,
            trained=values,
            longest=run.training.max_tokens,
            chunk_tokens=folder.settings.runtime.chunk_tokens,
            precision=precision,
        )
        for precision in ("float32", "bfloat16", "int8", "nf4")
    }
    return {
        "run": run.name,
        "plan_digest": decisions.digest(proposed),
        "decision": "acceptable" if verdict.reason == "none" else verdict.reason,
        "epsilon_before": round(verdict.epsilon_before, 4),
        "epsilon_after": round(verdict.epsilon_after, 4),
        "cap": limits.epsilon,
        "delta": limits.delta,
        "unit": proposed.unit,
        "adjacency": proposed.adjacency,
        "noise_multiplier": proposed.noise_multiplier,
        "sample_rate": proposed.sample_rate,
        "steps": proposed.steps,
        "leaves": f"{len(wanted)} float32 arrays ({values} numbers) in each of "
        f"{run.privacy.rounds} rounds, signed statements without counts, cosignatures",
        "megabytes_up": round(megabytes * run.privacy.rounds, 2),
        "megabytes_down": round(megabytes * run.privacy.rounds, 2),
        "minutes_at_most": round(taken / 60, 1) if lines else "unknown without records",
        "memory_gb": {precision: round(size, 2) for precision, size in needed.items()},
        "gpu_estimates": memory.by_device(found, needed=needed, tokens=tokens),
    }


def proposal(run: Run, found: ModelFolder) -> Plan:
    """The plan that a coordinator would make of `run` with the base model `found`.

    Raises:
        PlanInvalid: no noise reaches the run's ε.
    """
    sigma = accounting.find_noise(
        epsilon=run.privacy.epsilon,
        delta=run.privacy.delta,
        sample_rate=run.privacy.sample_rate,
        steps=run.privacy.rounds * run.privacy.steps_per_round,
    )
    return Plan.of(
        run,
        model_digest=found.digest,
        frozen_digest=frozen.digest(frozen.factors(found, spec(run.adapter))),
        noise_multiplier=sigma,
    )


def seconds(found: ModelFolder, *, tokens: float) -> float:
    """Roughly how long a forward and backward pass over so many tokens takes, at most."""
    parameters = sum(out * wide for out, wide in found.linear.values())
    return tokens * 4 * parameters / _OPERATIONS_PER_SECOND / _CORES


def _lines(path: Path) -> int:
    """Lines of the records file: an upper bound for its persons. Counts bytes, parses nothing."""
    try:
        with path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b"")) + 1
    except OSError:
        return 0
