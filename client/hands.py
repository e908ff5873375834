"""Several processes that take one institution's noisy steps together, each over a part of a step.

The trainer, cut off as it is, starts them in its own namespaces and hands them the plan and the
people over pipes. What they tell each other goes over the loopback of that namespace, found by a
file there. Sampling, noise and shares are `privacy.crew`'s.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client import frames
from client.errors import ClientError
from client.frames import Frame
from configs.run import Plan
from configs.site import RuntimeTable

Item = Any  # an Example or a Preference
Arrays = Mapping[str, Any]


class Hands:
    """The processes of one plan, up until `stop`.

    Args:
        plan: the approved plan.
        runtime: how many, and how each computes.
        columns: of each matrix that is trained here; see `client.border.columns`.

    Guarantees: when this returns, each of them has loaded the model and found that its machine
    keeps people apart (`client.train.examine`).

    Raises:
        ClientError: one does not start, or cannot train this plan; none is left then.
    """

    def __init__(self, plan: Plan, runtime: RuntimeTable, *, columns: int) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="privity-"))
        self._size = runtime.processes
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[socket.socket] = []
        try:
            for number in range(self._size):
                self._start(number, runtime)
            facts = {"plan": plan.document(), "runtime": runtime.model_dump(mode="json"),
                     "columns": columns, "meeting": str(self._place / "meeting")}  # fmt: skip
            self._tell(Frame("begin", facts))
            self._gather("ready")
        except BaseException:
            self.stop()
            raise

    def open(self, people: Sequence[tuple[Item, ...]]) -> None:
        """Give each of them everybody.

        Raises:
            ClientError: one is gone.
        """
        self._tell(Frame("people", {}, packed(people)))

    def train(
        self,
        start: Arrays,
        state: Arrays | None,
        on_step: Callable[[int, int], None],
        *,
        before: int,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """One round; arguments as for `client.trainer.Trains`.

        Returns:
            The change of what is trained, and the optimiser's state, by name.

        Raises:
            ClientError: one of them failed or is gone. None is left then, and what was charged for
                the round stays charged.
        """
        arrays = frames.joined(start=start, state=state or {})
        most = 8 * sum(array.nbytes for array in start.values()) + (1 << 20)
        try:
            self._tell(Frame("train", {"state": state is not None, "before": before}, arrays))
            answers = self._gather("trained", on_step, most_bytes=most)
            if len({answer.facts["digest"] for answer in answers}) != 1:
                raise ClientError("the processes ended with different weights", code="failed",
                                  exit_code=1)  # fmt: skip
        except BaseException:
            self.stop()
            raise
        delta, kept = (frames.part(answers[0].arrays, title) for title in ("delta", "state"))
        return delta, kept

    def stop(self) -> None:
        """End them all; their meeting place goes too."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        shutil.rmtree(self._place, ignore_errors=True)

    def _start(self, number: int, runtime: RuntimeTable) -> None:
        ours, theirs = socket.socketpair()
        self._pipes.append(ours)
        threads = runtime.threads or max(1, (os.cpu_count() or 1) // self._size)
        told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": self._size,
                "LOCAL_WORLD_SIZE": self._size, "OMP_NUM_THREADS": threads,
                "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo",
                "MASTER_ADDR": "127.0.0.1"}  # fmt: skip
        with theirs:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "client.hands_main", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    env=os.environ | {name: str(value) for name, value in told.items()},
                )
            )

    def _tell(self, frame: Frame) -> None:
        for pipe in self._pipes:
            frames.send(pipe, frame)

    def _gather(
        self,
        kind: str,
        on_step: Callable[[int, int], None] = lambda done, total: None,
        *,
        most_bytes: int = 0,
    ) -> list[Frame]:
        """The answer of each, in their order; the first one that fails or is gone ends it."""
        found: dict[int, Frame] = {}
        while len(found) < self._size:
            for pipe in select.select(self._pipes, [], [])[0]:
                answer = frames.receive(pipe, most_bytes=most_bytes)
                if answer.kind == "step":
                    on_step(int(answer.facts["step"]), int(answer.facts["steps"]))
                elif answer.kind == kind:
                    found[self._pipes.index(pipe)] = answer
                else:
                    raise ClientError(
                        "one of the processes that train together stopped; read its line above",
                        code="failed",
                        exit_code=1,
                    )
        return [found[number] for number in range(self._size)]


def packed(people: Sequence[tuple[Item, ...]]) -> dict[str, Any]:
    """Everybody as arrays; `unpacked` gives the same back."""
    from model.preferences import Preference

    items = [item for person in people for item in person]
    pairs = any(isinstance(item, Preference) for item in items)
    examples = [
        one for item in items for one in ((item.chosen, item.rejected) if pairs else (item,))
    ]
    tokens = [token for one in examples for token in one.ids]
    return {
        "items": np.array([len(person) for person in people], np.int64),
        "lengths": np.array([one.tokens for one in examples], np.int64),
        "asked": np.array([one.prompt_tokens for one in examples], np.int64),
        "ids": np.array(tokens, np.int64),
        "references": np.array([item.reference for item in items] if pairs else [], np.float64),
    }


def unpacked(arrays: Arrays) -> tuple[tuple[Item, ...], ...]:
    """Who was packed by `packed`."""
    from model.preferences import Preference
    from model.prompts import Example

    ends = np.cumsum(arrays["lengths"]).tolist()
    ids = arrays["ids"].tolist()
    spans = zip([0, *ends], ends, arrays["asked"].tolist(), strict=False)
    examples = [Example(tuple(ids[start:end]), asked) for start, end, asked in spans]
    items: list[Item] = list(examples)
    if len(arrays["references"]):
        both = zip(examples[::2], examples[1::2], arrays["references"].tolist(), strict=True)
        items = [Preference(*one) for one in both]
    rest = iter(items)
    return tuple(tuple(next(rest) for _ in range(count)) for count in arrays["items"].tolist())
