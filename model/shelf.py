"""Several adapters on one base model, another one for each row of a batch, changed while it runs.

Every adapter adds B·A·x to some matrices. The factors of all adapters are stacked, so that one
product serves the whole batch, and each row's part of the others is multiplied by zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model import forward
from model.errors import ModelError

Arrays = Mapping[str, npt.NDArray[np.float32]]


class Shelf:
    """The adapters of one base model; without any, the model is the base.

    A row whose adapter is None gets the base model's answer, to the last bit.
    """

    def __init__(self, model: Any) -> None:
        self._model = forward.bare(model)
        self._adapters: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
        self._ranks: dict[str, int] = {}
        self._hooks: list[Any] = []
        self._gates: Tensor | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that are there, in the order in which they came."""
        return tuple(self._adapters)

    def put(self, name: str, trained: Arrays, fixed: Arrays, *, scale: float) -> None:
        """Add an adapter, or replace the one of that name.

        Args:
            name: how rows ask for it.
            trained: "<module path>.B" -> shape (out, rank).
            fixed: "<module path>.A" -> shape (rank, in), for the same modules.
            scale: what B·A is multiplied by.

        Raises:
            ModelError: the factors do not fit the model; nothing changes then.
        """
        modules = dict(self._model.named_modules())
        device = forward.device_of(self._model)
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        for path in sorted(key.removesuffix(".A") for key in fixed):
            a, b = fixed[f"{path}.A"], trained.get(f"{path}.B")
            sides = getattr(getattr(modules.get(path), "weight", None), "shape", None)
            if b is None or sides is None or {b.shape[0], a.shape[1]} != set(sides):
                raise ModelError(
                    f"the adapter {name} does not fit the model at {path}; serve it on the base "
                    "model that it was trained on",
                    code="bad-adapter",
                )
            pairs[path] = (
                torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)).to(device),
                torch.from_numpy(np.ascontiguousarray(b, dtype=np.float32)).to(device) * scale,
            )
        if not pairs or set(trained) != {f"{path}.B" for path in pairs}:
            raise ModelError(
                f"the adapter {name} lacks one of its factors; fetch it again", code="bad-adapter"
            )
        self._adapters = {**self._adapters, name: pairs}
        self._ranks[name] = max(a.shape[0] for a, _ in pairs.values())
        self._install()

    def remove(self, name: str) -> None:
        """Take an adapter away; no row may be using it."""
        self._adapters = {other: it for other, it in self._adapters.items() if other != name}
        self._ranks.pop(name, None)
        self._install()

    def select(self, rows: Sequence[str | None]) -> None:
        """Say which adapter each row of the next pass has.

        Raises:
            ModelError: there is no adapter of such a name.
        """
        if not set(rows) <= {None, *self._adapters}:
            raise ModelError("no adapter of that name is loaded", code="no-adapter")
        if all(row is None for row in rows):
            self._gates = None
            return
        parts = [
            torch.tensor([float(row == name) for row in rows])[:, None].expand(-1, rank)
            for name, rank in self._ranks.items()
        ]
        self._gates = torch.cat(parts, dim=1)[:, None].to(forward.device_of(self._model))

    def _install(self) -> None:
        """Stack the factors, each adapter's padded with zeros to its largest rank."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._gates = [], None
        modules = dict(self._model.named_modules())
        for path in sorted({path for pairs in self._adapters.values() for path in pairs}):
            downs, ups = [], []
            like = next(pairs[path] for pairs in self._adapters.values() if path in pairs)
            for name, pairs in self._adapters.items():
                down = like[0].new_zeros((self._ranks[name], like[0].shape[1]))
                up = like[1].new_zeros((like[1].shape[0], self._ranks[name]))
                if path in pairs:
                    a, b = pairs[path]
                    down[: len(a)], up[:, : len(a)] = a, b
                downs.append(down)
                ups.append(up)
            hook = self._hook(torch.cat(downs).T.contiguous(), torch.cat(ups, dim=1).T.contiguous())
            self._hooks.append(modules[path].register_forward_hook(hook))

    def _hook(self, down: Tensor, up: Tensor) -> Callable[[Any, tuple[Any, ...], Tensor], Tensor]:
        def add(module: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            del module
            if self._gates is None:
                return output
            change = (inputs[0].float() @ down * self._gates) @ up
            return output + change.to(output.dtype)

        return add
