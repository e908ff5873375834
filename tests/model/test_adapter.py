from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from model import adapter, base, catalog, export, frozen, shapes
from model.base import Base
from model.errors import ModelError

SPEC = shapes.Spec(rank=4, alpha=8, seed="public text")
IDS = torch.tensor([[5, 9, 33, 200, 7, 7, 61]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does(tiny: Base, stir: Any) -> None:
    plain = logits(tiny.model)
    model = adapter.attach(tiny, SPEC)
    assert torch.equal(logits(model), plain)
    stir(model)
    assert not torch.allclose(logits(model), plain, atol=1e-3)


def test_only_the_b_factors_train_and_they_have_the_promised_shapes(tiny: Base) -> None:
    model = adapter.attach(tiny, SPEC)
    promised = adapter.shapes(tiny.folder, SPEC)
    assert {name: array.shape for name, array in adapter.read(model).items()} == promised
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sorted(tuple(p.shape) for p in trained) == sorted(promised.values())
    assert all(not p.any() for p in trained)


def test_the_default_targets_are_query_and_value(tiny: Base) -> None:
    leaves = {path.rpartition(".")[2] for path in adapter.targets_for(tiny.folder, SPEC)}
    fused = tiny.folder.architecture == "GPT2LMHeadModel"
    assert leaves == ({"c_attn"} if fused else {"q_proj", "v_proj"})


def test_a_gradient_step_moves_b_and_never_a(tiny: Base) -> None:
    model = adapter.attach(tiny, SPEC)
    before = adapter.frozen_digest(model)
    model(IDS, use_cache=False).logits.logsumexp(-1).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    assert adapter.frozen_digest(model) == before
    assert all(array.any() for array in adapter.read(model).values())


def test_the_product_of_the_factors_is_what_the_model_computes(tiny: Base, stir: Any) -> None:
    model = adapter.attach(tiny, SPEC)
    stir(model)
    adapted = logits(model)
    arrays, fixed = adapter.read(model), frozen.factors(tiny.folder, SPEC)
    adapter.detach(model)
    transposed = tiny.folder.architecture == "GPT2LMHeadModel"
    with torch.no_grad():
        for path in adapter.targets_for(tiny.folder, SPEC):
            delta = torch.from_numpy(SPEC.scale * arrays[f"{path}.B"] @ fixed[f"{path}.A"])
            tiny.model.get_submodule(path).weight += delta.T if transposed else delta
    torch.testing.assert_close(logits(tiny.model), adapted, atol=2e-4, rtol=1e-3)


def test_frozen_rows_are_orthonormal_and_differ_by_module_and_seed() -> None:
    a = frozen.factor("seed", "layer.0", rank=8, width=64)
    np.testing.assert_allclose(a @ a.T, np.eye(8), atol=1e-6)
    for other in (("seed", "layer.1"), ("seed2", "layer.0")):
        b = frozen.factor(*other, rank=8, width=64)
        assert np.abs(a @ b.T).max() < 0.7


def test_frozen_entries_are_spread_evenly() -> None:
    a = frozen.factor("seed", "layer.0", rank=8, width=4096).astype(np.float64) * 64
    assert abs(a.mean()) < 0.03
    kurtosis = (a**4).mean() / (a**2).mean() ** 2
    assert abs(kurtosis - 3) < 0.2  # a uniform distribution has 1.8, a fair sign 1


def test_frozen_factors_are_the_same_for_ever() -> None:
    a = frozen.factor("golden", "model.layers.0.self_attn.q_proj", rank=2, width=6)
    golden = "sha256:274beab726aaaad00c870d28d91718853040748869ebb056ce40e9cc4f0f87fb"
    assert frozen.digest({"a": a}) == golden
    assert frozen.digest({"a": np.nextafter(a, np.float32(2))}) != golden


def test_the_frozen_digest_is_the_same_in_another_process(llama: Base) -> None:
    model = adapter.attach(llama, SPEC)
    code = (
        "from model import catalog, frozen, shapes;"
        f"f = catalog.find({str(llama.folder.path)!r});"
        "s = shapes.Spec(rank=4, alpha=8, seed='public text');"
        "print(frozen.digest(frozen.factors(f, s)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == adapter.frozen_digest(model)


def test_what_is_written_is_read_back(tiny: Base, stir: Any) -> None:
    model = adapter.attach(tiny, SPEC)
    stir(model)
    arrays = adapter.read(model)
    zero = {name: np.zeros_like(array) for name, array in arrays.items()}
    adapter.write(model, zero)
    assert not any(array.any() for array in adapter.read(model).values())
    adapter.write(model, arrays)
    assert all(np.array_equal(adapter.read(model)[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "nan"])
def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(llama: Base, fault: str) -> None:
    model = adapter.attach(llama, SPEC)
    arrays = {name: array + 1 for name, array in adapter.read(model).items()}
    last = max(arrays)
    if fault == "missing":
        del arrays[last]
    if fault == "extra":
        arrays["model.embed_tokens.B"] = arrays[last]
    if fault == "shape":
        arrays[last] = arrays[last][:, :-1]
    if fault == "nan":
        arrays[last][0, 0] = np.nan
    with pytest.raises(ModelError):
        adapter.write(model, arrays)
    assert not any(array.any() for array in adapter.read(model).values())


def test_a_saved_adapter_loads_with_plain_peft(tiny: Base, tmp_path: Path, stir: Any) -> None:
    model = adapter.attach(tiny, SPEC)
    stir(model)
    adapted, arrays = logits(model), adapter.read(model)
    out = adapter.save(tmp_path / "release", base=tiny, spec=SPEC, arrays=arrays)
    fresh = base.load(tiny.folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        loaded = peft.PeftModel.from_pretrained(fresh.model, str(out))
    torch.testing.assert_close(logits(loaded), adapted, atol=1e-6, rtol=1e-5)
    text = (out / export.CONFIG_FILE).read_text()
    assert str(tiny.folder.path) not in text
    assert f'"{tiny.folder.name}"' in text


def test_a_saved_adapter_reads_back_bit_for_bit(llama: Base, tmp_path: Path, stir: Any) -> None:
    model = adapter.attach(llama, SPEC)
    stir(model)
    arrays = adapter.read(model)
    adapter.save(tmp_path, base=llama, spec=SPEC, arrays=arrays)
    b, a, config = adapter.load_arrays(tmp_path)
    assert b.keys() == arrays.keys()
    assert all(np.array_equal(b[name], arrays[name]) for name in b)
    assert frozen.digest(a) == adapter.frozen_digest(model)
    assert config["r"] == SPEC.rank
    again = adapter.save(tmp_path / "again", base=llama, spec=SPEC, arrays=b, a=a)
    for file in (export.CONFIG_FILE, export.WEIGHTS_FILE):
        assert (again / file).read_bytes() == (tmp_path / file).read_bytes()


@pytest.mark.parametrize("keep", [0, 40, -8])
def test_a_damaged_adapter_folder_is_refused(llama: Base, tmp_path: Path, keep: int) -> None:
    model = adapter.attach(llama, SPEC)
    adapter.save(tmp_path, base=llama, spec=SPEC, arrays=adapter.read(model))
    file = tmp_path / export.WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError) as caught:
        adapter.load_arrays(tmp_path)
    assert caught.value.exit_code == 4


def test_a_second_adapter_needs_the_first_detached(llama: Base, stir: Any) -> None:
    plain = logits(llama.model)
    model = adapter.attach(llama, SPEC)
    stir(model)
    with pytest.raises(ModelError, match="detach"):
        adapter.attach(llama, SPEC)
    adapter.detach(model)
    assert torch.equal(logits(llama.model), plain)
    again = adapter.attach(llama, shapes.Spec(rank=2, seed="other"))
    assert torch.equal(logits(again), plain)


@pytest.mark.parametrize(
    "fields",
    [{"targets": ("nothing",)}, {"targets": ("embed_tokens",)}, {"rank": 17}],
)
def test_an_adapter_that_does_not_fit_is_refused(llama: Base, fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        adapter.shapes(llama.folder, shapes.Spec(seed="s", **fields))


@pytest.mark.parametrize("fields", [{"rank": 0}, {"alpha": 0}, {"rank": 100_000}])
def test_a_senseless_adapter_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ModelError):
        shapes.Spec(seed="s", **fields)


def test_targets_are_names_or_whole_paths(llama: Base) -> None:
    one = shapes.Spec(seed="s", targets=("model.layers.1.self_attn.o_proj",))
    assert adapter.targets_for(llama.folder, one) == one.targets
    assert set(adapter.read(adapter.attach(llama, one))) == {f"{one.targets[0]}.B"}


@pytest.mark.base
def test_the_default_model_takes_the_adapter_it_promises() -> None:
    loaded = base.load(catalog.pull(catalog.DEFAULT))
    spec = shapes.Spec(seed="s")
    model = adapter.attach(loaded, spec)
    promised = adapter.shapes(loaded.folder, spec)
    assert {name: array.shape for name, array in adapter.read(model).items()} == promised
    assert sum(rows * rank for rows, rank in promised.values()) == 184_320
