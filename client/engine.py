"""The embedded engine with its releases: one base model, an adapter for each release."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.gateway.embedded import EmbeddedEngine, Sampling
from client.released import trains_a
from configs.serving import EngineTable
from model import adapter, base, catalog, frozen
from model.base import Base
from model.batching import Batch
from model.errors import ModelError
from model.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Adapter:
    """A release's adapter, checked against the base model that it is for."""

    name: str
    trained: Any = field(repr=False)
    fixed: Any = field(repr=False)
    scale: float


def load(
    releases: Sequence[Path],
    settings: EngineTable,
    *,
    sampling: Sampling = lambda question: None,
) -> EmbeddedEngine:
    """Load releases that were verified before.

    Args:
        releases: their folders, at least one, all on one base model.
        settings: rows, memory and threads.
        sampling: see `EmbeddedEngine`.

    Guarantees: the base model's files have the digest that each release states, and each frozen
        factor is the one that its public seed gives.

    Raises:
        ModelError: the base model is not installed or differs, or an adapter does not fit it.
        ClientError: two releases have different base models, or a frozen factor is not its seed's.
    """
    facts = _facts(releases[0])
    folder = catalog.find(facts["base_model"], expect_digest=facts["base_digest"])
    loaded = base.load(folder, threads=settings.threads or None, precision=settings.precision)
    shelf = Shelf(loaded.model)
    for release in releases:
        put(shelf, read(release, loaded))
    batch = Batch(
        loaded.model,
        loaded,
        rows=settings.rows,
        tokens=settings.cache_tokens,
        prefill=settings.read_tokens,
        shelf=shelf,
    )
    return EmbeddedEngine(batch, loaded, waiting=settings.queue, sampling=sampling)


def read(release: Path, loaded: Base) -> Adapter:
    """Read a verified release's adapter for a base model that is loaded.

    Raises:
        ClientError, ModelError: see `load`.
    """
    facts = _facts(release)
    trained, fixed, config = adapter.load_arrays(release)
    if facts["base_digest"] != loaded.folder.digest:
        raise ClientError(
            f"{release} was trained on another base model than the one that is served; serve it "
            "from a process of its own",
            code="other-base",
        )
    spec = adapter.Spec(
        rank=config["r"],
        alpha=config["lora_alpha"],
        targets=tuple(config["target_modules"]),
        seed=facts["seed"],
    )
    public = frozen.digest(frozen.factors(loaded.folder, spec))
    if not trains_a(facts) and public != frozen.digest(fixed):
        raise ClientError(
            f"the frozen factor in {release} is not the one of its seed; fetch the release again",
            code="frozen-differs",
            exit_code=4,
        )
    return Adapter(str(facts["release"]), trained, fixed, spec.alpha / spec.rank)


def put(shelf: Shelf, found: Adapter) -> None:
    """Put an adapter on the shelf, or in place of the one of its name.

    Raises:
        ModelError: it does not fit the model.
    """
    shelf.put(found.name, found.trained, found.fixed, scale=found.scale)


def _facts(release: Path) -> dict[str, Any]:
    facts = json.loads((release / "release.json").read_text("utf-8"))
    if not {"base_model", "base_digest", "seed", "release"} <= facts.keys():
        raise ModelError(
            f"{release} does not say what it was trained on; fetch it again", code="bad-release"
        )
    return dict(facts)
