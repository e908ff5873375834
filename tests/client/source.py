"""Reading a source as `privity client prepare` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client.prepare import sources
from configs.prepare import Recipe

KEY = b"k" * 32


def read(path: Path | None, tmp_path: Path, recipe: Recipe | None = None, **more: Any) -> Any:
    return sources.read(
        path,
        recipe or Recipe(),
        key=KEY,
        person_column="unit_id",
        draft=tmp_path / ".draft",
        **more,
    )


def triples(source: Any) -> list[tuple[str, str, str]]:
    return [(r.person, r.instruction, r.response) for r in source.reading.records]
