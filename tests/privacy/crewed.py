"""What one process of a crew does in the tests: started with RANK set."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from privacy import dpsgd
from privacy.crew import Crew
from privacy.csprng import Csprng
from privacy.errors import PlanInvalid
from tests.privacy.adapted import Adapted, mean_loss, people

SIGMA, NORM, PEOPLE = 0.5, 0.7, 23


class Repeatable(Csprng):
    """Draws that a second run can repeat; a test's only."""

    __slots__ = ("draws", "normals")

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.draws, self.normals = np.random.default_rng(seed), 0

    def _words(self, count: int) -> npt.NDArray[np.uint64]:
        return self.draws.integers(0, 2**64, count, dtype=np.uint64)

    def normal(self, shape: tuple[int, ...], std: float) -> npt.NDArray[np.float64]:
        self.normals += 1
        return super().normal(shape, std)


def train(crew: Crew | None, **changes: Any) -> tuple[list[float], int]:
    """Three steps with equal draws; the weights, and how often noise was drawn here."""
    model, source = Adapted(), changes.pop("randomness", None) or Repeatable()
    everyone = changes.pop("everyone", None) or people(PEOPLE)
    numbers = {"noise_multiplier": SIGMA, "clip_norm": NORM, "sample_rate": 0.6, "steps": 3,
               "learning_rate": 1.0, "optimizer": "adamw", "chunk_tokens": 8}  # fmt: skip
    dpsgd.train(
        model,
        everyone,
        draw=lambda person, randomness: person[: 1 + randomness.choice(len(person))],
        loss=mean_loss,
        size=len,
        settings=dpsgd.Settings(**(numbers | changes)),
        randomness=source,
        crew=crew,
    )
    return model.b.weight.detach().double().flatten().tolist(), getattr(source, "normals", 0)


def spread(crew: Crew | None) -> float:
    """Standard deviation of what an empty step adds to the sum, in units of σ times the norm."""
    model = torch.nn.Linear(4, 250, bias=False)
    torch.nn.init.ones_(model.weight)
    before = model.weight.detach().double().clone()
    dpsgd.train(
        model,
        [None] * 4,
        draw=lambda person, randomness: person,
        loss=mean_loss,
        size=len,
        settings=dpsgd.Settings(
            noise_multiplier=SIGMA, clip_norm=NORM, sample_rate=0.5, steps=1, learning_rate=1.0,
            optimizer="sgd",
        ),
        randomness=Csprng(),
        crew=crew,
    )  # fmt: skip
    moved = (model.weight.detach().double() - before) * 4 * 0.5
    return float(moved.std()) / (SIGMA * NORM)


def main() -> None:
    crew = Crew(cpu=True)
    answer: dict[str, Any] = {"number": crew.number, "size": crew.size}
    own = Repeatable(seed=1 + crew.number)  # only process 0's may count
    answer["weights"], answer["normals"] = train(crew, randomness=own)
    answer["fresh"], _ = train(crew, randomness=Csprng())
    answer["spread"] = spread(crew)
    for name, changes in (
        ("settings", {"clip_norm": NORM + crew.number}),
        ("people", {"everyone": people(PEOPLE, seed=5 + (crew.number == 2))}),
    ):
        try:
            train(crew, **changes)
        except PlanInvalid as fault:
            answer[name] = str(fault)
    print(json.dumps(answer), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
