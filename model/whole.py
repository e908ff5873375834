"""A folder that appears whole or not at all, for what takes hours to make."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import ModelError


def check_new(out: Path) -> None:
    """Refuse a folder that is there already, before anything is made for it."""
    if out.exists():
        raise ModelError(f"{out} exists; give --out a new folder", code="exists")


@contextmanager
def folder(out: Path) -> Iterator[Path]:
    """A draft to write into, which becomes `out` when the block ends, and is gone if it raises."""
    draft = out.with_name(f".{out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
