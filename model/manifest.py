"""What a model folder holds: its files, their digest, its architecture and its matrices.

Nothing here imports torch: the egress gate and the auditor read models' shapes without it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from model import architectures
from model.errors import ModelError

FILE: Final = "privity-model.json"
FORMAT: Final = 1
INDEX: Final = "model.safetensors.index.json"
# Everything that shapes what the model computes. Code and pickles are not on the list, and what
# is not on the list is neither copied, hashed nor loaded.
PATTERNS: Final = (
    "model.safetensors",
    "model-*.safetensors",
    INDEX,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HEADER_MAX_BYTES: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this machine whose files have been checked against their digests.

    Attributes:
        name: public name, such as `smollm2-135m-instruct` or `owner/model`; never a path.
        path: folder with weights (safetensors), configuration and tokenizer.
        digest: "sha256:<hex>" over the sorted names and SHA-256 digests of those files.
        architecture: class name from config.json, a key of `architectures.ARCHITECTURES`.
        linear: module path -> (out, in) of every matrix that an adapter could go on.
        source: where the files came from (kind, version or commit, digests), for a model card.
    """

    name: str
    path: Path
    digest: str
    architecture: str
    linear: dict[str, tuple[int, int]] = field(repr=False)
    source: dict[str, str] = field(default_factory=dict, repr=False)


def describe(
    name: str, path: Path, *, source: Mapping[str, str], seen: Path | None = None
) -> ModelFolder:
    """Read a folder from its files alone, trusting no manifest.

    Args:
        name: public name to give it.
        path: the folder.
        source: where the files came from.
        seen: file that remembers digests by size, inode and times, so that a large model is
            hashed once; None hashes always.

    Raises:
        ModelError: no weights, weights only as pickles, quantised or damaged weights, no
            tokenizer, or an unsupported architecture.
    """
    architecture = _architecture(path)
    linear = _linear(path, architecture)
    if not any((path / file).is_file() for file in _TOKENIZERS):
        raise ModelError(
            f"the model folder {path} has no tokenizer; copy its tokenizer files there",
            code="no-tokenizer",
        )
    return ModelFolder(
        name=name,
        path=path,
        digest=digest(file_digests(path, seen=seen)),
        architecture=architecture,
        linear=linear,
        source=dict(source),
    )


def write(folder: ModelFolder) -> None:
    """Write the manifest of a described folder into it."""
    value = {
        "format": FORMAT,
        "name": folder.name,
        "digest": folder.digest,
        "architecture": folder.architecture,
        "linear": {module: list(shape) for module, shape in folder.linear.items()},
        "source": folder.source,
        "files": file_digests(folder.path),
    }
    (folder.path / FILE).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")


def read(path: Path, *, seen: Path | None = None) -> ModelFolder:
    """Read a folder by its manifest and check every file against it.

    Guarantees: the result's files have the digests that the manifest names, no file is missing
        or extra, and architecture and matrices are read from the files themselves.

    Raises:
        ModelError: unreadable or newer manifest (exit 2), or other bytes than it names (exit 4).
    """
    manifest = _object(path / FILE)
    version = manifest.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise ModelError(
            f"{path / FILE} was written by a newer version; update privity", code="newer-format"
        )
    name, wanted, files = (manifest.get(key) for key in ("name", "digest", "files"))
    source = manifest.get("source")
    if (
        version != FORMAT
        or not isinstance(name, str)
        or not isinstance(files, dict)
        or not isinstance(source, dict)
    ):
        raise ModelError(
            f"{path / FILE} is damaged; delete the folder and pull the model again",
            code="manifest-damaged",
        )
    present = file_digests(path, seen=seen)
    wrong = sorted(
        file for file in present.keys() | files.keys() if present.get(file) != files.get(file)
    )
    if wrong or digest(present) != wanted:
        where = ", ".join(wrong) or FILE
        raise ModelError(
            f"the model {name} in {path} is not the one that was pulled ({where} differs); "
            "delete the folder and pull the model again",
            code="model-altered",
            exit_code=4,
        )
    return describe(name, path, source={str(k): str(v) for k, v in source.items()}, seen=seen)


