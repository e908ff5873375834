"""The example files are read by the code that reads the real ones, and name every key there is."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from configs.load import load
from configs.prepare import Recipe
from configs.run import Run, Table
from configs.search import Space
from configs.serving import Serving
from configs.site import Site
from configs.thresholds import Thresholds

FOLDER = Path(__file__).parents[2] / "configs"
EXAMPLES: list[tuple[str, type[Table]]] = [
    ("run.example.toml", Run),
    ("serving.example.toml", Serving),
    ("site.example.toml", Site),
    ("thresholds.example.toml", Thresholds),
    ("prepare.example.toml", Recipe),
]
# Where every key is empty unless it is given.
ALL = [*EXAMPLES, ("space.example.toml", Space)]
# What has no value before a person gives it one.
OPEN = {"model.digest", "stopping.digest"}
# Where the example shows a value of its own because the default is empty or there is none.
OWN = {
    "name", "coordinator", "federation.institutions", "federation.quorum", "task.description",
    "task.labels", "evaluation.path", "evaluation.description",
}  # fmt: skip


def _keys(table: type[BaseModel], before: str = "") -> dict[str, Any]:
    """Every dotted key of a table, with its default."""
    found: dict[str, Any] = {}
    for name, field in table.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= _keys(inner, f"{before}{name}.")
        else:
            found[before + name] = field.default
    return found


def _written(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _written(value, f"{before}{name}.")
        else:
            found[before + name] = tuple(value) if isinstance(value, list) else value
    return found


@pytest.mark.parametrize(("name", "table"), ALL)
def test_an_example_loads_as_its_table(name: str, table: type[Table]) -> None:
    assert load(FOLDER / name, table)


@pytest.mark.parametrize(("name", "table"), ALL)
def test_an_example_names_every_key_and_no_other(name: str, table: type[Table]) -> None:
    written = _written(tomllib.loads((FOLDER / name).read_text(encoding="utf-8")))

    assert written.keys() | OPEN == _keys(table).keys() | OPEN


@pytest.mark.parametrize(("name", "table"), EXAMPLES)
def test_an_example_shows_the_default_of_every_key_that_has_one(
    name: str, table: type[Table]
) -> None:
    written = _written(tomllib.loads((FOLDER / name).read_text(encoding="utf-8")))
    defaults = _keys(table)

    differing = {key for key, value in written.items() if key not in OWN and value != defaults[key]}

    assert differing == set()


def test_the_run_example_keeps_within_the_site_example() -> None:
    run = load(FOLDER / "run.example.toml", Run)
    site = load(FOLDER / "site.example.toml", Site)

    assert site.name in run.federation.institutions
    assert run.model.name in site.policy.models
    assert run.privacy.delta == site.budget.delta
    assert run.privacy.epsilon <= min(site.policy.run_epsilon, site.budget.epsilon)
    assert run.privacy.rounds * run.privacy.steps_per_round <= site.policy.max_steps


READY = sorted((FOLDER / "ready").glob("*.toml"))


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_run_loads_and_keeps_within_the_site_example(path: Path) -> None:
    run = load(path, Run)
    site = load(FOLDER / "site.example.toml", Site)

    assert run.model.name.rpartition("/")[2].lower() == path.stem.removesuffix("-labels")
    assert run.privacy.delta == site.budget.delta
    assert run.privacy.epsilon <= min(site.policy.run_epsilon, site.budget.epsilon)
    assert run.privacy.rounds * run.privacy.steps_per_round <= site.policy.max_steps


def test_there_is_a_ready_run_for_each_named_model() -> None:
    assert {path.stem for path in READY} == {
        "deepseek-r1-distill-qwen-1.5b", "deepseek-r1-distill-qwen-7b", "qwen2.5-1.5b-instruct",
        "llama-3.2-1b-instruct", "smollm2-135m-instruct", "smollm2-135m-instruct-labels",
    }  # fmt: skip
