"""What a search tries: `Space`, written by whoever searches; it never leaves the institution."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from configs.run import Clipping, NotesPerPerson, Number, Share, Table

Bounds = Annotated[tuple[Number, ...], Field(max_length=2)]
Setting: TypeAlias = float | int | str
Settings: TypeAlias = dict[str, Setting]


class BetweenTable(Table):
    """Drawn between two bounds, on a logarithmic scale; empty is as RUN.toml says."""

    learning_rate: Bounds = ()
    clip_norm: Bounds = ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, bounds in self:
            if bounds and not (len(bounds) == 2 and 0.0 < bounds[0] < bounds[1]):
                raise ValueError(
                    f"between.{name} needs two bounds over 0, the lower one first; correct them"
                )
        return self


class AmongTable(Table):
    """Drawn from a list; empty is as RUN.toml says. `first_layer` counts from 0."""

    sample_rate: tuple[Share, ...] = ()
    rounds: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = ()
    steps_per_round: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = ()
    first_layer: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = ()
    rank: tuple[Annotated[int, Field(ge=1, le=256)], ...] = ()
    notes_per_person: tuple[NotesPerPerson, ...] = ()
    clipping: tuple[Clipping, ...] = ()
    optimizer: tuple[Literal["adamw", "sgd"], ...] = ()
    schedule: tuple[Literal["constant", "cosine", "linear"], ...] = ()


class Space(Table):
    """All that a search may set (SPACE.toml)."""

    format: Literal[1] = 1
    between: BetweenTable = BetweenTable()
    among: AmongTable = AmongTable()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.bounds and not self.choices:
            raise ValueError("nothing is searched; give [between] or [among] a value")
        return self

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value by name."""
        return {name: (pair[0], pair[1]) for name, pair in self.between if pair}

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The values to choose from by name."""
        return {name: tuple(dict.fromkeys(values)) for name, values in self.among if values}

    def holds(self, settings: Settings) -> bool:
        """Whether these settings are a point of the space."""
        return settings.keys() == self.bounds.keys() | self.choices.keys() and all(
            settings[name] in self.choices[name]
            if name in self.choices
            else _within(settings[name], *self.bounds[name])
            for name in settings
        )


def _within(value: Setting, low: float, high: float) -> bool:
    return isinstance(value, float) and low <= value <= high and math.isfinite(value)
