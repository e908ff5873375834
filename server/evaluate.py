"""Base and released model on the same public or synthetic records of the coordinator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.run import Plan
from server.errors import ServerError
from server.plans import adapter_spec

if TYPE_CHECKING:
    from model.scoring import Scorecard

Progress = Callable[[str, int, int], None]
Rows = tuple[tuple[str, str], ...]
_SHAPING = 16  # records; more change the directions that are found only little
_JUDGED_FOR_EACH = 4


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Two scorecards on the same records."""

    data: str
    records: int
    base: Scorecard
    released: Scorecard


def read(path: Path, *, limit: int) -> tuple[tuple[str, str], ...]:
    """Read evaluation records: JSONL with `instruction` and `response`, public or synthetic.

    A longer file is thinned to `limit` by a fixed shuffle, the same for every reader.

    Raises:
        ServerError: the file is missing, or a line is not such a record (named by its number).
    """
    rows: list[tuple[str, str]] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                rows.append(_row(line, path, number))
    except (OSError, UnicodeDecodeError):
        raise ServerError(
            f"{path} cannot be read as evaluation records; correct evaluation.path in RUN.toml",
            code="evaluation-data",
        ) from None
    if not rows:
        raise ServerError(f"{path} holds no evaluation record", code="evaluation-data")
    if len(rows) > limit:
        random.Random("privity evaluation").shuffle(rows)  # noqa: S311 - public data, no secret
    return tuple(rows[:limit])


def _row(line: str, path: Path, number: int) -> tuple[str, str]:
    try:
        values = json.loads(line)
        instruction, response = values["instruction"], values["response"]
    except (ValueError, KeyError, TypeError):
        instruction = response = None
    if not isinstance(instruction, str) or not isinstance(response, str) or not response:
        raise ServerError(
            f"{path} line {number} is no record with instruction and response; correct it",
            code="evaluation-data",
        )
    return instruction, response


def spared(rows: Rows) -> tuple[Rows, Rows]:
    """Split records: those that the mark is shaped on, and those that the release is judged on.

    So that no copy is judged on what its mark was shaped on; too few records shape nothing.
    """
    if len(rows) < _SHAPING * _JUDGED_FOR_EACH:
        return (), rows
    return rows[:_SHAPING], rows[_SHAPING:]


def sensitivity(plan: Plan, arrays: Mapping[str, Any], rows: Rows) -> dict[str, Any] | None:
    """To what in the factors `arrays` the loss on the coordinator's public records reacts.

    Reads no institution's record: the adapter is what was aggregated, the records are public or
    synthetic. None without records.

    Raises:
        ModelError: the model is not on this machine, or a response is none of the labels.
    """
    if not rows:
        return None
    from model import adapter, catalog
    from model import base as base_model
    from model import sensitivity as reacts
    from model.labels import Labels

    base = base_model.load(catalog.find(plan.model, expect_digest=plan.model_digest))
    model = adapter.attach(base, replace(adapter_spec(plan), method="lora"))
    adapter.write(model, arrays)
    chosen = plan.training.objective == "label"
    labels = Labels.of(base, plan.task.labels) if chosen else None
    known = set(plan.task.labels)
    return reacts.second_moments(
        model,
        base,
        [row for row in rows if labels is None or row[1] in known],
        labels=labels,
        max_tokens=plan.training.max_tokens,
    )


def score(
    plan: Plan,
    arrays: Mapping[str, Any],
    rows: tuple[tuple[str, str], ...],
    *,
    description: str,
    progress: Progress | None = None,
) -> Evaluated:
    """Score the base model and the model with the factors `arrays` on the same records.

    A plan that trains the choice among labels is judged by that choice, and the base model by the
    rule that suits it better of the two.

    Raises:
        ModelError: the model is not on this machine.
    """
    from model import adapter, catalog, scoring
    from model import base as base_model

    found = catalog.find(plan.model, expect_digest=plan.model_digest)
    base = base_model.load(found)
    labels = plan.task.labels or tuple(sorted({response for _, response in rows}))
    chosen = plan.training.objective == "label"
    cards = []
    model = adapter.attach(base, replace(adapter_spec(plan), method="lora"))
    for name, values in (("base", None), ("released", arrays)):
        rules: tuple[scoring.Rule, ...] = ("choice",) if chosen else ("calibrated",)
        if values is not None:
            adapter.write(model, values)
        elif chosen:
            rules = ("calibrated", "choice")
        report = None if progress is None else _named(progress, name)
        by_rule = scoring.scorecards(model, base, rows, labels, rules=rules, progress=report)
        cards.append(max(by_rule.values(), key=lambda card: card.accuracy))
    return Evaluated(description, len(rows), cards[0], cards[1])


def _named(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
