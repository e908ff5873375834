"""What private training is good for: base, each site alone, federated at several ε, not private.

    python bench/utility.py [--quick] [--json] [--data DIR] [--sets ...] [--cells ...] [--seeds N]

Sites train in one process, in turn, by the function that an institution's round calls (no Flower,
no logs). Every private cell is per person under zero-out adjacency at δ = 1e-5, over all its
rounds. The arm that is not private is no private recipe without noise: it has all query and value
matrices, its own learning rate, schedule and steps, all records pooled, and no clipping.

  multidogo  18 intents; finance and insurance, each split into two sites by customer; the joint
             test set, and apart the part of it whose texts occur in no training record
  desks      banking77 with its category as the answer, eight desks, four banks
  medquad    four institutes; perplexity on response tokens of every tenth document, held out

Recovery is (private - base) / (not private - base). Labels are chosen by their probability among
the labels; the base model by that or by calibrated likelihood, whichever is better. Settings were
chosen on parts of multidogo and banking77 themselves, which are public.

Finished cells are kept in --state and are not computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import measure
from bench.measure import Bar, at_least
from client import train as private
from configs.run import Plan, Run
from model import adapter, catalog, prompts, scoring
from model import base as base_model
from model.labels import Labels
from server import aggregate, plans

_DELTA = 1e-5
_CHUNK_TOKENS = 512


@dataclass(frozen=True)
class Set:
    """A task, its recipe, and the recovery at ε = 2 that is aimed at."""

    file: str
    test: str | None
    answer: str
    halves: bool
    institutions: int
    objective: str
    max_tokens: int
    sample_rate: float
    rounds: int
    steps_per_round: int
    learning_rate: float
    first_layer: int
    open_steps: int
    open_rate: float
    goal: float | None


SETS = {
    "multidogo": Set(
        "multidogo.jsonl", "multidogo_test.jsonl", "response", True, 2, "label", 128,
        0.2, 5, 4, 0.06, 10, 40, 0.01, 0.70,
    ),
    "desks": Set(
        "banking77.jsonl", "banking77_test.jsonl", "category", False, 4, "label", 128,
        0.1, 8, 4, 0.1, 10, 60, 0.01, 0.80,
    ),
    "medquad": Set(
        "medquad.jsonl", None, "response", False, 4, "response", 192,
        0.1, 5, 2, 0.03, 10, 60, 0.003, None,
    ),
}  # fmt: skip
CELLS = ("base", "federated-2", "open", "alone-2", "federated-8", "federated-1")

Row = tuple[str, str]


@dataclass
class Task:
    """A set, read and encoded."""

    base: Any
    model: str
    chosen: Set
    sites: dict[str, list[tuple[Any, ...]]]
    test: list[Row]
    novel: list[bool]
    labels: tuple[str, ...]
    layers: int
    test_records: int

    def run(self, epsilon: float, institutions: Sequence[str]) -> Run:
        """The run that a coordinator would write."""
        chosen = self.chosen
        first = min(chosen.first_layer, self.layers - 1)
        targets = [f"model.layers.{n}.self_attn.v_proj" for n in range(first, self.layers)]
        return Run.model_validate(
            {
                "name": "utility",
                "model": {"name": self.model},
                "adapter": {"rank": 8, "alpha": 16, "targets": targets},
                "privacy": {
                    "epsilon": epsilon, "delta": _DELTA, "sample_rate": chosen.sample_rate,
                    "rounds": chosen.rounds, "steps_per_round": chosen.steps_per_round,
                },
                "training": {
                    "objective": chosen.objective, "learning_rate": chosen.learning_rate,
                    "max_tokens": chosen.max_tokens,
                },
                "federation": {"institutions": [f"site-{n}" for n in range(len(institutions))]},
                "task": {"labels": list(self.labels)},
            }
        )  # fmt: skip


def read(
    chosen: Set, data: Path, model: str, *, most: int, test_records: int, skip: int = 0
) -> Task:
    """Records by site and person, encoded; the test rows thinned by a fixed shuffle."""
    base = base_model.load(catalog.find(model))
    rows = _jsonl(data / chosen.file)
    held = _jsonl(data / chosen.test) if chosen.test else []
    if not held:
        held = [row for row in rows if _share(row["unit_id"], "test") < 0.1]
        rows = [row for row in rows if _share(row["unit_id"], "test") >= 0.1]
    labels = ()
    if chosen.objective == "label":
        labels = tuple(sorted({row[chosen.answer] for row in rows}))
    sites: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        site = row["institution"]
        if chosen.halves:
            site += "-a" if _share(row["unit_id"], "half") < 0.5 else "-b"
        example = prompts.encode(
            base, row["instruction"], row[chosen.answer], max_tokens=chosen.max_tokens
        )
        sites.setdefault(site, {}).setdefault(row["unit_id"], []).append(example)
    count = chosen.institutions * (2 if chosen.halves else 1)
    largest = sorted(sites, key=lambda name: (-len(sites[name]), name))[:count]
    people = {
        name: [tuple(notes) for _, notes in sorted(sites[name].items())][:most]
        for name in sorted(largest)
    }
    seen = {row["instruction"] for row in rows}
    random.Random("privity utility").shuffle(held)
    held = held[skip:][:test_records]
    test = [(row["instruction"], row[chosen.answer]) for row in held]
    return Task(
        base, model, chosen, people, test, [ask not in seen for ask, _ in test], labels,
        base.model.config.num_hidden_layers, len(test),
    )  # fmt: skip


def federate(task: Task, epsilon: float, sites: Sequence[str], say: Callable[[str], None]) -> Plan:
    """Train in rounds as institutions would; the model carries the result afterwards."""
    plan = plans.make(task.run(epsilon, sites))
    model = adapter.attach(task.base, plans.adapter_spec(plan))
    labels = private.labels_of(plan, task.base)
    current = adapter.read(model)
    states: dict[str, Any] = dict.fromkeys(sites)
    for turn in range(plan.rounds):
        deltas = []
        for site in sites:
            say(f"round {turn + 1} of {plan.rounds}, {site}")
            trained = private.train(
                model, task.sites[site], current, plan,
                chunk_tokens=_CHUNK_TOKENS, state=states[site], labels=labels,
            )  # fmt: skip
            states[site] = trained.state
            deltas.append(trained.delta)
        current = aggregate.mean(current, deltas)
    adapter.write(model, current)
    return plan


def train_openly(task: Task, seed: int, say: Callable[[str], None]) -> None:
    """Plain AdamW on all records with the better-suited adapter; the model carries the result."""
    chosen = task.chosen
    run = task.run(2.0, list(task.sites))
    run = run.model_copy(update={"adapter": run.adapter.model_copy(update={"targets": ()})})
    model = adapter.attach(task.base, plans.adapter_spec(run))
    labels = Labels.of(task.base, task.labels) if chosen.objective == "label" else None
    notes = [note for people in task.sites.values() for person in people for note in person]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=chosen.open_rate, weight_decay=0.0)
    draws = random.Random(seed)
    size = min(64 if labels else 16, len(notes))
    for step in range(chosen.open_steps):
        share = 0.5 * (1.0 + math.cos(math.pi * step / chosen.open_steps))
        for table in optimizer.param_groups:
            table["lr"] = chosen.open_rate * share
        batch = sorted(draws.sample(notes, size), key=lambda note: note.tokens)
        for at in range(0, size, 8):
            part = batch[at : at + 8]
            (prompts.loss(model, part, labels=labels).sum() / size).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            say(f"step {step + 1} of {chosen.open_steps}")


def judge(task: Task, model: Any, *, base: bool) -> dict[str, float]:
    """Accuracy in all and on novel texts, F1 and loss; or perplexity where there are no labels."""
    if not task.labels:
        return {"perplexity": scoring.perplexity(model, task.base, task.test, max_tokens=192)}
    rules: tuple[scoring.Rule, ...] = ("calibrated", "choice") if base else ("choice",)
    found = scoring.scorecards(model, task.base, task.test, task.labels, rules=rules)
    rule = max(rules, key=lambda rule: found[rule].accuracy)
    card = found[rule]
    novel = [row for row, new in zip(task.test, task.novel, strict=True) if new]
    apart = scoring.score(model, task.base, novel, task.labels, rule=rule) if novel else None
    return {
        "accuracy": card.accuracy,
        "accuracy_novel": apart.accuracy if apart else float("nan"),
        "macro_f1": card.macro_f1,
        "loss": card.loss,
    }


def cell(task: Task, name: str, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One cell of the table: train if need be, judge, take the adapter off again."""
    began = time.monotonic()
    facts: dict[str, Any] = {}
    kind, _, value = name.partition("-")
    if kind == "alone":
        epsilon, _, site = value.partition("@")
        plan = federate(task, float(epsilon), [site], say)
    elif kind == "federated":
        plan = federate(task, float(value), list(task.sites), say)
    elif kind == "open":
        train_openly(task, seed, say)
    if kind in ("alone", "federated"):
        facts = {"noise_multiplier": plan.noise_multiplier, "epsilon": plan.epsilon}
    trained = time.monotonic() - began
    say("judging")
    facts |= judge(task, task.base.model, base=kind == "base")
    if kind != "base":
        task.base = base_model.load(task.base.folder)  # without the adapter
    return {**facts, "seconds": trained}


