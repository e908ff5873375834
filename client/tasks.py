"""What the runner answers: a plan with a decision, a round with an update, the end with a nod.

Executes installed code only. Of the coordinator's messages it reads numbers, names and arrays.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from audit import canonical
from audit.digests import arrays_digest
from audit.errors import StaleRequest
from audit.log import Log
from client import border, decisions, evidence, moments, statements, withdrawals
from client.border import spec
from client.cell import Cell
from client.errors import ClientError
from client.folder import Folder, Invitation
from client.judge import judge, mechanism
from client.outbox import Outbox
from client.refusals import Refusals
from client.trainer import Arrays, Trains
from configs import files
from configs.errors import ConfigError
from configs.load import read_plan
from configs.run import Plan
from model import catalog, shapes
from privacy.egress import clear
from privacy.errors import EgressDenied
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

_NO_RELEASE = "sha256:" + "0" * 64
_log = logging.getLogger("privity.runner")


class Tasks:
    """The institution's answers, in the runner's process, which opens no record itself.

    Args:
        folder: the institution.
        trainer: what opens records; a process of its own, cut off from the network, unless given.
    """

    def __init__(self, folder: Folder, trainer: Trains | None = None) -> None:
        self._folder = folder
        self._invitation: Invitation = folder.invitation()
        self._trainer: Trains = trainer or Cell(folder)
        self._refusals = Refusals(folder)
        self._told = ""

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
        try:
            plan = read_plan(header.plan.encode())
        except ConfigError as fault:
            raise ClientError(str(fault), code="plan-not-acceptable") from None
        digest = decisions.digest(plan)
        if canonical.encode(plan.document()).decode() != header.plan or plan.run != header.run:
            raise ClientError("the plan is not canonical", code="plan-not-acceptable")
        try:
            cosignature = evidence.take(folder, log, self._invitation, header)
        except StaleRequest:
            return self._decided(header, log, digest, "declined", "coordinator-behind", "")
        decisions.remember(folder, plan)
        reason = self._judge(plan, digest)
        if reason == "none" and not folder.data.is_file():
            reason = "records-missing"
        if reason == "none":
            withdrawals.check(folder)  # before anything is charged
            reason = self._trainer.load(plan, digest)
        decision = decisions.read(folder, plan)
        if reason != "none":
            return self._decided(header, log, digest, "declined", reason, cosignature)
        if decision is None and folder.settings.policy.approve == "policy":
            decisions.write(folder, log, plan, "approved", "policy")
            decision = "approved"
        if decision is None:
            self._tell(plan.run, digest)
            return self._decided(
                header, log, digest, "pending", "waiting-for-approval", cosignature
            )
        if decision == "refused":
            return self._decided(
                header, log, digest, "declined", "refused-by-operator", cosignature
            )
        return self._decided(header, log, digest, "accepted", "none", cosignature)

    def _tell(self, run: str, digest: str) -> None:
        """Say once, to whoever looks after the client, that a plan waits for a decision."""
        if digest != self._told:
            _log.warning(
                "%s: %s was proposed and waits (plan %s); decide by: privity client approve %s %s",
                self._folder.settings.name, run, digest, self._folder.path, run,
            )  # fmt: skip
            self._told = digest

    def _judge(self, plan: Plan, digest: str) -> str:
        rows = self._folder.ledger().rows(self._folder.settings.budget.cohort)
        held = any(row.run == plan.run and row.plan_digest == digest for row in rows)
        spent = tuple(row.mechanism for row in rows)
        return judge(plan, self._folder.settings, spent=spent, reserved=held).reason

    def _decided(
        self, header: Propose, log: Log, digest: str, decision: Any, reason: str, cosignature: str
    ) -> Message:
        if decision == "declined":
            self._refusals.note("propose", reason, plan_digest=digest)
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
        _check_start(plan, message.arrays)
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
        if self._judge(plan, digest) != "none":
            # It was acceptable when it was approved; the rules have changed since.
            raise ClientError("the plan breaks a rule of site.toml", code="not-approved")
        if not folder.data.is_file():
            raise ClientError(
                f"{folder.data} does not exist; put it back, or set data.path in site.toml; "
                "nothing was charged for this round",
                code="records-missing",
            )
        if self._trainer.load(plan, digest) != "none":
            raise ClientError("the plan's model is not on this machine", code="model-missing")
        self._state_trainer(plan, log)
        withdrawals.check(folder)
        state_file = folder.run(plan.run) / "optimizer.safetensors"
        state = _read_state(state_file, border.shapes_of(folder, plan))
        head = self._charge(plan, digest, header, log)
        began = time.monotonic()
        records = self._trainer.open()
        if records is not None:
            moments.wait(began)  # what is logged next has its time, which leaves with it
            statements.opened(folder, log, records, run=plan.run)
        progress = folder.run(plan.run) / "progress.json"

        def on_step(done: int, total: int) -> None:
            document = {"round": header.round, "step": done, "steps": total}
            # To be looked at while it goes: a step does not wait for the disk.
            files.replace(
                progress, json.dumps(document).encode(), mode=files.PRIVATE, durable=False
            )

        # By the round's number: a site that joined late, or failed once, is no steps behind.
        before = header.round * plan.steps_per_round
        trained = self._trainer.train(start, state, on_step, before=before)
        cleared = clear(
            trained.delta,
            shapes=border.shapes_of(folder, plan),
            max_norm=folder.settings.policy.max_update_norm,
        )
        moments.wait(began)
        receipt = statements.trained(
            folder, log, plan, digest=digest, number=header.round, head=head,
            start=header.input_digest, update=arrays_digest(cleared.arrays),
        )  # fmt: skip
        files.replace(state_file, save_arrays(dict(trained.state)), mode=files.PRIVATE)
        outbox.write(digest, header.input_digest, receipt.index, cleared.arrays)
        return receipt.index, cleared.arrays

    def _state_trainer(self, plan: Plan, log: Log) -> None:
        """Sign into the log whether the process that will open the records is cut off."""
        stated = [e.event.fields["network"] for e in log.entries("trainer-started", plan.run)]
        if stated[-1:] != [self._trainer.network]:
            log.append("trainer-started", {"network": self._trainer.network}, run=plan.run)

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
        if not statements.is_charged(log, reservation):
            statements.charged(folder, log, reservation, row=mechanism(plan), rounds=plan.rounds)
        ledger.begin_round(plan.run, header.round, input_digest=header.input_digest)
        return ledger.head()

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


def _check_start(plan: Plan, arrays: Arrays) -> None:
    """Refuse a start that is not the plan's adapter, before it costs a round.

    Raises:
        ClientError: other names, shapes or types, or an entry that is not finite.
    """
    found = catalog.find(plan.model, expect_digest=plan.model_digest)
    wanted = shapes.shapes(found, spec(plan.adapter))
    try:
        clear(arrays, shapes=wanted, max_norm=math.inf)
    except EgressDenied:
        raise ClientError(
            "the round's adapter is not the plan's; nothing was charged", code="adapter-differs"
        ) from None


def _read_state(path: Path, wanted: Mapping[str, tuple[int, int]]) -> Arrays | None:
    """The optimiser's state after the last round, judged before the next one costs anything.

    Raises:
        ClientError: it is broken, not finite, or of other shapes than are trained now.
    """
    if not path.exists():
        return None
    try:
        state = load_arrays(path.read_bytes())
    except (SafetensorError, ValueError):
        state = None
    shapes_now = set(wanted.values())
    if state is None or not all(
        np.isfinite(a).all() and (a.ndim == 0 or a.shape in shapes_now) for a in state.values()
    ):
        raise ClientError(
            f"{path} is broken, or of another runtime.columns than site.toml has now: set that "
            "back, or leave the run; nothing was charged for this round",
            code="state-differs",
        )
    return state
