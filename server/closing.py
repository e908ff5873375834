"""The end of a round, so written that a crash at any line of it, or before it, can be made good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.digests import arrays_digest
from audit.log import Log
from server import aggregate
from server.errors import ServerError
from server.state import State

Arrays = Mapping[str, Any]

# What the uniform mean is taken of; exact for the product, since the rest is the same everywhere.
_MEANS = {
    "ffa-lora": "uniform mean of B, A frozen",
    "lora-xs": "uniform mean of R, A and L frozen",
    "lora": "A and B of one institution",
}


def left_behind(log: Log, state: State, number: int) -> tuple[dict[str, Arrays], dict[str, str]]:
    """What an interrupted attempt at round `number` left: updates that count, and rejections.

    Returns:
        The accepted updates by institution, and the reasons of those that were rejected since.

    Raises:
        ServerError: the log accepted an update that the disk does not hold (exit code 4).
    """
    updates: dict[str, Arrays] = {}
    rejected: dict[str, str] = {}
    for entry in log.entries(run=state.plan.run):
        event = entry.event
        if event.round != number:
            continue
        if event.kind == "update-accepted":
            name = str(event.fields["institution"])
            arrays = state.update(number, name)
            if arrays_digest(arrays) != event.fields["update_digest"]:
                raise ServerError(
                    f"the kept update of {name} in {state.path} is not the accepted one; restore "
                    "the newest copy of the whole folder",
                    code="update-differs",
                    exit_code=4,
                )
            updates[name] = arrays
        elif event.kind == "update-rejected":
            rejected[str(event.fields["institution"])] = str(event.fields["reason"])
    return updates, {name: why for name, why in rejected.items() if name not in updates}


def began(log: Log, run: str, number: int) -> bool:
    """Whether the updates of round `number` were averaged, so that no further one may count."""
    return _logged(log, "aggregation", run, number)


def close(
    log: Log,
    state: State,
    number: int,
    updates: Mapping[str, Arrays],
    rejected: Mapping[str, str],
    absent: list[str],
    notes: Mapping[str, str],
) -> None:
    """Average the updates of round `number`, log it, and make the next round due.

    Args:
        log: the coordinator's log.
        state: the run's record.
        number: the round.
        updates: every accepted update by institution.
        rejected: reasons by institution.
        absent: institutions that gave no answer.
        notes: each accepted institution's own signed checkpoint.

    Guarantees: repeating it after a crash logs nothing twice.
    """
    run = state.plan.run
    names = sorted(updates)
    start = state.adapter(number)
    result = aggregate.mean(start, [updates[name] for name in names])
    state.keep_adapter(number + 1, result)
    if not _logged(log, "aggregation", run, number):
        log.append(
            "aggregation",
            {
                "method": _MEANS[state.plan.adapter.method],
                "inputs": [
                    {"institution": name, "update_digest": arrays_digest(updates[name])}
                    for name in names
                ],
                "input_adapter": arrays_digest(start),
                "output_adapter": arrays_digest(result),
            },
            run=run,
            round=number,
        )
    if not _logged(log, "round-closed", run, number):
        log.append(
            "round-closed",
            {
                "accepted": names,
                "rejected": sorted(rejected),
                "absent": absent,
                "site_checkpoints": dict(notes),
            },
            run=run,
            round=number,
        )
    state.round = number + 1
    state.participants = sorted({*state.participants, *names})
    state.save()
    state.drop_updates(number)


def _logged(log: Log, kind: str, run: str, number: int) -> bool:
    return any(entry.event.round == number for entry in log.entries(kind, run))
