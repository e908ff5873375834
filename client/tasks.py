"""What the runner answers: a plan with a decision, a round with an update, the end with a nod.

Executes installed code only. Of the coordinator's messages it reads numbers, names and arrays.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from audit import canonical
from audit.digests import arrays_digest
from audit.errors import StaleRequest
from audit.events import Subject
from audit.log import Log
from client import decisions, evidence, people
from client.border import spec
from client.errors import ClientError
from client.folder import Folder, Invitation
from client.judge import judge, mechanism
from client.outbox import Outbox
from client.train import Trained, examine, labels_of, schedule, train
from configs import files
from configs.load import read_plan
from configs.run import Plan, decimal
from privacy.egress import clear
from privacy.errors import UnsupportedModel
from privacy.wire import (
    Answer,
    Close,
    Closed,
    Message,
    Propose,
    Round,
    Update,
    pack,
    unpack,
)

terminal = logging.getLogger("privity.tasks")

_NO_RELEASE = "sha256:" + "0" * 64


@dataclass(slots=True)
class _Loaded:
    """The model with a plan's adapter, and the people of this run; kept between rounds."""

    plan_digest: str
    base: Any
    model: Any = field(repr=False)
    people: tuple[Any, ...] = field(repr=False, default=())


class Tasks:
    """The institution's answers, in the runner's process. Loads the base model once."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._invitation: Invitation = folder.invitation()
        self._loaded: _Loaded | None = None

    def answer(self, message: Message) -> Message:
        """Answer one message of the coordinator.

        Raises:
            PrivacyError, ClientError, AuditError, ConfigError, ModelError: with a code; the runner
                turns every error into a fixed word before it leaves.
        """
        if message.kind == "propose":
            return self._propose(unpack(message, Propose))
        if message.kind == "round":
            return self._round(unpack(message, Round), message)
        return self._close(unpack(message, Close))

    def _propose(self, header: Propose) -> Message:
        folder, log = self._folder, self._folder.log()
        plan = read_plan(header.plan.encode())
        digest = decisions.digest(plan)
        if canonical.encode(plan.document()).decode() != header.plan or plan.run != header.run:
            raise ClientError("the plan is not canonical", code="plan-not-acceptable")
        try:
            cosignature = evidence.take(folder, log, self._invitation, header)
        except StaleRequest:
            return self._decided(header, log, digest, "declined", "coordinator-behind", "")
        decisions.remember(folder, plan)
        rows = folder.ledger().rows(folder.settings.budget.cohort)
        held = any(row.run == plan.run and row.plan_digest == digest for row in rows)
        verdict = judge(
            plan, folder.settings, spent=tuple(row.mechanism for row in rows), reserved=held
        )
        reason = verdict.reason
        if reason == "none" and not folder.data.is_file():
            reason = "records-missing"
        if reason == "none":
            reason = self._load(plan, digest)
        decision = decisions.read(folder, plan)
        if reason != "none":
            return self._decided(header, log, digest, "declined", reason, cosignature)
        if decision is None and folder.settings.policy.approve == "policy":
            decisions.write(folder, log, plan, "approved", "policy")
            decision = "approved"
        if decision is None:
            return self._decided(
                header, log, digest, "pending", "waiting-for-approval", cosignature
            )
        if decision == "refused":
            return self._decided(
                header, log, digest, "declined", "refused-by-operator", cosignature
            )
        return self._decided(header, log, digest, "accepted", "none", cosignature)

    def _decided(
        self, header: Propose, log: Log, digest: str, decision: Any, reason: str, cosignature: str
    ) -> Message:
        return pack(
            Answer(
                **self._handover(log, header.have, cosignature),
                run=header.run,
                plan_digest=digest,
                decision=decision,
                reason=reason,
            )
        )

    def _round(self, header: Round, message: Message) -> Message:
        folder, log = self._folder, self._folder.log()
        cosignature = evidence.take(folder, log, self._invitation, header)
        plan = decisions.proposed(folder, header.run)
        digest = decisions.digest(plan)
        if digest != header.plan_digest or decisions.read(folder, plan) != "approved":
            raise ClientError("the round's plan was not approved here", code="not-approved")
        if arrays_digest(message.arrays) != header.input_digest:
            raise ClientError("the round's adapter has another digest", code="adapter-differs")
        outbox = Outbox(folder.run(plan.run) / "outbox", header.round)
        kept = outbox.read(digest, header.input_digest)
        if kept is None:
            index, update = self._train(plan, digest, header, message.arrays, log, outbox)
        else:
            index, update = kept
        return pack(
            Update(
                **self._handover(log, header.have, cosignature),
                run=plan.run,
                round=header.round,
                plan_digest=digest,
                update_digest=arrays_digest(update),
                statement_index=index,
            ),
            update,
        )

    def _train(
        self,
        plan: Plan,
        digest: str,
        header: Round,
        start: Mapping[str, Any],
        log: Log,
        outbox: Outbox,
    ) -> tuple[int, Mapping[str, Any]]:
        folder = self._folder
        if self._load(plan, digest) != "none" or self._loaded is None:
            raise ClientError("the plan's model is not on this machine", code="model-missing")
        head = self._charge(plan, digest, header, log)
        if not self._loaded.people:
            self._loaded.people = self._open_records(plan, log)
        state_file = folder.run(plan.run) / "optimizer.safetensors"
        progress = folder.run(plan.run) / "progress.json"

        def on_step(done: int, total: int) -> None:
            document = {"round": header.round, "step": done, "steps": total}
            files.replace(progress, json.dumps(document).encode(), mode=files.PRIVATE)

        trained: Trained = train(
            self._loaded.model,
            self._loaded.people,
            start,
            plan,
            labels=labels_of(plan, self._loaded.base),
            chunk_tokens=folder.settings.runtime.chunk_tokens,
            state=_read_state(state_file),
            # By the round's number: a site that joined late, or failed once, is no steps behind.
            pace=schedule(plan, before=header.round * plan.steps_per_round),
            on_step=on_step,
        )
        cleared = clear(
            trained.delta,
            shapes={name: array.shape for name, array in start.items()},
            max_norm=folder.settings.policy.max_update_norm,
        )
        update_digest = arrays_digest(cleared.arrays)
        receipt = log.append(
            "dp-training",
            {
                "plan_digest": digest,
                "noise_multiplier": decimal(plan.noise_multiplier),
                "sample_rate": decimal(plan.sample_rate),
                "steps": plan.steps_per_round,
                "clip_norm": decimal(plan.clip_norm),
                "unit": plan.unit,
                "adjacency": plan.adjacency,
                "accountant": plan.accountant,
                "delta": decimal(plan.delta),
                "ledger_head": head,
                "input_digest": header.input_digest,
            },
            subjects=[Subject("update", update_digest)],
            run=plan.run,
            round=header.round,
        )
        _write_state(state_file, trained.state)
        outbox.write(digest, header.input_digest, receipt.index, cleared.arrays)
        return receipt.index, cleared.arrays

    def _charge(self, plan: Plan, digest: str, header: Round, log: Log) -> str:
        """Reserve the whole plan once and this round once, before any record is opened."""
        folder, budget = self._folder, self._folder.settings.budget
        ledger = folder.ledger()
        reservation = ledger.reserve(
            cohort=budget.cohort,
            run=plan.run,
            plan_digest=digest,
            mechanism=mechanism(plan),
            rounds=plan.rounds,
            delta=budget.delta,
            cap=budget.epsilon,
        )
        logged = {entry.event.fields["ledger_head"] for entry in log.entries("budget-reserved")}
        if reservation.head not in logged:
            log.append(
                "budget-reserved",
                {
                    "plan_digest": digest,
                    "cohort_commitment": self._cohort_commitment(),
                    "noise_multiplier": decimal(plan.noise_multiplier),
                    "sample_rate": decimal(plan.sample_rate),
                    "steps": plan.steps,
                    "rounds": plan.rounds,
                    "delta": decimal(budget.delta),
                    "epsilon_before": decimal(round(reservation.epsilon_before, 6)),
                    "epsilon_after": decimal(round(reservation.epsilon_after, 6)),
                    "cap": decimal(budget.epsilon),
                    "ledger_head": reservation.head,
                },
                run=plan.run,
            )
        ledger.begin_round(plan.run, header.round, input_digest=header.input_digest)
        return ledger.head()

    def _cohort_commitment(self) -> str:
        secret = self._folder.pseudonym_secret().hex()
        cohort = self._folder.settings.budget.cohort
        return canonical.digest(canonical.encode({"cohort": cohort, "secret": secret}))

    def _open_records(self, plan: Plan, log: Log) -> tuple[Any, ...]:
        folder = self._folder
        tool = people.scrubber(folder)
        done = people.scrub(people.read(folder), tool, said=people.stated(folder))
        commitment = people.keep_report(folder, done.report)
        log.append(
            "pii-scrub",
            {
                "profile": folder.settings.data.profile,
                "scrubber_digest": done.scrubber_digest,
                "records_commitment": commitment,
            },
            run=plan.run,
        )
        if self._loaded is None:
            raise ClientError("no model is loaded", code="model-missing")
        from model import adapter, frozen

        base = self._loaded.base
        if plan.training.objective == "preference":
            start = frozen.start(base.folder, spec(plan.adapter))
            adapter.write(self._loaded.model, start)  # which changes nothing: the reference
            return people.preferences(
                done, base, self._loaded.model, max_tokens=plan.training.max_tokens
            )
        return people.group(
            done,
            base,
            max_tokens=plan.training.max_tokens,
            labels=labels_of(plan, base),
            thoughts=plan.training.thoughts == "learn",
        )

    def _load(self, plan: Plan, digest: str) -> str:
        """Load the plan's model and adapter; "none", or why the plan is declined."""
        if self._loaded is not None and self._loaded.plan_digest == digest:
            return "none"
        from model import adapter, catalog
        from model import base as base_model
        from model.errors import ModelError

        try:
            found = catalog.find(plan.model, expect_digest=plan.model_digest)
        except ModelError:
            return "model-not-available"
        if self._loaded is not None and self._loaded.base.folder.digest == found.digest:
            base = self._loaded.base
            adapter.detach(self._loaded.model)
        else:
            base = base_model.load(
                found,
                threads=self._folder.settings.runtime.threads or None,
                precision=self._folder.settings.runtime.precision,
            )
        self._loaded = None
        model = adapter.attach(base, spec(plan.adapter))
        if adapter.frozen_digest(model) != plan.frozen_digest:
            return "plan-inconsistent"
        try:
            # Before anything is charged: a machine that cannot train must not cost budget.
            examine(
                model,
                plan,
                chunk_tokens=self._folder.settings.runtime.chunk_tokens,
                labels=labels_of(plan, base),
            )
        except UnsupportedModel as fault:
            terminal.error("%s", fault)
            return "model-not-available"
        self._loaded = _Loaded(digest, base, model)
        return "none"

    def _close(self, header: Close) -> Message:
        folder, log = self._folder, self._folder.log()
        cosignature = evidence.take(folder, log, self._invitation, header)
        if header.release_digest != _NO_RELEASE:
            log.append("release-received", {"release_digest": header.release_digest},
                       run=header.run)  # fmt: skip
        return pack(Closed(**self._handover(log, header.have, cosignature), run=header.run))

    def _handover(self, log: Log, have: int, cosignature: str) -> dict[str, Any]:
        part = evidence.hand_over(
            self._folder, log, self._invitation.origin, have=have, cosignature=cosignature
        )
        return {
            "checkpoint": part.checkpoint,
            "entries": part.entries,
            "witnessed": part.witnessed,
            "cosignature": part.cosignature,
        }


def _read_state(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    import torch

    return {
        name: torch.from_numpy(np.array(a)) for name, a in load_arrays(path.read_bytes()).items()
    }


def _write_state(path: Path, state: Mapping[str, Any]) -> None:
    arrays = {name: np.array(tensor.numpy(), order="C") for name, tensor in state.items()}
    files.replace(path, save_arrays(arrays), mode=files.PRIVATE)