def file_digests(path: Path, *, seen: Path | None = None) -> dict[str, str]:
    """SHA-256 (hex) of every file of the model, by name.

    Args:
        path: the model folder.
        seen: see `describe`. A remembered digest counts only while size, inode, modification
            time and change time of the file all stay the same.
    """
    remembered = _remembered(seen)
    digests, stats = {}, {}
    for file in sorted(p for p in path.iterdir() if p.is_file() and _belongs(p.name)):
        state = file.stat()
        mark = [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
        known = remembered.get(str(file.resolve()))
        if isinstance(known, dict) and known.get("stat") == mark:
            digests[file.name] = str(known["sha256"])
        else:
            with file.open("rb") as stream:
                digests[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
        stats[str(file.resolve())] = {"stat": mark, "sha256": digests[file.name]}
    if seen is not None and stats != remembered:
        # A cache only: on a read-only disk the model is hashed each time instead.
        with suppress(OSError):
            seen.parent.mkdir(parents=True, exist_ok=True)
            draft = seen.with_name(f"{seen.name}.new")
            draft.write_text(json.dumps(stats), "utf-8")
            draft.replace(seen)
    return digests


def digest(files: Mapping[str, str]) -> str:
    """Digest of a model: SHA-256 over the compact JSON of file names and digests, sorted."""
    text = json.dumps(dict(files), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def weights(path: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder, whole or sharded.

    Raises:
        ModelError: there are none, or the index of shards names a missing file.
    """
    if (path / INDEX).is_file():
        shards = _object(path / INDEX).get("weight_map")
        names = sorted({str(shard) for shard in shards.values()}) if shards else []
    else:
        names = ["model.safetensors"]
    files = tuple(path / name for name in names)
    if files and all(_belongs(file.name) and file.is_file() for file in files):
        return files
    if not (path / INDEX).is_file() and any(
        fnmatch(file.name, pattern) for file in path.iterdir() for pattern in _PICKLES
    ):
        raise ModelError(
            f"the weights in {path} are pickles, which can run code when opened; "
            "use a copy of the model with safetensors weights",
            code="pickle-weights",
        )
    raise ModelError(
        f"the model folder {path} lacks its weights (model.safetensors or all of its shards); "
        "copy the whole model there",
        code="no-weights",
    )


def _belongs(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in PATTERNS)


def _architecture(path: Path) -> str:
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path} is not a model folder, it has no config.json; "
            "give a folder in Hugging Face format",
            code="not-a-model",
        )
    config = _object(path / "config.json")
    if config.get("quantization_config"):
        raise ModelError(
            f"the model in {path} is quantised, and an adapter cannot be trained on it; "
            "use the full-precision weights",
            code="quantised-model",
        )
    named = config.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else "(none named)"
    architectures.of(name)
    return name


def _linear(path: Path, architecture: str) -> dict[str, tuple[int, int]]:
    traits = architectures.of(architecture)
    linear = {}
    for file in weights(path):
        for tensor, shape in _tensors(file):
            module, _, leaf = tensor.rpartition(".")
            if leaf != "weight" or len(shape) != 2:
                continue
            if module.rpartition(".")[2] in architectures.NOT_LINEAR:
                continue
            if not module.startswith(traits.prefix):  # a checkpoint of the backbone alone
                module = traits.prefix + module
            rows, columns = shape
            linear[module] = (columns, rows) if traits.transposed else (rows, columns)
    return dict(sorted(linear.items()))


def _tensors(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    try:
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if not size <= _HEADER_MAX_BYTES:
                raise ValueError("header too large")
            header = json.loads(stream.read(size))
        for name, entry in header.items():
            if name != "__metadata__":
                yield str(name), tuple(int(extent) for extent in entry["shape"])
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the weights file {file} is damaged; copy or pull the model again",
            code="weights-damaged",
        ) from error


def _object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file} cannot be read as JSON; copy or pull the model again", code="not-json"
        ) from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{file} does not hold a JSON object; copy or pull the model again", code="not-json"
        )
    return value


def _remembered(seen: Path | None) -> dict[str, Any]:
    if seen is None:
        return {}
    try:
        value = json.loads(seen.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
