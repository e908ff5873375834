"""Reads the weights of an ONNX model that may be a stolen copy, as `privity export` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from audit.errors import AuditError, unreadable
from audit.watermark import Float32

# TensorProto.DataType: FLOAT, FLOAT16, BFLOAT16.
_KINDS: Final = {1: ("<f4", 4), 10: ("<f2", 2), 16: ("<u2", 2)}
_WRAPPED: Final = ("model.model.", "model.lm_head.")


def tensors(path: Path) -> dict[str, Callable[[], Float32]]:
    """Every named matrix and vector of the graph; each is read when called.

    What lies beside the graph is read from files in its own folder only.

    Raises:
        AuditError: the package onnx is missing, or the file is damaged or of another kind.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise AuditError(
            "reading ONNX needs the package onnx; run: pip install onnx",
            code="no-onnx",
            exit_code=2,
        ) from None
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception:  # whatever protobuf raises, it is no model
        raise _not_onnx(path) from None
    found = {_plain(item.name): _reading(path, item) for item in graph.initializer
             if item.data_type in _KINDS}  # fmt: skip
    if not found:
        raise _not_onnx(path)
    return found


def _reading(path: Path, item: Any) -> Callable[[], Float32]:
    shape = tuple(int(n) for n in item.dims)
    form, width = _KINDS[item.data_type]
    size = int(np.prod(shape)) * width

    def read() -> Float32:
        raw = item.raw_data
        if item.data_location == 1:  # EXTERNAL
            raw = _beside(path, {e.key: e.value for e in item.external_data}, size)
        elif not raw:
            raw = np.array(item.float_data, dtype="<f4").tobytes()
        if len(raw) != size:
            raise _not_onnx(path)
        values = np.frombuffer(raw, dtype=form)
        if item.data_type == 16:  # bfloat16: the upper half of a float32
            values = (values.astype("<u4") << 16).view("<f4")
        return np.asarray(values, dtype=np.float32).reshape(shape)

    return read


def _beside(path: Path, said: dict[str, str], size: int) -> bytes:
    name = said.get("location", "")
    try:
        start = int(said.get("offset", 0))
        if name != Path(name).name or name in ("", ".", "..") or start < 0:
            raise ValueError
        with (path.parent / name).open("rb") as file:
            file.seek(start)
            return file.read(size)
    except (OSError, ValueError):
        raise _not_onnx(path) from None


def _plain(name: str) -> str:
    """The tensor's name in transformers, without the wrapper that was traced."""
    return name.removeprefix("model.") if name.startswith(_WRAPPED) else name


def _not_onnx(path: Path) -> AuditError:
    return AuditError(
        f"{path} is not a whole ONNX model; fetch it again, with the data beside it",
        code="not-onnx",
    )
