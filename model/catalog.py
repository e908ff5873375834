"""Models on this machine: fetched once, found by name, checked by digest at every use."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model import fetch, manifest
from model.errors import ModelError
from model.manifest import ModelFolder

__all__ = ["DEFAULT", "ModelFolder", "find", "home", "listed", "pull"]

DEFAULT: Final = "smollm2-135m-instruct"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def home() -> Path:
    """Where this machine keeps what it pulled: $PRIVITY_HOME, or ~/.cache/privity."""
    named = os.environ.get("PRIVITY_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "privity"


def pull(name_or_path: str, *, progress: Callable[[str, float], None] | None = None) -> ModelFolder:
    """Bring a model to this machine, once.

    Args:
        name_or_path: `smollm2-135m-instruct`, a hub name `owner/model[@revision]`, or the path
            of a model folder, which is copied and goes by the folder's name.
        progress: called with a step's name and the share done, 0 to 1.

    Guarantees: the folder appears under its name whole and checked, or not at all; a second
        pull of the same model changes nothing; pulls at the same time wait for each other.

    Raises:
        ModelError: not reachable (exit 5), wrong bytes (exit 4), or unusable, unsupported or
            misnamed model, or no space (exit 2).
    """
    report = progress or (lambda step, share: None)
    source, name, revision = _source(name_or_path)
    with _alone(name):
        if (_place(name) / manifest.FILE).is_file():
            return _known(name, source)
        return _fetch(name, source, revision, report)


def find(name: str, *, expect_digest: str | None = None) -> ModelFolder:
    """Find a pulled model by name, or a model folder by path, and check its files.

    Args:
        name: as given to `pull`, or the path of a model folder.
        expect_digest: digest that a run plan names; None takes the model as it is.

    Raises:
        ModelError: no such model here (exit 2), or other bytes than pulled or expected (exit 4).
    """
    if _NAME.fullmatch(name) and (_place(name) / manifest.FILE).is_file():
        folder = manifest.read(_place(name), seen=_seen(name))
    elif _is_path(name):
        folder = _described(Path(name).expanduser())
    else:
        raise ModelError(
            f"the model {name} is not on this machine; run 'privity model pull {name}'",
            code="model-missing",
        )
    if expect_digest is not None and folder.digest != expect_digest:
        raise ModelError(
            f"the model {folder.name} here has the digest {folder.digest}, where "
            f"{expect_digest} is asked for; pull that version",
            code="model-differs",
            exit_code=4,
        )
    return folder


def listed() -> tuple[ModelFolder, ...]:
    """Every pulled model, sorted by name.

    Raises:
        ModelError: one of them is damaged.
    """
    places = sorted((home() / "models").glob(f"*/{manifest.FILE}"))
    visible = (place.parent for place in places if not place.parent.name.startswith("."))
    return tuple(manifest.read(place, seen=_seen(place.name)) for place in visible)


def _source(name_or_path: str) -> tuple[Path | None, str, str | None]:
    """The folder to copy from (None: fetch), the public name, and the hub revision."""
    if name_or_path != DEFAULT and _is_path(name_or_path):
        path = Path(name_or_path).expanduser().resolve()
        if not path.is_dir():
            raise ModelError(f"there is no model folder {path}; check the path", code="not-a-model")
        name = path.name
        if (path / manifest.FILE).is_file():
            name = manifest.read(path).name
        if name == DEFAULT and not (path / manifest.FILE).is_file():
            raise ModelError(
                f"the name {DEFAULT} belongs to the default model; rename the folder {path}",
                code="name-taken",
            )
        source: Path | None = path
        revision = None
    else:
        name, _, tail = name_or_path.partition("@")
        source, revision = None, tail or None
    if not _NAME.fullmatch(name):
        raise ModelError(
            f"{name!r} is not a model name; use letters, digits, '.', '_' and '-', with at most "
            "one '/'",
            code="bad-name",
        )
    if source is None and name != DEFAULT and "/" not in name:
        raise ModelError(
            f"there is no model folder and no built-in model called {name}; give "
            f"{DEFAULT}, a name of the form owner/model, or the path of a folder",
            code="unknown-model",
        )
    return source, name, revision


def _known(name: str, source: Path | None) -> ModelFolder:
    folder = manifest.read(_place(name), seen=_seen(name))
    if source is not None and manifest.digest(manifest.file_digests(source)) != folder.digest:
        raise ModelError(
            f"another model is already kept here as {name}; rename the folder {source} and pull "
            "it again",
            code="name-taken",
        )
    return folder


def _fetch(
    name: str, source: Path | None, revision: str | None, progress: fetch.Progress
) -> ModelFolder:
    work = home() / "models" / f".partial-{_slug(name)}"
    out = work / "model"
    # We hold the lock, so what lies there was left by a pull that was killed.
    shutil.rmtree(work, ignore_errors=True)
    try:
        out.mkdir(parents=True)
        if source is not None:
            manifest.weights(source)
            origin = fetch.local(source, out, progress)
            if (source / manifest.FILE).is_file():
                origin = manifest.read(source).source
        elif name == DEFAULT:
            origin = fetch.embedded(work, out, progress)
        else:
            origin = fetch.hub(name, revision, work, out, progress)
        progress("check", 0.9)
        manifest.write(manifest.describe(name, out, source=origin))
        for file in out.iterdir():  # public, and read by other accounts in containers
            file.chmod(0o644)
        out.replace(_place(name))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ModelError(
            f"the disk of {home()} ran full; free some space or set PRIVITY_HOME to a larger disk",
            code="disk-full",
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    progress("done", 1.0)
    return manifest.read(_place(name), seen=_seen(name))


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold the lock of one model name; the system frees it if the process dies."""
    models = home() / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
        lock = (models / f".lock-{_slug(name)}").open("a")
    except OSError as error:
        raise ModelError(
            f"{models} cannot be written; set PRIVITY_HOME to a folder that can",
            code="home-not-writable",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _described(path: Path) -> ModelFolder:
    if (path / manifest.FILE).is_file():
        return manifest.read(path, seen=_seen(str(path.resolve())))
    name = path.resolve().name
    seen = _seen(str(path.resolve()))
    return manifest.describe(name, path, source={"kind": "folder"}, seen=seen)


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or Path(name).is_dir()


def _place(name: str) -> Path:
    return home() / "models" / _slug(name)


def _seen(key: str) -> Path:
    return home() / "models" / ".seen" / f"{_slug(key)[-150:]}.json"


def _slug(name: str) -> str:
    return name.replace("/", "--")
