"""The released model as an engine: base model and adapter, loaded once, answering conversations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import ClientError
from model import adapter, base, catalog, frozen, generation
from model.errors import ModelError


@dataclass(frozen=True, slots=True)
class ReleasedModel:
    """A base model that carries a release's adapter."""

    _model: Any = field(repr=False)
    _base: base.Base = field(repr=False)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
    ) -> generation.Reply:
        """Answer a conversation.

        Raises:
            ValueError: the conversation or a setting is not one that the model can serve.
        """
        try:
            return generation.chat(
                self._model,
                self._base,
                messages,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
            )
        except ModelError as error:
            raise ValueError(error.code) from None


def load(release: Path) -> ReleasedModel:
    """Load a release that was verified before.

    Guarantees: the base model's files have the digest that the release states, and the frozen
        factor is the one that its public seed gives.

    Raises:
        ModelError: the base model is not installed or differs, or the adapter does not fit it.
        ClientError: the frozen factor is not the seed's.
    """
    facts = json.loads((release / "release.json").read_text("utf-8"))
    trained, fixed, config = adapter.load_arrays(release)
    folder = catalog.find(facts["base_model"], expect_digest=facts["base_digest"])
    loaded = base.load(folder)
    spec = adapter.Spec(
        rank=config["r"],
        alpha=config["lora_alpha"],
        targets=tuple(config["target_modules"]),
        seed=facts["seed"],
    )
    model = adapter.attach(loaded, spec)
    if adapter.frozen_digest(model) != frozen.digest(fixed):
        raise ClientError(
            f"the frozen factor in {release} is not the one of its seed; fetch the release again",
            code="frozen-differs",
            exit_code=4,
        )
    adapter.write(model, trained)
    return ReleasedModel(model, loaded)