def main() -> None:
    options = measure.options(__doc__)
    options.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    options.add_argument("--seeds", type=int, default=3, help="of the arm that is not private")
    options.add_argument("--records", type=int, default=10**9, help="of the test set, at most")
    options.add_argument("--skip", type=int, default=0, help="test records that come before them")
    options.add_argument("--state", type=Path, help="file of finished cells, to go on later")
    given = options.parse_args()
    done: dict[str, Any] = {}
    if given.state and given.state.exists():
        done = json.loads(given.state.read_text())
    figures: dict[str, Any] = {}
    bars: dict[str, Bar] = {}
    with tempfile.TemporaryDirectory(prefix="privity-bench-") as folder:
        name = str(measure.make_tiny_model(Path(folder) / "tiny")) if given.quick else None
        for title in given.sets:
            chosen = SETS[title]
            if not (given.data / chosen.file).exists():
                print(f"skipped {title}: {given.data} has no {chosen.file}; give --data DIR")
                continue
            most, records = (12, 8) if given.quick else (10**9, given.records)
            task = read(
                chosen, given.data, name or catalog.DEFAULT,
                most=most, test_records=records, skip=given.skip,
            )  # fmt: skip
            for key in _keys(given.cells, task, given.seeds if not given.quick else 1):
                mark = f"{title}/{key}/{task.test_records}" + f"+{given.skip}" * bool(given.skip)
                if mark not in done:

                    def say(word: str, mark: str = mark) -> None:
                        print(f"{mark}: {word}", file=sys.stderr, flush=True)

                    kind, _, seed = key.partition("#")
                    done[mark] = cell(task, kind, int(seed or 0), say)
                    if given.state:
                        given.state.write_text(json.dumps(done, indent=1))
                figures.setdefault(title, {})[key] = done[mark]
            print(_table(title, task, figures[title]), flush=True)
            bars |= _bars(title, task, figures[title])
    measure.finish("utility", figures, bars, as_json=given.json)


