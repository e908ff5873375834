"""What opens records and trains: the model of a plan, the scrubbed people, one round of steps.

Runs in a process of its own (`client.cell_main`), or in the caller's where a test says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from client import border, lineage, people, withdrawals
from client.border import spec
from client.errors import ClientError
from client.folder import Folder
from client.hands import Hands
from client.lineage import Lineage
from client.people import Report
from client.train import Float32, check_room, examine, items, labels_of, schedule, train
from configs.run import Plan
from privacy.errors import UnsupportedModel

terminal = logging.getLogger("privity.trainer")

# Why a plan cannot be trained here; "none" says that it can.
ANSWERS = ("none", "model-not-available", "plan-inconsistent")
Arrays = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Opened:
    """What reading and scrubbing the records gave, in counts, and what scrubbed."""

    scrubber_digest: str
    report: Report = field(repr=False)
    lineage: Lineage = field(repr=False)


@dataclass(frozen=True, slots=True)
class Round:
    """The change of B after one round, and the optimiser's state, by name; private both."""

    delta: Mapping[str, Float32] = field(repr=False)
    state: Arrays = field(repr=False)


class Trains(Protocol):
    """What the runner needs of a trainer, in whichever process it works."""

    @property
    def network(self) -> str:
        """Whether it is cut off: "none"; or not: "open"."""

    def load(self, plan: Plan, digest: str) -> str:
        """Load the plan's model and adapter once; a word of `ANSWERS`."""

    def open(self) -> Opened | None:
        """Read and scrub the records for the loaded plan; None if that was done before."""

    def train(
        self,
        start: Arrays,
        state: Arrays | None,
        on_step: Callable[[int, int], None],
        *,
        before: int = 0,
    ) -> Round:
        """One round of the loaded plan over the opened records, from the adapter `start`.

        `before` is how many noisy steps of the run earlier rounds had.
        """


class Trainer:
    """The trainer in this process. Loads the base model once."""

    network = "open"

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._digest = ""
        self._plan: Plan | None = None
        self._base: Any = None
        self._model: Any = None
        self._people: tuple[Any, ...] = ()
        self._scrubber: people.Scrubber | None = None
        self._withdrawn = 0
        self._hands: Hands | None = None

    def load(self, plan: Plan, digest: str) -> str:
        """See `Trains`.

        Raises:
            ClientError: the records are a prepared set that is not fit to train on.
            ClientError, ModelError, PrivacyError: the scrubber that site.toml asks for cannot be
                made; see `scrubbing.load`.
        """
        if self._digest == digest:
            return "none"
        from model import adapter, catalog
        from model import base as base_model
        from model.errors import ModelError

        runtime = self._folder.settings.runtime
        base, self._base, self._digest, self._people = self._base, None, "", ()
        self.stop()
        try:
            found = catalog.find(plan.model, expect_digest=plan.model_digest)
        except ModelError:
            return "model-not-available"
        if base is not None and base.folder.digest == found.digest:
            adapter.detach(self._model)
        else:
            self._model = base = None
            base = base_model.load(
                found, threads=runtime.threads or None, precision=runtime.precision
            )
        self._model = adapter.attach(
            base, spec(plan.adapter), columns=border.columns(self._folder, plan)
        )
        if adapter.frozen_digest(self._model) != plan.frozen_digest:
            return "plan-inconsistent"
        try:
            # Before anything is charged: what cannot be trained must not cost budget.
            check_room(plan, base)
        except ModelError as fault:
            terminal.error("%s", fault)
            return "plan-inconsistent"
        try:
            if runtime.processes > 1:
                self._hands = self._started(plan)
            else:
                examine(
                    self._model,
                    plan,
                    chunk_tokens=runtime.chunk_tokens,
                    labels=labels_of(plan, base),
                )
        except (ClientError, UnsupportedModel) as fault:
            terminal.error("%s", fault)
            return "model-not-available"
        people.prepared(self._folder)
        self._scrubber = people.scrubber(self._folder)
        self._base, self._digest, self._plan = base, digest, plan
        return "none"

    def stop(self) -> None:
        """End the processes that train together, if there are any."""
        if self._hands is not None:
            self._hands.stop()
        self._hands = None

    def _started(self, plan: Plan) -> Hands:
        runtime = self._folder.settings.runtime
        return Hands(plan, runtime, columns=border.columns(self._folder, plan))

    def open(self) -> Opened | None:
        """See `Trains`.

        Raises:
            ClientError: the records cannot be used.
        """
        plan = self._loaded()
        folder, withdrawn = self._folder, withdrawals.stamp(self._folder)
        if self._people and self._withdrawn == withdrawn:
            return None
        reading = people.read(folder)
        # Not kept beyond this: its language models are large.
        tool, self._scrubber = self._scrubber or people.scrubber(folder), None
        done = people.scrub(reading, tool, said=people.stated(folder))
        self._people = items(done, self._base, self._model, plan)
        self._withdrawn = withdrawn
        if self._hands is not None:
            self._hands.open(self._people)
        return Opened(done.scrubber_digest, done.report, lineage.of(folder, reading))

    def train(
        self,
        start: Arrays,
        state: Arrays | None,
        on_step: Callable[[int, int], None],
        *,
        before: int = 0,
    ) -> Round:
        """See `Trains`.

        Raises:
            UnsupportedModel: see `client.train`.
        """
        import torch

        plan = self._loaded()
        if self._folder.settings.runtime.processes > 1:
            return self._together(plan, start, state, on_step, before=before)
        trained = train(
            self._model,
            self._people,
            start,
            plan,
            labels=labels_of(plan, self._base),
            chunk_tokens=self._folder.settings.runtime.chunk_tokens,
            state=state and {name: torch.from_numpy(np.array(a)) for name, a in state.items()},
            pace=schedule(plan, before=before),
            on_step=on_step,
        )
        kept = {name: np.array(tensor.numpy(), order="C") for name, tensor in trained.state.items()}
        return Round(trained.delta, kept)

    def _together(
        self,
        plan: Plan,
        start: Arrays,
        state: Arrays | None,
        on_step: Callable[[int, int], None],
        *,
        before: int,
    ) -> Round:
        if self._hands is None:  # one was lost in an earlier round, and all with it
            self._hands = self._started(plan)
            self._hands.open(self._people)
        try:
            return Round(*self._hands.train(start, state, on_step, before=before))
        except BaseException:
            self.stop()
            raise

    def _loaded(self) -> Plan:
        if not self._digest or self._plan is None:
            raise ClientError("no model is loaded", code="model-missing")
        return self._plan
