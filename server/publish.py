"""From the last aggregate to what people get: commit, mark, evaluate, sign, bundle, in order."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit import bundle as bundles
from audit import chips, mark_detect, watermark
from audit.bundle import Source
from audit.digests import arrays_digest
from audit.log import Log
from configs.run import Plan, decimal
from configs.version import SOFTWARE
from model import catalog, export, frozen
from model.manifest import ModelFolder
from server import evaluate, plans
from server import release as releasing
from server.errors import ServerError
from server.facts import (
    Audit,
    Claim,
    Evaluation,
    Mark,
    Participation,
    ReleaseFacts,
    Scores,
    audit_of,
)
from server.marking import OWN_COPY, Marking, commitments
from server.mirror import Mirror
from server.progress import Progress
from server.release import Release
from server.state import State
from server.store import Folder

Arrays = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` made: the adapter digest of each recipient's copy, and the scores."""

    digests: Mapping[str, str]
    detection: mark_detect.Detection
    evaluated: evaluate.Evaluated | None


def publish(
    folder: Folder,
    state: State,
    log: Log,
    mirrors: Mapping[str, Mirror],
    *,
    out: Path,
    rows: tuple[tuple[str, str], ...],
    description: str,
    licence: str,
    tell: Progress,
) -> Published:
    """Cut one signed, marked copy of the run's adapter for each recipient.

    Args:
        folder: the coordinator.
        state: a run whose last round is over.
        log: the coordinator's log.
        mirrors: the sites' logs, for the claims.
        out: folder that appears with one sub-folder a recipient; must not exist.
        rows: public or synthetic evaluation records; empty for no evaluation.
        description: what the records are, in words for the model card.
        licence: SPDX identifier for the adapter.
        tell: progress.

    Guarantees: the log held the commitment to every subkey before any marked file existed.
        Copies are cut in a hidden draft beside `out`, are on disk before the log names them, and
        become `out` by one rename after its entry `release`. Whatever ends the command before that
        entry leaves a draft that the next try throws away; what it logged is said again. After it
        the draft is whole, and `logged` finds it: no run's release is logged twice, and nothing
        lies in `out` that the log does not name.

    Raises:
        ServerError: training is not over, `out` exists, or nothing was committed to about the
            run's watermark (exit code 3).
    """
    plan = state.plan
    _check_ready(state, out)
    found = catalog.find(plan.model, expect_digest=plan.model_digest)
    trained = state.adapter(state.round)
    b, a = frozen.product(found, plans.adapter_spec(plan), trained)
    recipients = (OWN_COPY, *state.participants)
    tell("marking", recipients=list(recipients))
    marking = Marking(folder, state)
    mark = _commit(log, marking, trained, a, recipients)
    shaping, rows = evaluate.spared(rows)
    spare = evaluate.sensitivity(plan, {**b, **a}, shaping)
    marked = {name: marking.mark(log, state.round, name, spare) for name in recipients}
    evaluated = None
    if rows:
        tell("evaluating", records=len(rows))
        evaluated = evaluate.score(
            plan,
            {**marked[OWN_COPY], **a},
            rows,
            description=description,
            progress=lambda arm, done, total: tell("scored", arm=arm, done=done, total=total),
        )
        log.append("evaluation", _evaluation_event(evaluated), run=plan.run)
    facts = ReleaseFacts(
        release=plan.run,
        run=plan.run,
        coordinator=folder.settings.name,
        software=SOFTWARE,
        time=datetime.now(UTC),
        licence=licence,
        base_model=plan.model,
        base_digest=plan.model_digest,
        seed=plan.adapter.seed,
        plan=plan.document(),
        plan_digest=plans.digest(plan),
        institutions=plan.institutions,
        claims=_claims(plan, state.participants, mirrors),
        rounds=_participation(log, plan.run),
        data={"Task": plan.task.description or "not described by the coordinator"},
        evaluation=None if evaluated is None else _evaluation_fact(evaluated),
        mark=mark,
        audits=_audits(plan, mirrors),
    )
    draft = _draft(out)
    if draft.exists():
        shutil.rmtree(draft)
    copies = _cut(folder, plan, found, marked, a, facts, draft)
    os.sync()
    _tell_log(log, copies, facts, trained)
    draft.rename(out)
    keys = marking.commit(log)
    found_in_own = mark_detect.residuals(
        mark_detect.factored(marked[OWN_COPY], a), marking.reference(log, state.round)
    )
    (detection,) = mark_detect.detect(found_in_own, [keys.owner.halves])
    digests = {name: copy.adapter_digest for name, copy in copies.items()}
    return Published(digests, detection, evaluated)


