"""What makes an update count: its form, its digest, and its statement in the site's own log."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from audit.digests import arrays_digest
from configs.run import Plan
from privacy.egress import clear
from privacy.errors import EgressDenied
from privacy.wire import Message, Update, unpack
from server import plans
from server.errors import ServerError
from server.mirror import Mirror

Arrays = Mapping[str, npt.NDArray[np.float32]]


def check(message: Message, plan: Plan, *, number: int, start: Arrays) -> tuple[Arrays, Update]:
    """Check the form of one update for round `number` that started from the adapter `start`.

    Guarantees: names and dtype are those of the adapter; every array has its rows and the first
        c columns, c the same in all; all entries are finite; the joint norm is at most what the
        plan's steps allow; the digest is that of the arrays; run, round and plan are the asked
        ones.

    Raises:
        EgressDenied: the message or its arrays are not what the wire allows.
        ServerError: it answers another question.
    """
    header = unpack(message, Update)
    asked = (plan.run, number, plans.digest(plan))
    if (header.run, header.round, header.plan_digest) != asked:
        raise ServerError("the update is for another round or plan", code="wrong-round")
    columns = trained_columns(message.arrays, plan)
    shapes = {name: (array.shape[0], array.shape[1]) for name, array in start.items()}
    if columns < plan.adapter.rank:
        shapes = {name: (rows, columns) for name, (rows, _) in shapes.items()}
    cleared = clear(message.arrays, shapes=shapes, max_norm=float("inf"))
    values = sum(rows * wide for rows, wide in shapes.values())
    if not cleared.norm <= plans.norm_limit(plan, values):
        raise ServerError("the update is larger than its steps can make", code="norm-over-limit")
    if arrays_digest(cleared.arrays) != header.update_digest:
        raise ServerError("the update has another digest", code="digest-differs")
    return cleared.arrays, header


def check_statement(
    mirror: Mirror, header: Update, plan: Plan, *, input_digest: str, columns: int
) -> None:
    """Check that the site's log states this update, trained as the plan says.

    Raises:
        ServerError: there is no such statement, or it says something else.
    """
    statement = mirror.event(header.statement_index)
    document = plan.document()
    expected = {
        "plan_digest": plans.digest(plan),
        "input_digest": input_digest,
        "steps": plan.steps_per_round,
        **{
            key: document[key]
            for key in ("noise_multiplier", "sample_rate", "clip_norm", "delta", "unit")
        },
    }
    if (
        statement.kind != "dp-training"
        or (statement.run, statement.round) != (plan.run, header.round)
        or statement.subject("update") != header.update_digest
        or statement.fields.get("columns", plan.adapter.rank) != columns
        or any(statement.fields[key] != value for key, value in expected.items())
    ):
        raise ServerError("the update's statement is not in the site's log", code="no-receipt")


def trained_columns(arrays: Mapping[str, object], plan: Plan) -> int:
    """How many columns of each B or R an update has: those of its first array.

    Raises:
        EgressDenied: more than the adapter has, or none.
    """
    rank = plan.adapter.rank
    if plan.adapter.method == "lora":  # beside B it has A, and all of both
        return rank
    first = next(iter(arrays.values()), None)
    if not isinstance(first, np.ndarray) or first.ndim != 2 or not 1 <= first.shape[1] <= rank:
        raise EgressDenied("an array of the update has another shape; nothing was taken over")
    return int(first.shape[1])
