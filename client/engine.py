"""The released model as an engine: base model and adapter, loaded once, answering conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client import released
from model import generation
from model.errors import ModelError


@dataclass(frozen=True, slots=True)
class ReleasedModel:
    """A base model that carries a release's adapter."""

    _released: released.Released = field(repr=False)

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
            with self._released.arm(tuned=True) as model:
                return generation.chat(
                    model,
                    self._released.base,
                    messages,
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                )
        except ModelError as error:
            raise ValueError(error.code) from None


def load(release: Path) -> ReleasedModel:
    """Load a release that was verified before; see `released.load`."""
    return ReleasedModel(released.load(release))
