"""What an adapter looks like from outside: which modules carry it, names and shapes of its arrays.

Imports no torch: the egress gate checks an update against these shapes in a small process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model import architectures
from model.errors import ModelError
from model.manifest import ModelFolder

Method = Literal["ffa-lora", "lora-xs", "lora"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The adapter that a run plan asks for. All of it is public.

    Attributes:
        method: what of the product B A is trained: "ffa-lora" trains B; "lora-xs" trains R, with
            B = L R and L frozen; "lora" trains both.
        rank: inner dimension r of the product B A, at least 1.
        alpha: the product is scaled by alpha / rank.
        targets: module names, either last components (`q_proj`) or whole paths; empty means
            the architecture's default, its query and value projections.
        seed: public text that A is derived from, and L.
    """

    method: Method = "ffa-lora"
    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] = ()
    seed: str

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 512 or not self.alpha >= 1:
            raise ModelError(
                f"an adapter of rank {self.rank} and alpha {self.alpha} makes no sense; use a "
                "rank of 1 to 512 and a positive alpha",
                code="bad-adapter",
            )

    @property
    def scale(self) -> float:
        """Factor on the product B A."""
        return self.alpha / self.rank


def targets_for(folder: ModelFolder, spec: Spec) -> tuple[str, ...]:
    """Full paths of the modules that carry the adapter, sorted.

    Raises:
        ModelError: a target names no matrix of the model, or the rank does not fit one.
    """
    wanted = spec.targets or architectures.of(folder.architecture).targets
    chosen: set[str] = set()
    for target in wanted:
        found = {p for p in folder.linear if p == target or p.endswith(f".{target}")}
        if not found:
            present = sorted({path.rpartition(".")[2] for path in folder.linear})
            raise ModelError(
                f"the model {folder.name} has no matrix called {target}; choose the adapter's "
                f"targets among {', '.join(present)}",
                code="bad-adapter",
            )
        chosen |= found
    for path in chosen:
        if not spec.rank <= min(folder.linear[path]):
            raise ModelError(
                f"an adapter of rank {spec.rank} does not fit {path} of {folder.name}, which is "
                f"{folder.linear[path][0]} by {folder.linear[path][1]}; use a smaller rank",
                code="bad-adapter",
            )
    return tuple(sorted(chosen))


def shapes(folder: ModelFolder, spec: Spec) -> dict[str, tuple[int, int]]:
    """Name and shape of every array that is trained, and may cross the border.

    Returns:
        "<module path>.B" -> (out, rank); of "lora-xs", "<module path>.R" -> (rank, rank); of
        "lora", beside B also "<module path>.A" -> (rank, in).

    Raises:
        ModelError: the adapter does not fit the model.
    """
    found: dict[str, tuple[int, int]] = {}
    for path in targets_for(folder, spec):
        out, wide = folder.linear[path]
        if spec.method == "lora-xs":
            found[f"{path}.R"] = (spec.rank, spec.rank)
            continue
        found[f"{path}.B"] = (out, spec.rank)
        if spec.method == "lora":
            found[f"{path}.A"] = (spec.rank, wide)
    return dict(sorted(found.items()))
