"""Makes a suspect out of what was found: an adapter, a merged model, or one tensor of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audit import mark_files, mark_register
from audit.errors import AuditError
from audit.mark_detect import Part, Suspect
from audit.mark_files import Tensors
from audit.watermark import Float32, Reference

_ALIKE = 0.3  # cosine from which on a nameless tensor is taken for a module's
_FEW = 8  # nameless tensors are compared with every module, so only a few are


@dataclass(frozen=True, slots=True)
class Opened:
    """A suspect, ready to be tested.

    Attributes:
        kind: "adapter" or "merged model".
        parts: its modules by the reference's names.
        registered: the same in the base's coordinates; None where that was not possible.
        explained: how much of the base's embeddings the registration explains, 0 to 1.
        ignored: tensors that were not looked at.
    """

    kind: str
    parts: Suspect
    registered: Suspect | None
    explained: float | None
    ignored: int


def read(path: Path, reference: Reference, base: Path | None) -> Opened:
    """Read a suspect.

    Args:
        path: a PEFT folder, a merged model's folder, or one safetensors or GGUF file.
        reference: the unmarked adapter: module names and shapes, and the public A.
        base: the public base model's folder; needed for a merged model.

    Raises:
        AuditError: nothing readable is there, or a merged model was given without its base.
    """
    file = path / mark_files.ADAPTER_FILE
    found = mark_files.tensors(file if file.is_file() else path)
    b, a, others = mark_files.factors(found)
    if b or a:
        if not b:
            raise AuditError(
                f"{path} holds only A, which is public; give the file that has B", code="not-lora"
            )
        return Opened("adapter", _adapter(b, a, reference), None, None, len(others))
    nameless = _nameless_b(others, reference)
    if nameless:
        return Opened("adapter", _adapter(nameless, {}, reference), None, None, 0)
    if base is None:
        raise AuditError(
            f"{path} holds no LoRA factors; for a merged model give its base with --base",
            code="not-lora",
            exit_code=2,
        )
    original = mark_files.tensors(base)
    config = mark_files.config(base)
    turned = str(config.get("model_type", "")) == "gpt2"  # stores (in, out)
    parts = _merged(others, original, reference, turned=turned)
    registered = mark_register.register(others, original, config)
    again: Suspect | None = None
    if registered is not None:
        again = _differences(registered.weights, original, reference)
    if not parts and not again:
        raise AuditError(
            f"{path} has no matrix in common with the released adapter; check that it is a model "
            "of the same base",
            code="not-comparable",
        )
    ignored = len(others) - len(parts)
    explained = None if registered is None else registered.explained
    return Opened("merged model", parts, again, explained, ignored)


def _adapter(b: Mapping[str, Float32], a: Mapping[str, Float32], reference: Reference) -> Suspect:
    """Factors by the reference's module names; a missing A is the public one."""
    parts: dict[str, Callable[[], Part]] = {}
    for name, left in b.items():
        module = _named(name, reference)
        if module is None:
            continue
        right = a.get(name, reference.carriers[module].a)
        for array in (left, right):
            if array.ndim != 2 or not np.isfinite(array).all():
                raise AuditError(
                    f"the suspect's {module} is no finite matrix; the file is damaged",
                    code="not-finite",
                )
        if left.shape[1] != right.shape[0]:
            raise AuditError(
                f"the suspect's A and B of {module} have different ranks; check the file",
                code="bad-shape",
            )
        part = Part(left=left, right=right)
        parts[module] = lambda part=part: part  # type: ignore[misc]
    return parts


def _named(name: str, reference: Reference) -> str | None:
    """The reference's module of that name, whatever wrappers put before either."""
    if name in reference.carriers:
        return name
    for module in reference.carriers:
        if module.endswith(f".{name}") or name.endswith(f".{module}"):
            return module
    return None


def _nameless_b(others: Tensors, reference: Reference) -> dict[str, Float32]:
    """One or a few stolen tensors under any name: the B that each is most like, if any."""
    if len(others) > _FEW or any(_base_name(name, reference) for name in others):
        return {}
    found: dict[str, Float32] = {}
    for read_one in others.values():
        array = read_one()
        scores = {
            module: abs(_cosine(array, carrier.b))
            for module, carrier in reference.carriers.items()
            if array.shape == carrier.b.shape
        }
        if scores and max(scores.values()) >= _ALIKE:
            found[max(scores, key=lambda module: scores[module])] = array
    return found


def _base_name(name: str, reference: Reference) -> str | None:
    return _named(mark_files.plain(name).removesuffix(".weight"), reference)


def _merged(
    suspect: Tensors, base: Tensors, reference: Reference, *, turned: bool
) -> dict[str, Callable[[], Part]]:
    named = {_base_name(name, reference): read_one for name, read_one in suspect.items()}
    weights = {module: read_one for module, read_one in named.items() if module is not None}
    if not weights and len(suspect) <= _FEW:
        weights = _nameless_weights(suspect, base, reference)
    return _differences(weights, base, reference, turned=turned)


def _nameless_weights(
    suspect: Tensors, base: Tensors, reference: Reference
) -> dict[str, Callable[[], Float32]]:
    found = {}
    for read_one in suspect.values():
        array = read_one()
        for module, carrier in reference.carriers.items():
            shape = (carrier.g.shape[0], carrier.v.shape[0])
            original = base.get(f"{module}.weight")
            if array.shape != shape or original is None:
                continue
            if abs(_cosine(array, original())) >= _ALIKE:
                found[module] = read_one
    return found


def _differences(
    weights: Mapping[str, Callable[[], Float32]],
    base: Tensors,
    reference: Reference,
    *,
    turned: bool = False,
) -> dict[str, Callable[[], Part]]:
    """Suspect minus base, for the modules that both have in the reference's shape."""
    originals = {mark_files.plain(name): read_one for name, read_one in base.items()}
    parts: dict[str, Callable[[], Part]] = {}

    def part(module: str) -> Part:
        theirs, ours = weights[module](), originals[f"{module}.weight"]()
        if theirs.shape != ours.shape:
            return Part(delta=np.zeros((1, 1), dtype=np.float32))
        delta = theirs - ours
        if not np.isfinite(delta).all():
            raise AuditError(
                f"the suspect's {module} holds a value that is not finite; the file is damaged",
                code="not-finite",
            )
        known = (theirs != 0.0) & (delta != 0.0)
        return Part(delta=delta.T, known=known.T) if turned else Part(delta=delta, known=known)

    for module in weights:
        if module in reference.carriers and f"{module}.weight" in originals:
            parts[module] = lambda module=module: part(module)  # type: ignore[misc]
    return parts


def _cosine(one: Float32, other: Float32) -> float:
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.vdot(one, other)) / size if size > 0.0 else 0.0
