"""The demo's folder: claimed by one run at a time, never somebody else's, restartable."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs import files
from demo.errors import DemoError

_MARK = "demo.json"
_OURS = (
    "coordinator",
    "records",
    "institutions",
    "release",
    "bundle",
    "logs",
    "heldout.jsonl",
    "run.toml",
)


@contextmanager
def claim(path: Path, *, force: bool) -> Iterator[Path]:
    """Hold `path` for one demo, empty.

    What an interrupted demo left is cleared; what a finished one left only with `force`. Nothing
    that the demo did not make is ever removed.

    Raises:
        DemoError: a finished demo lies there, another one runs there, or the folder is not a
            demo's (exit code 2).
    """
    mark = path / _MARK
    if path.exists() and not path.is_dir():
        raise DemoError(f"{path} is a file; choose a folder with --out")
    if path.is_dir() and any(path.iterdir()) and not mark.exists():
        raise DemoError(f"{path} is not empty and not a demo's folder; choose another with --out")
    path.mkdir(parents=True, exist_ok=True)
    with open(path / _MARK, "a+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(f"another demo runs in {path}; wait for it, or use --out") from None
        handle.seek(0)
        if _finished(handle.read(), path) and not force:
            raise DemoError(
                f"{path} holds a finished demo; repeat it with --force, or choose another --out"
            )
        for name in _OURS:
            target = path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        handle.truncate(0)
        (path / "logs").mkdir()
        yield path


def finish(path: Path, result: dict[str, Any]) -> None:
    """Write the result; from now on the folder is a finished demo's."""
    document = {"format": 1, "finished": True, **result}
    # In place, since the lock is on this very file.
    with open(path / _MARK, "r+b") as handle:
        handle.write(json.dumps(document, indent=2).encode())
        handle.truncate()
    files.sync(path)


def _finished(text: bytes, path: Path) -> bool:
    if not text:
        return False
    try:
        values = json.loads(text)
        if values["format"] > 1:
            raise DemoError(
                f"{path} was written by a newer version; install the newer privity, or use --out"
            )
        return bool(values["finished"])
    except (ValueError, KeyError, TypeError):
        return False
