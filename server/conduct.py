"""The two long commands, composed: train a run, and release it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit import signing
from configs.run import Plan, Run
from model import catalog, frozen
from server import evaluate, flower, plans, publish, stopping
from server import state as states
from server.box import Box
from server.errors import ServerError
from server.marking import OWN_COPY, Marking
from server.mirror import Mirror
from server.post import Post
from server.progress import Progress, Show
from server.rounds import Conductor
from server.state import State
from server.store import Folder
from server.turn import Party

_CLOSE_SECONDS = 60.0


def train(
    folder: Folder,
    run: Run,
    *,
    resume: bool,
    base: Path = Path(),
    show: Show | None = None,
) -> State:
    """Run every round of `run`, or go on where it stopped.

    Args:
        folder: the coordinator.
        run: RUN.toml as read.
        resume: whether the run exists.
        base: folder that a relative path in `run` starts from.
        show: progress.

    Raises:
        ServerError: the run exists and `resume` is off, the plan changed, the SuperLink is not
            running (5), the quorum was not met (3), the public records of its rule differ, or
            another process holds the run (3).
    """
    path = folder.run(run.name)
    if not resume:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with states.alone(path):
        return _train(folder, run, path, resume=resume, base=base, show=show)


def _train(
    folder: Folder, run: Run, path: Path, *, resume: bool, base: Path, show: Show | None
) -> State:
    state: State | None = None
    if resume:
        state = states.load(path)
        _check_same(state, run)
    else:
        states.check_new(path, run.name)
    if state is not None and state.outcome != "running":
        how = "completed" if state.round >= state.plan.rounds else "stopped"
        tell = Progress(path / "progress.jsonl", show)
        tell("finished", outcome=how, participants=state.participants)
        return state
    plan = plans.make(run) if state is None else state.plan
    public = stopping.rows_of(run, plan, base)
    with flower.Session.open(folder) as link:
        if state is None:  # only now: an unreachable SuperLink must not use up the run's name
            state = states.create(path, plan, _start(plan))
        tell = Progress(path / "progress.jsonl", show)
        conductor = _conductor(folder, state, link, tell)
        if public:
            judge = stopping.judge(plan, public)
            conductor.stop = stopping.Stopping(conductor.log, state, tell, judge)
        conductor.run(join_timeout_s=run.federation.join_timeout_s)
    return state


def _start(plan: Plan) -> dict[str, np.ndarray]:
    """The adapter that round 0 starts from."""
    return frozen.start(catalog.find(plan.model), plans.adapter_spec(plan))


def release(
    folder: Folder,
    name: str,
    run: Run | None,
    *,
    base: Path,
    licence: str,
    show: Show | None = None,
) -> dict[str, Any]:
    """Cut the release of a trained run, gather the last cosignatures, write the bundle.

    Whatever interrupts it, the same command goes on: see `publish.publish` for the copies. Once
    they are logged, only the cosignatures and the bundle are due, as long as there is no bundle.

    Args:
        folder: the coordinator.
        name: the run.
        run: RUN.toml as read, for its evaluation records; None skips the evaluation.
        base: folder that a relative evaluation path starts from.
        licence: SPDX identifier of the adapter.
        show: progress.

    Returns:
        Paths and figures for the terminal: release, bundle, watermark, scores, witnesses; no
        watermark and no scores where an earlier command cut the copies.

    Raises:
        ServerError: training is not over, the release exists, the records cannot be read, or
            another process holds the run (3).
    """
    with states.alone(folder.run(name)):
        return _release(folder, name, run, base=base, licence=licence, show=show)


def _release(
    folder: Folder, name: str, run: Run | None, *, base: Path, licence: str, show: Show | None
) -> dict[str, Any]:
    state = states.load(folder.run(name))
    tell = Progress(folder.run(name) / "progress.jsonl", show)
    mirrors, log = _mirrors(folder, state), folder.log()
    out, target = publish.releases_of(folder, state), folder.path / "bundles" / name
    done: publish.Published | None = None
    digests: Mapping[str, str] = publish.logged(log, name, out)
    if not digests:
        rows: tuple[tuple[str, str], ...] = ()
        if run is not None and run.evaluation.path:
            rows = evaluate.read(base / run.evaluation.path, limit=run.evaluation.limit)
        done = publish.publish(
            folder,
            state,
            log,
            mirrors,
            out=out,
            rows=rows,
            description=(run.evaluation.description if run else "") or "not described",
            licence=licence,
            tell=tell,
        )
        digests = done.digests
    elif target.exists():
        raise ServerError(
            f"{out} exists; this run was released before, and a release is never overwritten",
            code="release-exists",
        )
    signing.verify_folder(out / OWN_COPY, folder.release_public)
    state.outcome = "released"
    state.save()
    witnesses = _close(folder, state, digests, tell)
    publish.bundle(folder, state, _mirrors(folder, state), target)
    tell("released", release=str(out / OWN_COPY), bundle=str(target))
    return {
        "run": name,
        "release": str(out / OWN_COPY),
        "copies": {recipient: str(out / recipient) for recipient in digests},
        "bundle": str(target),
        "watermark_key": str(Marking(folder, state).commit(log).file),
        "watermark": done
        and {
            "z": done.detection.z,
            "p_value": done.detection.p_value,
            "bound": done.detection.bound,
        },
        "evaluation": done and _figures(done.evaluated),
        "witnesses": witnesses,
    }


def _close(folder: Folder, state: State, digests: Mapping[str, str], tell: Progress) -> list[str]:
    """Ask the connected sites for their last evidence; without a SuperLink there is none."""
    try:
        with flower.Session.open(folder) as link:
            return _conductor(folder, state, link, tell).close(
                release_digests=digests, timeout_s=_CLOSE_SECONDS
            )
    except ServerError as fault:
        if fault.exit_code != 5:
            raise
        tell("close-failed", institution="all", reason=fault.code)
        return []


def take_last_evidence(folder: Folder, name: str) -> Path | None:
    """Take the closing answers that were brought as files, and write the bundle anew with them.

    Waits for another process that holds the run: a release that writes the bundle is soon over,
    and refused here, an answer that was brought would never get into it.

    Returns:
        The bundle, or None where nothing had been brought for a released run.
    """
    with states.alone(folder.run(name), wait=True):
        return _take_last_evidence(folder, name)


def _take_last_evidence(folder: Folder, name: str) -> Path | None:
    state = states.load(folder.run(name))
    box = Box(state.path, folder.keys())
    tell = Progress(state.path / "progress.jsonl", None)
    conductor = _conductor(folder, state, None, tell)
    taken = [conductor.take_closed(reply) for reply in box.arrived(-1)]
    target = folder.path / "bundles" / name
    if not any(taken) or not target.exists():
        return None
    draft = target.with_name(f".{name}.{secrets.token_hex(4)}")
    publish.bundle(folder, state, _mirrors(folder, state), draft)
    old = draft.with_name(f"{draft.name}.old")
    target.rename(old)  # a crash here leaves no bundle, and `release` writes it
    draft.rename(target)
    shutil.rmtree(old)
    return target


def _conductor(
    folder: Folder, state: State, link: flower.Session | None, tell: Progress
) -> Conductor:
    known, enrolled = folder.known(), folder.enrolled()
    box = Box(state.path, folder.keys())
    parties = {name: Party(known[name], mirror) for name, mirror in _mirrors(folder, state).items()}
    for name, party in parties.items():
        if name not in enrolled:  # what it gave counts still, and nothing that it gives now
            party.status, party.reason = "declined", "revoked"
            state.by_file = [other for other in state.by_file if other != name]
            box.withdraw(name)
        elif name in state.by_file:  # nobody asks by file twice what the site's log has answered
            party.status = _decided(party.mirror, plans.digest(state.plan))
    way = Post(link, box, state)
    marking = Marking(folder, state)
    return Conductor(folder.log(), folder.witness(), state, parties, way, tell, marking)


def _decided(mirror: Mirror, digest: str) -> str:
    """What a site decided about a plan, by its own log: accepted, declined or nothing yet."""
    status = "invited"
    for event in mirror.events():
        if event.kind == "approval" and event.fields["plan_digest"] == digest:
            status = "accepted" if event.fields["decision"] == "approved" else "declined"
    return status


def _mirrors(folder: Folder, state: State) -> dict[str, Mirror]:
    """The logs of the invited sites; one that was revoked since is evidence still."""
    known = folder.known()
    return {
        name: folder.mirror_of(known[name]) for name in state.plan.institutions if name in known
    }


def _check_same(state: State, run: Run) -> None:
    """A plan is fixed once; `--resume` with a changed RUN.toml is refused, not reinterpreted."""
    plan, privacy = state.plan, run.privacy
    same = (
        plan.run == run.name
        and plan.model == run.model.name
        and plan.adapter == run.adapter
        and plan.training == run.training
        and plan.task == run.task
        and plan.aggregation == run.aggregation
        and plan.stopping == run.stopping.rule
        and plan.institutions == tuple(sorted(run.federation.institutions))
        and plan.quorum == run.federation.quorum
        and (plan.epsilon, plan.delta, plan.clip_norm, plan.sample_rate)
        == (privacy.epsilon, privacy.delta, privacy.clip_norm, privacy.sample_rate)
        and (plan.clipping, plan.notes_per_person) == (privacy.clipping, privacy.notes_per_person)
        and (plan.rounds, plan.steps_per_round) == (privacy.rounds, privacy.steps_per_round)
    )
    if not same:
        raise ServerError(
            f"RUN.toml changed since run {plan.run} began; restore it, or start a run of another "
            "name",
            code="plan-changed",
        )


def _figures(evaluated: evaluate.Evaluated | None) -> dict[str, Any] | None:
    if evaluated is None:
        return None
    return {
        "data": evaluated.data,
        "records": evaluated.records,
        "base": _card(evaluated.base),
        "released": _card(evaluated.released),
    }


def _card(card: Any) -> dict[str, float]:
    return {"accuracy": card.accuracy, "macro_f1": card.macro_f1, "loss": card.loss}
