"""One of the processes that train together, started by `client.hands`: frames in, frames out."""

from __future__ import annotations

import ctypes
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np

from client import frames, hands
from client.errors import ClientError
from client.frames import Frame

_SET_PDEATHSIG = 1
_MOST_BYTES = 1 << 40  # its starter sends what fits into memory

log = logging.getLogger("privity.hands")


class Hand:
    """The plan's model on this process's device, and everybody."""

    def __init__(self, facts: dict[str, Any]) -> None:
        import torch

        from client import border
        from client.train import examine, labels_of
        from configs.run import Plan
        from configs.site import RuntimeTable
        from model import adapter, catalog
        from model import base as base_model
        from privacy.crew import Crew
        from privacy.errors import UnsupportedModel

        self._plan = Plan.model_validate(facts["plan"])
        self._runtime = RuntimeTable.model_validate(facts["runtime"])
        graphics = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if 0 < graphics < self._runtime.processes:
            raise UnsupportedModel(
                f"{self._runtime.processes} processes have {graphics} graphics processors; lower "
                "runtime.processes in site.toml"
            )
        self._crew = Crew(cpu=graphics == 0, meeting=Path(facts["meeting"]))
        found = catalog.find(self._plan.model, expect_digest=self._plan.model_digest)
        base = base_model.load(
            found, threads=self._runtime.threads or None, precision=self._runtime.precision
        )
        self._labels = labels_of(self._plan, base)
        self._model = adapter.attach(
            base, border.spec(self._plan.adapter), columns=facts["columns"]
        ).to(self._crew.device)
        self._people: tuple[tuple[Any, ...], ...] = ()
        examine(
            self._model, self._plan, chunk_tokens=self._runtime.chunk_tokens, labels=self._labels
        )

    def answer(self, asked: Frame, pipe: socket.socket) -> None:
        """Do what one frame asks.

        Raises:
            ClientError: it asks for something unknown.
        """
        if asked.kind == "people":
            self._people = hands.unpacked(asked.arrays)
        elif asked.kind == "train":
            frames.send(pipe, self._trained(asked, pipe))
        else:
            raise frames.strange()

    def _trained(self, asked: Frame, pipe: socket.socket) -> Frame:
        import torch

        from client.train import schedule, train
        from model import adapter
        from model.frozen import digest

        first = self._crew.number == 0

        def on_step(done: int, total: int) -> None:
            if first:
                frames.send(pipe, Frame("step", {"step": done, "steps": total}))

        state = frames.part(asked.arrays, "state") if asked.facts["state"] else None
        trained = train(
            self._model,
            self._people,
            frames.part(asked.arrays, "start"),
            self._plan,
            chunk_tokens=self._runtime.chunk_tokens,
            state=state and {name: torch.from_numpy(np.array(a)) for name, a in state.items()},
            labels=self._labels,
            pace=schedule(self._plan, before=int(asked.facts["before"])),
            on_step=on_step,
            crew=self._crew,
        )
        facts = {"digest": digest(adapter.read(self._model))}
        if not first:
            return Frame("trained", facts)
        kept = {name: np.array(value.numpy(), order="C") for name, value in trained.state.items()}
        arrays = frames.joined(delta=trained.delta, state=kept)
        return Frame("trained", facts, arrays)


def main(arguments: list[str]) -> int:
    """Entry point: the number of the inherited socket."""
    pipe = socket.socket(fileno=int(arguments[0]))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    hand: Hand | None = None
    while True:
        try:
            asked = frames.receive(pipe, most_bytes=_MOST_BYTES)
        except ClientError:
            return 0
        try:
            if hand is None:
                hand = Hand(dict(asked.facts))
                frames.send(pipe, Frame("ready"))
            else:
                hand.answer(asked, pipe)
        except Exception as fault:
            # Our own sentences never quote a record; a foreign one is named by its type only.
            known = getattr(fault, "exit_code", None) is not None
            log.error("%s", fault if known else f"unforeseen {type(fault).__name__}")
            frames.send(pipe, Frame("failed"))
            return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
