"""The end of a round, so written that a crash at any line of it, or before it, can be made good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit import aggregation, stopping
from audit.digests import arrays_digest
from audit.log import Log
from server import aggregate
from server.errors import ServerError
from server.progress import Progress
from server.state import State


@dataclass(frozen=True, slots=True)
class Fates:
    """What became of each institution in one round.

    Attributes:
        number: the round.
        updates: digest of every accepted update by institution; the arrays are on disk.
        rejected: reasons by institution.
        absent: institutions that gave no answer.
        notes: each accepted institution's own signed checkpoint.
    """

    number: int
    updates: Mapping[str, str]
    rejected: Mapping[str, str]
    absent: Sequence[str]
    notes: Mapping[str, str]


def left_behind(log: Log, state: State, number: int) -> tuple[dict[str, str], dict[str, str]]:
    """What an interrupted attempt at round `number` left: updates that count, and rejections.

    Returns:
        Digests of the accepted updates, and reasons of those rejected since, by institution.

    Raises:
        ServerError: the log accepted an update that the disk does not hold (exit code 4).
    """
    updates: dict[str, str] = {}
    rejected: dict[str, str] = {}
    for entry in log.entries(run=state.plan.run):
        event = entry.event
        if event.round != number:
            continue
        if event.kind == "update-accepted":
            name = str(event.fields["institution"])
            digest = str(event.fields["update_digest"])
            if arrays_digest(state.update(number, name)) != digest:
                raise ServerError(
                    f"the kept update of {name} in {state.path} is not the accepted one; restore "
                    "the newest copy of the whole folder",
                    code="update-differs",
                    exit_code=4,
                )
            updates[name] = digest
        elif event.kind == "update-rejected":
            rejected[str(event.fields["institution"])] = str(event.fields["reason"])
    return updates, {name: why for name, why in rejected.items() if name not in updates}


def began(log: Log, run: str, number: int) -> bool:
    """Whether the updates of round `number` were averaged, so that no further one may count."""
    return _logged(log, "aggregation", run, number)


def close(log: Log, state: State, fates: Fates) -> None:
    """Combine the updates of a round, log it, and make the next round due.

    Guarantees: repeating it after a crash logs nothing twice.
    """
    run, plan, number = state.plan.run, state.plan, fates.number
    names = sorted(fates.updates)
    start = state.adapter(number)
    result = aggregate.combine(
        start, [state.update(number, name) for name in names], plan.aggregation
    )
    state.keep_adapter(number + 1, result)
    if not _logged(log, "aggregation", run, number):
        log.append(
            "aggregation",
            {
                "method": aggregation.words(plan.document()),
                "inputs": [
                    {"institution": name, "update_digest": fates.updates[name]} for name in names
                ],
                "input_adapter": arrays_digest(start),
                "output_adapter": arrays_digest(result),
            },
            run=run,
            round=number,
        )
    _end(log, state, fates)


def skip(log: Log, state: State, fates: Fates) -> None:
    """End a round below its quorum: nothing is combined, the next starts where it started.

    For a round whose quorum nobody can reach any more, because sites were charged for it and lost
    their answer. Its epsilon stays spent; the log says who answered and who did not.
    """
    state.keep_adapter(fates.number + 1, state.adapter(fates.number))
    _end(log, state, fates)


def _end(log: Log, state: State, fates: Fates) -> None:
    run, number, names = state.plan.run, fates.number, sorted(fates.updates)
    if not _logged(log, "round-closed", run, number):
        log.append(
            "round-closed",
            {
                "accepted": names,
                "rejected": sorted(fates.rejected),
                "absent": list(fates.absent),
                "site_checkpoints": dict(fates.notes),
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


def finish(log: Log, state: State, tell: Progress) -> None:
    """Say once in the log how the run's rounds ended, and go on to the release."""
    outcome = "completed" if state.round >= state.plan.rounds else stopping.OUTCOME
    if not list(log.entries("run-finished", state.plan.run)):
        log.append(
            "run-finished",
            {
                "outcome": outcome,
                "rounds": state.round,
                "participants": sorted(state.participants),
            },
            run=state.plan.run,
        )
    state.outcome = "trained"
    state.save()
    tell("finished", outcome=outcome, participants=sorted(state.participants))