def logged(log: Log, run: str, out: Path) -> dict[str, str]:
    """The adapter digest of each recipient's copy; empty until the log says that `run` is released.

    Guarantees: the copies lie in `out`, also where a crash came between log and rename.

    Raises:
        ServerError: they are neither there nor in the draft (exit code 4).
    """
    if not list(log.entries("release", run)):
        return {}
    if not out.exists():
        try:
            _draft(out).rename(out)
        except FileNotFoundError:
            raise ServerError(
                f"run {run} was released, but its copies are missing in {out}; restore them from "
                "your backup",
                code="release-missing",
                exit_code=4,
            ) from None
    *_, made = log.entries("watermark-embedded", run)
    return {copy["recipient"]: copy["adapter_digest"] for copy in made.event.fields["copies"]}


def _draft(out: Path) -> Path:
    """Where copies are cut; no run's name begins with a dot."""
    return out.with_name(f".{out.name}")


def _check_ready(state: State, out: Path) -> None:
    if state.outcome == "running":
        raise ServerError(
            f"run {state.plan.run} is at round {state.round} of {state.plan.rounds}; finish it "
            "with privity server run --resume",
            code="not-finished",
            exit_code=3,
        )
    if out.exists():
        raise ServerError(
            f"{out} exists, and the log knows of no release of run {state.plan.run}; move it away",
            code="release-exists",
        )


def _cut(
    folder: Folder,
    plan: Plan,
    found: ModelFolder,
    marked: Mapping[str, Arrays],
    a: Arrays,
    facts: ReleaseFacts,
    out: Path,
) -> dict[str, Release]:
    """Write and sign one folder for each recipient."""
    spec = plans.adapter_spec(plan)
    copies = {}
    out.mkdir(parents=True, mode=0o755)
    for name, arrays in marked.items():
        with tempfile.TemporaryDirectory(dir=out, prefix=".adapter-") as draft:
            export.save_folder(Path(draft), folder=found, spec=spec, arrays=arrays, a=a)
            copies[name] = releasing.cut(
                out / name, adapter_files=Path(draft), facts=facts, key=folder.release_key
            )
    return copies


def _tell_log(
    log: Log, copies: Mapping[str, Release], facts: ReleaseFacts, trained: Arrays
) -> None:
    """Log which marked copies there are, and what is released with which claims."""
    made = [
        {"recipient": name, "adapter_digest": copy.adapter_digest} for name, copy in copies.items()
    ]
    log.append("watermark-embedded", {"copies": made}, run=facts.run)
    own = copies[OWN_COPY]
    log.append(
        "release",
        {
            "adapter_digest": own.adapter_digest,
            "reference_digest": arrays_digest(trained),
            "card_digest": own.card_digest,
            "bom_digest": own.bom_digest,
            "folder_digest": own.folder_digest,
            "claims": [
                {
                    "institution": claim.institution,
                    "epsilon": decimal(claim.epsilon),
                    "delta": decimal(claim.delta),
                    "cap": decimal(claim.cap),
                    "unit": claim.unit,
                    "adjacency": claim.adjacency,
                }
                for claim in facts.claims
            ],
        },
        run=facts.run,
    )


