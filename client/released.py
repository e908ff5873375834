"""A verified release, loaded, with its base model beside it and its task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import ClientError
from model import adapter, base, catalog, frozen


@dataclass(frozen=True, slots=True)
class Released:
    """A base model that carries a release's adapter.

    Attributes:
        name: the release's id.
        labels: the task's labels, in the plan's order; may be none.
        chooses: whether it was trained on the choice among the labels, and on nothing else.
    """

    name: str
    labels: tuple[str, ...]
    chooses: bool
    base: base.Base = field(repr=False)
    _model: Any = field(repr=False)

    @contextmanager
    def arm(self, *, tuned: bool) -> Iterator[Any]:
        """The model with its adapter, or the base model alone, for as long as the block lasts."""
        if tuned:
            yield self._model
            return
        with self._model.disable_adapter():
            yield self._model


def trains_a(facts: Mapping[str, Any]) -> bool:
    """Whether the factor A of a release was trained: then no seed gives it."""
    table = facts.get("plan", {}).get("adapter", {})
    return bool(table.get("method") == "lora")


def load(release: Path, *, precision: base.Precision = "float32") -> Released:
    """Load a release that was verified before; `precision` is of the base model.

    Guarantees: the base model's files have the digest that the release states, and the factor A,
        unless the plan trained it, is the one that its public seed gives.

    Raises:
        ModelError: the base model is not installed or differs, or the adapter does not fit it.
        ClientError: the frozen factor is not the seed's.
    """
    facts = json.loads((release / "release.json").read_text("utf-8"))
    trained, fixed, config = adapter.load_arrays(release)
    folder = catalog.find(facts["base_model"], expect_digest=facts["base_digest"])
    loaded = base.load(folder, precision=precision)
    spec = adapter.Spec(
        method="lora",
        rank=config["r"],
        alpha=config["lora_alpha"],
        targets=tuple(config["target_modules"]),
        seed=facts["seed"],
    )
    model = adapter.attach(loaded, spec)
    # As attached, the model carries the seed's A; a plan with "lora" trained it further.
    if not trains_a(facts) and adapter.frozen_digest(model) != frozen.digest(fixed):
        raise ClientError(
            f"the frozen factor in {release} is not the one of its seed; fetch the release again",
            code="frozen-differs",
            exit_code=4,
        )
    adapter.write(model, {**trained, **fixed})
    plan = facts["plan"]
    return Released(
        name=str(facts["release"]),
        labels=tuple(plan["task"]["labels"]),
        chooses=plan["training"]["objective"] == "label",
        base=loaded,
        _model=model,
    )
