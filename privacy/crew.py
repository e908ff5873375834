"""Several processes, a graphics processor each, that take one noisy step together.

One of them draws who is sampled, which notes, and the noise; the others are told. Each computes
its share of the passes of one sample, the clipped sums are added up, and every process adds the one
noise to the one sum. So the step is that of a single process: the same mechanism, whatever their
number. The one door to accelerate.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather, reduce
from torch import Tensor

from privacy.csprng import Csprng
from privacy.errors import PlanInvalid, UnsupportedModel
from privacy.trainable import Chunk

E = TypeVar("E")

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Crew:
    """The processes that train one model together; each of them makes one.

    Args:
        cpu: use processors also where there are graphics processors.
        meeting: a new file by which those that have RANK and WORLD_SIZE in their environment find
            each other; None is as `accelerate launch` has it.
        patience: seconds after which a process that does not answer is taken for dead.

    Raises:
        UnsupportedModel: the processes are not all on one machine. What they tell each other,
            the noise included, goes over its loopback and is not encrypted.
    """

    def __init__(
        self, *, cpu: bool = False, meeting: Path | None = None, patience: float = 1800.0
    ) -> None:
        place: dict[str, Any] = {}
        if meeting is not None and "RANK" in os.environ:
            place = {
                "init_method": meeting.absolute().as_uri(),
                "rank": int(os.environ["RANK"]),
                "world_size": int(os.environ["WORLD_SIZE"]),
                "timeout": timedelta(seconds=patience),
            }
        self._state = PartialState(cpu=cpu, **place)
        if not self._same(_machine()):
            raise UnsupportedModel(
                "the processes are on several machines, and the noise would cross the network in "
                "the clear; start all of them on one machine"
            )

    @property
    def number(self) -> int:
        """This process's number, from 0."""
        return int(self._state.process_index)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return int(self._state.num_processes)

    @property
    def device(self) -> torch.device:
        """What this process computes on."""
        return torch.device(self._state.device)

    def agree(self, *facts: object) -> None:
        """Check that every process has the same facts; sees only their digests.

        Raises:
            PlanInvalid: one has others.
        """
        if not self._same(repr(facts)):
            raise PlanInvalid(
                "the processes have different plans, people or weights; start all of them from "
                "the same files"
            )

    def shared(self, own: Csprng) -> Csprng:
        """Process 0's `own` for every process."""
        return _Shared(self, own)

    def part(self, chunks: Sequence[Chunk[E]]) -> Sequence[Chunk[E]]:
        """This process's share of a sample's passes; one empty pass where there are too few.

        Guarantees: each pass is in exactly one share, whole, so its arithmetic is the same.
        """
        return chunks[self.number :: self.size] or [Chunk((), chunks[0].width)]

    def total(self, part: Tensor) -> Tensor:
        """The sum over all processes, the same on each."""
        return part if self.size == 1 else reduce(part, reduction="sum")

    def told(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What process 0 has in place of `values`, which have the same shape and type on each."""
        if self.size == 1:
            return values
        # Bytes as 64-bit integers: not every backend carries unsigned ones.
        words = torch.from_numpy(np.ascontiguousarray(values).view(np.int64)).to(self.device)
        heard = broadcast(words, from_process=0).cpu().numpy()
        same: npt.NDArray[Any] = heard.view(values.dtype).reshape(values.shape)
        return same

    def _same(self, fact: str) -> bool:
        if self.size == 1:
            return True
        digest = np.frombuffer(hashlib.sha256(fact.encode()).digest(), dtype=np.int64)
        all_of_them = gather(torch.from_numpy(digest.copy()).to(self.device)).view(-1, 4)
        return bool((all_of_them == all_of_them[0]).all())


class _Shared(Csprng):
    """Process 0's stream on every process, which must all draw the same things in turn."""

    __slots__ = ("_crew", "_own")

    def __init__(self, crew: Crew, own: Csprng) -> None:
        super().__init__()
        self._crew, self._own = crew, own

    def _words(self, count: int) -> npt.NDArray[np.uint64]:
        first = self._crew.number == 0
        return self._crew.told(self._own._words(count) if first else np.zeros(count, dtype="<u8"))

    def normal(self, shape: tuple[int, ...], std: float) -> npt.NDArray[np.float64]:
        """See `Csprng.normal`.

        Told and not computed again: a logarithm that rounds otherwise on another processor would
        let the processes' weights drift apart.
        """
        if not 0.0 <= std < math.inf:  # on every process, or the others would wait
            raise PlanInvalid(f"the noise scale is {std}; give a finite number of at least 0")
        first = self._crew.number == 0
        return self._crew.told(self._own.normal(shape, std) if first else np.zeros(shape))


def _machine() -> str:
    try:
        return _BOOT.read_text("ascii")
    except OSError:
        return socket.gethostname()
