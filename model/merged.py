"""The release as one model without an adapter: merged, read back, and as an ONNX graph."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.base import Base
from model.errors import ModelError


def merge(model: Any, base: Base, out: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Add the adapter to the weights and write the model as a folder that transformers loads.

    Args:
        model: the base model with its adapter; is merged in place and of no use afterwards.
        base: whose tokenizer goes with it.
        out: existing empty folder.

    Returns:
        The merged weights by name; tied ones once.
    """
    merged = model.merge_and_unload()
    write(merged, base, out)
    tied = bool(getattr(merged.config, "tie_word_embeddings", False))
    return {
        name: tensor.detach().float().cpu().numpy()
        for name, tensor in merged.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }


def write(model: Any, base: Base, out: Path) -> None:
    """Write a model without an adapter, and the tokenizer, as a folder that transformers loads."""
    model.save_pretrained(str(out))
    base.tokenizer.save_pretrained(str(out))
    for name in ("config.json", "generation_config.json"):
        _drop(out / name, "transformers_version", "_name_or_path")
    _drop(out / "tokenizer_config.json", "is_local", "local_files_only")


def read_back(file: Path) -> Any:
    """Load a written GGUF file or merged folder as float32, in evaluation mode.

    Raises:
        ModelError: it does not load.
    """
    from transformers import AutoModelForCausalLM

    try:
        # Reading GGUF draws a bar of its own on stderr.
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if file.is_dir():
                model = AutoModelForCausalLM.from_pretrained(
                    str(file), local_files_only=True, dtype=torch.float32
                )
            else:
                model = AutoModelForCausalLM.from_pretrained(
                    str(file.parent), gguf_file=file.name, local_files_only=True,
                    dtype=torch.float32,
                )  # fmt: skip
    except Exception as error:  # whatever the library raises, the file is of no use
        raise ModelError(
            f"{file} does not load back ({type(error).__name__}); nothing was exported",
            code="export-broken",
            exit_code=4,
        ) from None
    return model.eval()


def read_tokens(file: Path, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts by the tokenizer that a GGUF file describes.

    Raises:
        ModelError: its tokenizer does not load.
    """
    from transformers import AutoTokenizer

    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tool = AutoTokenizer.from_pretrained(
                str(file.parent), gguf_file=file.name, local_files_only=True
            )
    except Exception as error:
        raise ModelError(
            f"the tokenizer of {file} does not load back ({type(error).__name__}); nothing was "
            "exported",
            code="export-broken",
            exit_code=4,
        ) from None
    return [list(tool(text, add_special_tokens=False)["input_ids"]) for text in texts]


class _Logits(nn.Module):
    """Token ids and mask in, logits out: what an ONNX graph needs and no cache."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits, shape (batch, tokens, vocabulary)."""
        found: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).logits
        return found


def write_onnx(model: Any, file: Path) -> None:
    """Write the model as an ONNX graph with free batch and length.

    Inputs `input_ids` and `attention_mask` (int64, batch x tokens), output `logits` (float32).

    Raises:
        ModelError: the model cannot be traced.
    """
    ids = torch.ones((2, 7), dtype=torch.int64)
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # speaks of packages that are not needed
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    shape = {0: batch, 1: tokens}
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
            torch.inference_mode(),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model), (ids, torch.ones_like(ids)), str(file), dynamo=True,
                input_names=["input_ids", "attention_mask"], output_names=["logits"],
                dynamic_shapes=(shape, shape), external_data=True,
                # Else matrices are turned round and lose their names: whose copy it is could not
                # be told. onnxruntime does the same when it loads the graph.
                optimize=False,
            )  # fmt: skip
    except Exception as error:
        raise ModelError(
            f"the model cannot be written as ONNX ({type(error).__name__}); export another form",
            code="export-broken",
        ) from None


class OnnxModel:
    """An ONNX graph in onnxruntime, one thread, on the processor."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(file), settings, providers=["CPUExecutionProvider"]
        )

    def logits(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Logits of rows of one length, shape (rows, tokens, vocabulary)."""
        given = np.array(ids, dtype=np.int64)
        found: npt.NDArray[np.float32] = self._session.run(
            ["logits"], {"input_ids": given, "attention_mask": np.ones_like(given)}
        )[0]
        return found

    def greedy(self, prompt: Sequence[int], *, tokens: int) -> list[int]:
        """The likeliest continuation, computed anew for each token."""
        row = list(prompt)
        for _ in range(tokens):
            row.append(int(self.logits([row])[0, -1].argmax()))
        return row[len(prompt) :]


@torch.inference_mode()
def logits(model: Any, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """Logits of rows of one length by torch, shape (rows, tokens, vocabulary)."""
    given = torch.tensor(ids)
    found: npt.NDArray[np.float32] = (
        model(input_ids=given, attention_mask=torch.ones_like(given), use_cache=False)
        .logits.float()
        .numpy()
    )
    return found


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int], *, tokens: int) -> list[int]:
    """The likeliest continuation by torch, without stopping at an end token."""
    row = list(prompt)
    for _ in range(tokens):
        row.append(int(logits(model, [row])[0, -1].argmax()))
    return row[len(prompt) :]


def _drop(file: Path, *keys: str) -> None:
    if file.is_file():
        value = json.loads(file.read_text("utf-8"))
        for key in keys:
            value.pop(key, None)
        file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