def _commit(
    log: Log,
    marking: Marking,
    trained: Arrays,
    a: Arrays,
    recipients: tuple[str, ...],
) -> Mark:
    """Log which unmarked adapter the copies are made of, under the run's committed keys.

    Raises:
        ServerError: the run began without a commitment.
    """
    run = marking.state.plan.run
    if not list(log.entries("watermark-keys", run)):
        raise ServerError(
            f"nothing was committed to about the watermark when run {run} began, so its copies "
            "could be claimed to be anybody's; train again under another name",
            code="mark-uncommitted",
            exit_code=3,
        )
    keys = marking.commit(log)
    rows = commitments(keys, recipients)
    mark = Mark(
        keys.strength,
        arrays_digest(trained),
        {row["recipient"]: row["commitment"] for row in rows},
    )
    log.append(
        "watermark-committed",
        {
            "reference_digest": mark.reference_digest,
            "reference_halves": marking.half_digests(marking.state.round),
            "basis_digest": watermark.basis_digest(a),
            **marking.product_digest(marking.state.round),
            "table_digest": chips.table_digest(),
            "detector_digest": watermark.detector_digest(),
            "strength": decimal(keys.strength),
            "commitments": rows,
        },
        run=run,
    )
    return mark


def _claims(
    plan: Plan, participants: list[str], mirrors: Mapping[str, Mirror]
) -> tuple[Claim, ...]:
    """What each site's own log comes to in this run and all earlier ones of the same people.

    By the run's own reservation: what was reserved since may stand under another cap.

    Raises:
        ServerError: a site's log holds no reservation for the run (exit code 3).
    """
    claims = []
    for name in participants:
        events = mirrors[name].events()
        kept = (e.fields for e in events if (e.kind, e.run) == ("budget-reserved", plan.run))
        own = next(kept, None)
        if own is None:
            raise ServerError(
                f"the log of {name} holds no budget reservation for run {plan.run}, so no ε can be "
                f"claimed about it; see to {name}, and train without it under another name",
                code="not-reserved",
                exit_code=3,
            )
        claims.append(
            Claim(
                institution=name,
                epsilon=float(own["epsilon_after"]),
                delta=float(own["delta"]),
                cap=float(own["cap"]),
                unit=plan.unit,
                adjacency=plan.adjacency,
            )
        )
    return tuple(claims)


def _audits(plan: Plan, mirrors: Mapping[str, Mirror]) -> tuple[Audit, ...]:
    """The sites' newest empirical audits of this plan, of those sites that logged one."""
    found = (
        audit_of(name, mirror.events(), plans.digest(plan)) for name, mirror in mirrors.items()
    )
    return tuple(audit for audit in found if audit is not None)


def _participation(log: Log, run: str) -> tuple[Participation, ...]:
    averaged = {entry.event.round for entry in log.entries("aggregation", run)}
    return tuple(
        Participation(
            entry.event.round or 0,
            tuple(entry.event.fields["accepted"]),
            tuple(entry.event.fields["rejected"]),
            tuple(entry.event.fields["absent"]),
            entry.event.round in averaged,
        )
        for entry in log.entries("round-closed", run)
    )


def _evaluation_event(evaluated: evaluate.Evaluated) -> dict[str, Any]:
    def card(scores: Any) -> dict[str, str]:
        return {
            "accuracy": decimal(round(scores.accuracy, 6)),
            "macro_f1": decimal(round(scores.macro_f1, 6)),
            "loss": decimal(round(scores.loss, 6)),
        }

    return {
        "data": evaluated.data,
        "records": evaluated.records,
        "base": card(evaluated.base),
        "released": card(evaluated.released),
    }


def _evaluation_fact(evaluated: evaluate.Evaluated) -> Evaluation:
    def scores(card: Any) -> Scores:
        return Scores(card.accuracy, card.macro_f1, card.loss)

    return Evaluation(
        evaluated.data, evaluated.records, scores(evaluated.base), scores(evaluated.released)
    )


def bundle(folder: Folder, state: State, mirrors: Mapping[str, Mirror], out: Path) -> Path:
    """Write the officer's bundle: every log, the plan and the coordinator's copy of the release.

    Raises:
        AuditError: `out` exists or a log lacks a file.
    """
    bundles.write(
        out,
        run=state.plan.run,
        coordinator=Source(folder.path / "log", folder.keys().public()),
        sites={
            name: Source(mirror.folder, mirror.keys())
            for name, mirror in mirrors.items()
            if mirror.size
        },
        plan=plans.document(state.plan),
        release=releases_of(folder, state) / OWN_COPY,
    )
    return out


def releases_of(folder: Folder, state: State) -> Path:
    """Where the copies of a run's release lie."""
    return folder.path / "releases" / state.plan.run
