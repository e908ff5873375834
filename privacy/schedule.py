"""How large a step is, by its number in the whole run and by nothing else.

The number of a step is public, so a schedule says nothing about anybody: what a noised gradient is
multiplied by afterwards costs no privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from privacy.errors import PlanInvalid

Name = Literal["constant", "cosine", "linear"]
NAMES: Final[tuple[Name, ...]] = get_args(Name)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate's course over all rounds of a run, as shares of the plan's rate.

    Attributes:
        name: after the warm-up, "constant" stays at 1; "cosine" and "linear" fall to `floor`.
        warmup: steps in which the share grows evenly; the last of them has 1.
        floor: where "cosine" and "linear" would arrive one step after the last, within [0, 1].
        total: noisy steps of the run, over all of its rounds; "constant" does not ask.
        first: noisy steps that earlier rounds of the run took, at this institution or without it.

    Raises:
        PlanInvalid: a number is out of its range, or is not a number.
    """

    name: Name = "constant"
    warmup: int = 0
    floor: float = 0.0
    total: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise PlanInvalid(f"schedule is {self.name!r}; give one of {', '.join(NAMES)}")
        if not 0.0 <= self.floor <= 1.0:
            raise PlanInvalid(f"rate_floor is {self.floor}; give a number within [0, 1]")
        for word in ("warmup", "total", "first"):
            value = getattr(self, word)
            if type(value) is not int or value < 0:
                raise PlanInvalid(f"{word} is {value!r}; give a whole number of at least 0")
        if self.name != "constant" and not self.warmup < self.total:
            raise PlanInvalid(
                f"a warm-up of {self.warmup} steps leaves none of {self.total}; shorten it"
            )

    def share(self, done: int) -> float:
        """The share of the learning rate in the step after `done` steps of this call.

        >>> [Schedule("linear", warmup=2, total=6).share(n) for n in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]

        Raises:
            PlanInvalid: the run has no such step.
        """
        at = self.first + done
        if at < self.warmup:
            return (at + 1) / self.warmup
        if self.name == "constant":
            return 1.0
        if not at < self.total:
            raise PlanInvalid(
                f"step {at + 1} is past the run's {self.total}; the schedule ends with the run"
            )
        part = (at - self.warmup) / (self.total - self.warmup)
        left = 1.0 - part if self.name == "linear" else (1.0 + math.cos(math.pi * part)) / 2.0
        return self.floor + (1.0 - self.floor) * left


CONSTANT: Final = Schedule()
