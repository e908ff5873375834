"""The answers that a round was given, kept so that being asked again spends nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from configs import files


class Outbox:
    """The answer to a round, kept so that asking again costs nothing and gives the same bytes."""

    def __init__(self, folder: Path, number: int) -> None:
        self._facts = folder / f"round-{number}.json"
        self._arrays = folder / f"round-{number}.safetensors"

    def read(self, plan_digest: str, input_digest: str) -> tuple[int, Mapping[str, Any]] | None:
        """The stored answer to the same input under the same plan, or None."""
        try:
            facts = json.loads(self._facts.read_bytes())
            if (facts["plan_digest"], facts["input_digest"]) != (plan_digest, input_digest):
                return None
            return int(facts["statement_index"]), load_arrays(self._arrays.read_bytes())
        except FileNotFoundError:
            return None

    def write(
        self, plan_digest: str, input_digest: str, index: int, arrays: Mapping[str, Any]
    ) -> None:
        """Store an answer: arrays first, then the facts that make them count."""
        self._facts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.replace(self._arrays, save_arrays(dict(arrays)), mode=files.PRIVATE)
        facts = {
            "plan_digest": plan_digest,
            "input_digest": input_digest,
            "statement_index": index,
        }
        files.replace(self._facts, json.dumps(facts).encode(), mode=files.PRIVATE)
