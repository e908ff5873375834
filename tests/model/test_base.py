from __future__ import annotations

from typing import Any

import pytest
import torch

from model import base, catalog
from model.base import Base
from model.errors import ModelError


def test_a_model_loads_in_float32_eval_mode_and_without_its_path(tiny: Base) -> None:
    assert {p.dtype for p in tiny.model.parameters()} == {torch.float32}
    assert not tiny.model.training
    assert str(tiny.folder.path) not in repr(tiny.model.config)
    assert tiny.model.name_or_path == tiny.folder.name


def test_matrices_are_read_from_the_file_as_the_model_has_them(tiny: Base) -> None:
    transposed = tiny.folder.architecture == "GPT2LMHeadModel"
    for path, shape in tiny.folder.linear.items():
        weight = tiny.model.get_submodule(path).weight
        assert tuple(weight.T.shape if transposed else weight.shape) == shape
    linear = {
        name
        for name, module in tiny.model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and not name.endswith("lm_head")
    }
    assert set(tiny.folder.linear) == linear


def test_no_dropout_is_left(tiny: Base) -> None:
    assert all(m.p == 0 for m in tiny.model.modules() if isinstance(m, torch.nn.Dropout))
    left = {k: v for k, v in vars(tiny.model.config).items() if "drop" in k or "_pdrop" in k}
    assert not any(left.values())


def test_files_that_make_no_model_are_refused(folders: Any, tmp_path: Any) -> None:
    import shutil

    folder = shutil.copytree(folders["llama"], tmp_path / "given")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="does not load"):
        base.load(catalog.find(str(folder)))