def _keys(cells: Sequence[str], task: Task, seeds: int) -> list[str]:
    keys = []
    for name in CELLS:
        if name in cells and name == "open":
            keys += [f"open#{seed}" for seed in range(seeds)]
        elif name in cells and name.startswith("alone"):
            keys += [f"{name}@{site}" for site in task.sites]
        elif name in cells:
            keys.append(name)
    return keys


def _recovery(task: Task, found: Mapping[str, Any], key: str) -> float:
    what = "accuracy" if task.labels else "perplexity"
    best = [values[what] for name, values in found.items() if name.startswith("open")]
    if "base" not in found or not best or key not in found:
        return float("nan")
    gain = statistics.mean(best) - found["base"][what]
    return (found[key][what] - found["base"][what]) / gain if gain else float("nan")


def _bars(title: str, task: Task, found: Mapping[str, Any]) -> dict[str, Bar]:
    bars = {}
    goal = task.chosen.goal
    if goal is not None and "federated-2" in found:
        value = _recovery(task, found, "federated-2")
        bars[f"{title}: recovery at epsilon 2"] = at_least(value, goal)
    alone = [v["accuracy"] for k, v in found.items() if k.startswith("alone") and "accuracy" in v]
    if alone and "accuracy" in found.get("federated-2", {}):
        margin = found["federated-2"]["accuracy"] - max(alone)
        bars[f"{title}: accuracy over the best site alone"] = at_least(margin, 0.0)
    return bars


def _table(title: str, task: Task, found: Mapping[str, Any]) -> str:
    people = ", ".join(f"{name} {len(persons)}" for name, persons in task.sites.items())
    lines = [f"\n{title}: {len(task.test)} test records, {np.mean(task.novel):.0%} novel; {people}"]
    for key, values in found.items():
        figures = "  ".join(
            f"{name} {value:.3f}" for name, value in values.items() if name != "seconds"
        )
        recovered = _recovery(task, found, key)
        lines.append(f"{key:34}{figures}  recovery {recovered:.2f}  {values['seconds']:.0f} s")
    return "\n".join(lines)


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _share(key: str, salt: str) -> float:
    digest = hashlib.sha256(f"{salt}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


if __name__ == "__main__":
    main()
