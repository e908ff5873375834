"""Digests of what the events speak about: adapters, files and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from audit import canonical
from audit.errors import AuditError, Malformed

Float32 = npt.NDArray[np.float32]


def arrays_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the digest of named float32 arrays, `"sha256:<hex>"`.

    Hashed, for each name in sorted order: the name's length (8 bytes, big endian) and UTF-8 bytes,
    `<f4`, the number of dimensions and each dimension (8 bytes each), then the values as
    little-endian float32 in C order.

    Guarantees: independent of insertion order and memory layout; every part has a fixed length or
    is preceded by it, so two different sets of arrays never feed the same bytes.

    Raises:
        Malformed: an array is not float32.
    """
    state = hashlib.sha256(b"privity arrays v1\n")
    for name in sorted(arrays):
        array = arrays[name]
        if array.dtype != np.float32:
            raise Malformed(
                f"array {name!r} is {array.dtype} and not float32; convert it before hashing",
                code="not-float32",
            )
        encoded = name.encode("utf-8")
        state.update(len(encoded).to_bytes(8, "big") + encoded + b"<f4")
        for number in (array.ndim, *array.shape):
            state.update(int(number).to_bytes(8, "big"))
        state.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return "sha256:" + state.hexdigest()


def safetensors_digest(path: Path) -> str:
    """Return `arrays_digest` over every tensor in a safetensors file.

    Raises:
        Malformed: the file is not safetensors, or holds a tensor that is not float32.
        AuditError: the file cannot be read.
    """
    try:
        arrays = load_tensors(path.read_bytes())
    except OSError as error:
        raise AuditError(f"{path} cannot be read ({error.strerror})", code="unreadable") from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, MemoryError):
        raise Malformed(f"{path.name} is not a safetensors file", code="not-safetensors") from None
    return arrays_digest(arrays)


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes, read in pieces.

    Raises:
        AuditError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise AuditError(f"{path} cannot be read ({error.strerror})", code="unreadable") from None


def folder_digest(folder: Path) -> str:
    """Return the digest of the canonical list `{relative path: file digest}` of a folder.

    Guarantees: changes when any file is edited, added, removed or renamed.

    Raises:
        AuditError: a symbolic link or an unreadable file is inside.
    """
    files: dict[str, canonical.JSON] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise AuditError(f"{path} is a symbolic link; copy the file instead", code="symlink")
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = file_digest(path)
    return canonical.digest(canonical.encode(files))
