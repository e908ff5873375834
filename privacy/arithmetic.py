"""Whether this machine rounds one person's gradient the same way, whoever is computed beside them.

Taking one person away changes the passes of the others: at most one pass has a row less, and in
passes of the same shape people stand in other places beside others (`trainable.chunks`). A kernel
that rounds differently by shape or place then changes the others' gradients, and what each of them
moves adds to what the one person moved. Clipping passes at most the relative change on, times the
bound: flat clipping is a projection, and AUTO-S is flatter still. So with m for the change by
place and r for the change by rows, summed over all whose pass has a row less, all that rounding
can move is

    (people * m + r) * clip_norm,

which must be within the ALLOWANCE that the clipping leaves free. Both are measured on made-up
examples. A measurement at some shapes is no proof for all; kernels are chosen by shape, though,
so the smallest, a middle and the largest stand for what lies between them. How far a kernel's
rounding reaches is the weights' doing, and the coordinator's adapter is among them: so it is
measured again, at the smallest passes, where a round begins and where it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from privacy import dpsgd, trainable
from privacy.errors import UnsupportedModel

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Rounding:
    """How much of the others' gradients rounding can change, in the norm of one.

    Attributes:
        moved: of each by other company, or another place, in a pass of the same shape.
        resized: of all together who are in a pass that loses a row, or who move up out of it.
    """

    moved: float
    resized: float

    def drift(self, people: int) -> float:
        """What one person's absence can move by rounding, at most, over `clip_norm`."""
        return people * self.moved + self.resized


def measure(
    model: nn.Module,
    *,
    make: Callable[[int, int], E],
    loss: dpsgd.Loss[E],
    longest: int,
    chunk_tokens: int,
    shortest: int = 8,
    brief: bool = False,
    floor: float = 0.0,
) -> Rounding:
    """Compare one made-up person's gradient over places, company and rows.

    Args:
        model: as for `dpsgd.train`, on the machine and with the threads that will train.
        make: a made-up example from its length in tokens and its number; no record is touched.
        loss: as for `dpsgd.train`.
        longest: most tokens of an example in the run.
        chunk_tokens: as in `dpsgd.Settings`.
        shortest: fewest tokens of a made-up example.
        brief: only the smallest passes, a few rows of the shortest; `moved` is 0 then.
        floor: gradients shorter than this count as if they had this norm, since clipping that
            leaves them short passes no more of a change on; 0 refuses a gradient of zero.

    Raises:
        UnsupportedModel: the model or the loss does not give one gradient for each person, or not
            a finite one.
    """
    widths = [
        width
        for width in sorted(
            {trainable.width(size) for size in range(min(shortest, longest), longest + 1)}
        )
        if trainable.rows(width, limit=chunk_tokens) > 1
    ]
    moved = resized = 0.0
    if widths:
        shortest, middle, longest = widths[0], widths[len(widths) // 2], widths[-1]
        # Of two that are one width, the one that is looked at more.
        shapes: dict[int, tuple[int, ...]] = {shortest: (1, 2, 3)}
        if not brief:
            shapes = {longest: (1,), middle: (1, 2), **shapes}
        for width, some in shapes.items():
            full = trainable.rows(width, limit=chunk_tokens)
            counts = {rows for rows in some if rows <= full}
            if width in (shortest, longest) and not brief:  # a third full pass would tell little
                counts.add(full)
            found = {rows: _first(model, make, loss, width, rows=rows) for rows in sorted(counts)}
            steps = [(b, b - a, _change(found[a], found[b], floor)) for a, b in pairwise(found)]
            # Of rows that were passed over it may be any one that changes all who are in the pass.
            most = max(((b if gap == 1 else full) * change for b, gap, change in steps), default=0)
            resized = max(resized, most + sum(change for *_, change in steps))
            if width == shortest and not brief:  # the most people in one pass
                other = _first(model, make, loss, width, rows=full, place=full - 1, company=full)
                moved = _change(found[full], other, floor)
    return Rounding(moved, resized)


def check(rounding: Rounding, *, people: int) -> None:
    """Require that rounding stays within what the clipping leaves free for it.

    Args:
        rounding: from `measure`.
        people: how many there are to train on; all of them may be in one step.

    Raises:
        UnsupportedModel: it does not, or was not a number.
    """
    drift = rounding.drift(people)
    if not drift <= dpsgd.ALLOWANCE:
        raise UnsupportedModel(
            f"on this machine rounding could let one person move {drift:.2g} of the clip norm "
            f"through the others, and {dpsgd.ALLOWANCE:g} is set aside for it; load the base "
            "model in float32, or lower chunk_tokens; if earlier rounds went well, look at the "
            "run's learning rate and at who sends its adapters"
        )


def _first(
    model: nn.Module,
    make: Callable[[int, int], E],
    loss: dpsgd.Loss[E],
    width: int,
    *,
    rows: int,
    place: int = 0,
    company: int = 0,
) -> Tensor:
    """The gradient of person 0, at `place` among others who are numbered from `company` + 1."""
    others = [make(width - number % 2, company + number) for number in range(1, rows)]
    examples = [*others[:place], make(width, 0), *others[place:]]
    return dpsgd.gradients(model, examples, width, loss)[place].double()


def _change(one: Tensor, other: Tensor, floor: float) -> float:
    norms = float(one.norm()), float(other.norm())
    norm = max(floor, min(norms))
    if not (norm > 0.0 and all(found < float("inf") for found in norms)):  # NaN is not under it
        raise UnsupportedModel(
            "a made-up person's gradient is zero or not finite; use another model, precision or "
            "learning rate"
        )
    return float(torch.linalg.vector_norm(one - other)) / norm
