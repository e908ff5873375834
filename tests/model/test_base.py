from __future__ import annotations

import json
import platform
import shutil
from typing import Any

import pytest
import torch

from model import adapter, base, catalog, prompts, shapes
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
    folder = shutil.copytree(folders["llama"], tmp_path / "given")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="does not load"):
        base.load(catalog.find(str(folder)))


def test_the_base_may_be_bfloat16_and_its_adapter_stays_float32(tiny: Base) -> None:
    loaded = base.load(tiny.folder, precision="bfloat16")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    model = adapter.attach(loaded, shapes.Spec(rank=2, seed="s"))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    same = adapter.frozen_digest(adapter.attach(tiny, shapes.Spec(rank=2, seed="s")))
    assert adapter.frozen_digest(model) == same
    notes = [prompts.made_up(model, tokens=9, number=number) for number in range(3)]
    for items in (notes, [prompts.Pack(tuple(notes)), prompts.Pack((notes[0],))]):
        losses = prompts.loss(model, items)
        assert losses.dtype == torch.float32
        gradients = torch.autograd.grad(losses.sum(), trained)
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        assert any(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    ("machine", "amx", "product", "dtype"),
    [
        ("x86_64", True, True, torch.bfloat16),
        ("x86_64", False, True, torch.float32),  # vector instructions only
        ("aarch64", False, True, torch.bfloat16),
        ("aarch64", True, False, torch.float32),
    ],
)
def test_auto_is_bfloat16_where_there_are_matrix_units(
    monkeypatch: pytest.MonkeyPatch, machine: str, amx: bool, product: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(base, "_arm_product", lambda: product)
    assert base._dtype("auto") == dtype
    assert base._dtype("float32") == torch.float32
    assert base._dtype("bfloat16") == torch.bfloat16


def test_a_quantised_model_is_refused(folders: Any, tmp_path: Any) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "given")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="quantised"):
        base.load(catalog.find(str(folder)))
