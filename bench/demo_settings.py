"""Sampling, steps, learning rate and adapter of the demo, tried on made-up records only.

    python bench/demo_settings.py [--quick] [--json]

Trains three made-up institutions in one process with the production core (no Flower, no logs), at
ε = 2 and δ = 1e-5 per person under zero-out adjacency, and scores base and result on held-out
made-up records. A row takes minutes; noise and sampling are fresh each time, so figures move.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demo import generate
from model import adapter, catalog, prompts, scoring
from model import base as base_model
from model.shapes import Spec
from privacy import dpsgd, plan
from privacy.csprng import Csprng

KINDS: tuple[generate.Kind, ...] = ("hospital", "bank", "hospital")


@dataclass(frozen=True)
class Setting:
    """One row: persons a site, sampling rate, rounds, steps a round, learning rate, adapter."""

    persons: int
    rate: float
    rounds: int
    steps: int
    learning_rate: float
    matrices: tuple[str, ...]
    first_layer: int


GRID = (
    Setting(1000, 0.05, 5, 2, 0.01, ("q_proj", "v_proj"), 15),
    Setting(1000, 0.05, 5, 2, 0.03, ("q_proj", "v_proj"), 15),
    Setting(1000, 0.05, 5, 2, 0.03, ("v_proj",), 10),
    Setting(1500, 0.0333, 5, 2, 0.03, ("v_proj",), 10),
)


def measure(setting: Setting, heldout: int) -> dict[str, float]:
    """Train with one setting and score it."""
    base = base_model.load(catalog.find(catalog.DEFAULT))
    layers = base.model.config.num_hidden_layers
    targets = tuple(
        f"model.layers.{layer}.self_attn.{name}"
        for layer in range(setting.first_layer, layers)
        for name in setting.matrices
    )
    model = adapter.attach(base, Spec(targets=targets, seed="privity/ffa-lora/1"))
    sites = [_encoded(base, kind, setting.persons, seed) for seed, kind in enumerate(KINDS)]
    rows = [
        (person.notes[0].instruction, person.notes[0].response)
        for kind in ("bank", "hospital")
        for person in generate.persons(kind, count=heldout // 2, seed=99, part="heldout")
    ]
    labels = [label for kind in ("bank", "hospital") for label in generate.LABELS[kind]]
    before = scoring.score(model, base, rows, labels)
    sigma = plan.find_noise(
        epsilon=2.0, delta=1e-5, sample_rate=setting.rate, steps=setting.rounds * setting.steps
    )
    began = time.monotonic()
    _federate(model, sites, setting, sigma)
    seconds = time.monotonic() - began
    after = scoring.score(model, base, rows, labels)
    return {
        "noise_multiplier": sigma,
        "seconds": seconds,
        "accuracy_base": before.accuracy,
        "accuracy": after.accuracy,
        "loss_base": before.loss,
        "loss": after.loss,
    }


def _encoded(base: object, kind: generate.Kind, count: int, seed: int) -> list[tuple[object, ...]]:
    people = generate.persons(kind, count=count, seed=10 + seed)
    return [
        tuple(prompts.encode(base, n.instruction, n.response, max_tokens=128) for n in p.notes)
        for p in people
    ]


def _federate(
    model: object, sites: Sequence[list[tuple[object, ...]]], s: Setting, sigma: float
) -> None:
    current = adapter.read(model)
    states: list[object] = [None] * len(sites)
    for _ in range(s.rounds):
        deltas = []
        for number, people in enumerate(sites):
            adapter.write(model, current)
            trained = dpsgd.train(
                model,
                people,
                draw=lambda person, rng: person[rng.choice(len(person))],
                loss=prompts.loss,
                size=lambda example: example.tokens,
                settings=dpsgd.Settings(
                    noise_multiplier=sigma, clip_norm=1.0, sample_rate=s.rate, steps=s.steps,
                    learning_rate=s.learning_rate, chunk_tokens=512,
                ),
                randomness=Csprng(),
                state=states[number],
            )  # fmt: skip
            states[number] = trained.state
            after = adapter.read(model)
            deltas.append({name: after[name] - current[name] for name in current})
        current = {
            name: (current[name] + sum(d[name] for d in deltas) / len(deltas)).astype(np.float32)
            for name in current
        }
    adapter.write(model, current)


def main() -> None:
    """Print a table, and with --json one object as the last line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="one small row, to see that it runs")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    grid = (Setting(60, 0.1, 1, 1, 0.03, ("v_proj",), 28),) if given.quick else GRID
    figures = {}
    for setting in grid:
        found = measure(setting, 20 if given.quick else 200)
        name = (
            f"n={setting.persons} q={setting.rate} T={setting.rounds * setting.steps} "
            f"lr={setting.learning_rate} {'+'.join(setting.matrices)} from {setting.first_layer}"
        )
        figures[name] = found
        print(
            f"{name}: accuracy {found['accuracy_base']:.3f} -> {found['accuracy']:.3f}, "
            f"loss {found['loss_base']:.2f} -> {found['loss']:.2f}, {found['seconds']:.0f} s",
            flush=True,
        )
    if given.json:
        machine = platform.processor() or platform.machine()
        print(json.dumps({"bench": "demo_settings", "machine": machine, "figures": figures,
                          "bars": {}}))  # fmt: skip


if __name__ == "__main__":
    main()
