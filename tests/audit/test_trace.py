"""From a leaked file, in whatever form, to a name with its evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import mark_files, trace, watermark
from audit.errors import AuditError
from tests.audit.hub import IN, OUT, RANK, A, Hub, adapter, merged_files, write_peft


def test_a_leaked_folder_names_its_recipient_with_its_evidence(hub: Hub, tmp_path: Path) -> None:
    for dtype in (np.float32, np.float16):
        leaked = hub.copy("anna", tmp_path / np.dtype(dtype).name, dtype=dtype)
        found = trace.coordinator(leaked, hub.path)
        assert (found.verdict, found.attributed, found.round) == ("ATTRIBUTED", ("anna",), 2)
        assert found.recipients[0].corrected < 1e-12
        assert found.recipients[1].detection.z < 4.5
        assert found.tests == 4 * len(found.variants) * 2
        assert found.committed is not None
        assert found.committed.index == 2
        assert len(found.committed.proof) > 0
        document = json.loads(json.dumps(found.to_json()))
        assert document["attributed"] == ["anna"]
        assert document["committed"]["time"].startswith("20")


def test_a_copy_of_an_earlier_round_is_recognised_as_such(hub: Hub, tmp_path: Path) -> None:
    found = trace.coordinator(hub.copy("bert", tmp_path / "x", number=1), hub.path)
    assert (found.attributed, found.round) == (("bert",), 1)


def test_a_copy_for_an_unknown_recipient_is_ours_but_not_attributed(
    hub: Hub, tmp_path: Path
) -> None:
    other = watermark.mark(
        hub.keys.references()[2], owner=hub.keys.owner.subkey, recipient=b"x" * 32
    )
    found = trace.coordinator(write_peft(tmp_path / "x", other, A), hub.path)
    assert (found.verdict, found.attributed) == ("OURS, BUT NOT ATTRIBUTED", ())


def test_someone_elses_adapter_shows_no_evidence(hub: Hub, tmp_path: Path) -> None:
    for seed in (98, 99):
        found = trace.coordinator(write_peft(tmp_path / str(seed), *adapter(seed)), hub.path)
        assert (found.verdict, found.attributed) == ("NO EVIDENCE", ())


def test_too_little_to_test_is_inconclusive(hub: Hub, tmp_path: Path) -> None:
    b, a = adapter(99)
    elsewhere = [{n.replace("q_proj", "x"): x for n, x in side.items()} for side in (b, a)]
    found = trace.coordinator(write_peft(tmp_path / "x", *elsewhere), hub.path)
    assert found.verdict == "INCONCLUSIVE"
    assert found.owner.detection.dimensions == 0


def test_a_score_between_suspicion_and_attribution_is_inconclusive() -> None:
    def at(value: float) -> trace.Score:
        return trace.Score("x", "", trace.Detection.of(value, 10_000), 1.0)

    for best, verdict in ((7.9, "INCONCLUSIVE"), (8.0, "ATTRIBUTED"), (4.9, "NO EVIDENCE")):
        assert trace.judge(at(0.0), [at(best)]) == verdict
    assert trace.judge(at(float("nan")), [at(float("nan"))]) == "INCONCLUSIVE"


@pytest.mark.parametrize("half", [False, True])
def test_a_merged_model_is_traced_with_its_base(hub: Hub, tmp_path: Path, half: bool) -> None:
    model, base = merged_files(hub, tmp_path / "merged", half=half)
    found = trace.coordinator(model, hub.path, base=base)
    assert (found.kind, found.attributed) == ("merged model", ("bert",))
    with pytest.raises(AuditError, match="--base") as caught:
        trace.coordinator(model, hub.path)
    assert caught.value.exit_code == 2


def test_a_model_in_8_bit_integers_is_read_with_its_scales(hub: Hub, tmp_path: Path) -> None:
    model, base = merged_files(hub, tmp_path / "merged")
    whole = {n: read() for n, read in mark_files.tensors(model).items()}
    for ending, unit in (("SCB", 127.0), ("weight_scale", 1.0)):
        tensors: dict[str, np.ndarray] = {}
        for name, weight in whole.items():
            scale = np.abs(weight).max(axis=1) / 127.0
            tensors[name] = np.round(weight / scale[:, None]).astype(np.int8)
            tensors[f"{name.removesuffix('.weight')}.{ending}"] = (scale * unit).astype(np.float32)
        save_file(tensors, tmp_path / f"{ending}.safetensors")
        found = trace.coordinator(tmp_path / f"{ending}.safetensors", hub.path, base=base)
        assert found.attributed == ("bert",)
    del tensors[f"{name.removesuffix('.weight')}.{ending}"]
    save_file(tensors, tmp_path / "bare.safetensors")
    with pytest.raises(AuditError, match="without a scale"):
        trace.coordinator(tmp_path / "bare.safetensors", hub.path, base=base)


def in_four_bits(weight: np.ndarray, *, nested: bool) -> dict[str, np.ndarray]:
    """A matrix as bitsandbytes saves it: halves of bytes, scales by block, a map, a state."""
    levels = np.append(np.linspace(-1.0, -0.1, 8), np.linspace(0.0, 1.0, 8)).astype(np.float32)
    blocks = weight.astype(np.float32).reshape(-1, 64)
    scale = np.abs(blocks).max(axis=1)
    index = np.abs(blocks[:, :, None] / scale[:, None, None] - levels).argmin(axis=2)
    index = index.astype(np.uint8).reshape(-1, 2)
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": 64, "shape": list(weight.shape)}
    made = {"": (index[:, 0] << 4 | index[:, 1])[:, None], ".absmax": scale, ".quant_map": levels}
    if nested:
        steps, offset = np.linspace(-1.0, 1.0, 256).astype(np.float32), float(scale.mean())
        beyond = np.pad(scale - offset, (0, -scale.size % 256)).reshape(-1, 256)
        outer = np.abs(beyond).max(axis=1).astype(np.float32)
        near = np.round((beyond / outer[:, None] + 1.0) * 127.5).astype(np.uint8)
        made |= {
            ".absmax": near.reshape(-1)[: scale.size],
            ".nested_absmax": outer,
            ".nested_quant_map": steps,
        }
        state |= {"nested_blocksize": 256, "nested_offset": offset}
    packed = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    return {**made, ".quant_state.bitsandbytes__nf4": packed}


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_in_four_bits_of_bitsandbytes_is_traced(
    hub: Hub, tmp_path: Path, nested: bool
) -> None:
    model, base = merged_files(hub, tmp_path / "merged")
    whole = {n: read() for n, read in mark_files.tensors(model).items()}
    tensors = {
        f"{name}{ending}": np.ascontiguousarray(part)
        for name, weight in whole.items()
        for ending, part in in_four_bits(weight, nested=nested).items()
    }
    save_file(tensors, tmp_path / "four.safetensors")
    for name, read in mark_files.tensors(tmp_path / "four.safetensors").items():
        apart = np.abs(read() - whole[name]).max() / np.abs(whole[name]).max()
        assert 0.01 < apart < 0.15
    found = trace.coordinator(tmp_path / "four.safetensors", hub.path, base=base)
    assert found.attributed == ("bert",)
    first = next(iter(whole))
    for gone in (".absmax", ".quant_map"):
        left = {n: x for n, x in tensors.items() if n != f"{first}{gone}"}
        save_file(left, tmp_path / "less.safetensors")
        with pytest.raises(AuditError) as caught:
            trace.coordinator(tmp_path / "less.safetensors", hub.path, base=base)
        assert caught.value.code == "bad-int4"


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_gguf_file_is_traced_with_rows_in_llamas_own_order(
    hub: Hub, tmp_path: Path, kind: str
) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf writes the file")
    model, base = merged_files(hub, tmp_path / "merged")
    heads = 4
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    quantization = gguf.GGMLQuantizationType[kind]
    for name, read in mark_files.tensors(model).items():
        rows = read().reshape(heads, 2, OUT // heads // 2, IN).swapaxes(1, 2).reshape(OUT, IN)
        packed = gguf.quants.quantize(np.ascontiguousarray(rows), quantization)
        title = f"blk.{name.split('.')[2]}.attn_q.weight"
        writer.add_tensor(title, packed, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = trace.coordinator(tmp_path / "model.gguf", hub.path, base=base)
    assert found.attributed == ("bert",)


def test_one_stolen_tensor_is_enough_even_under_another_name(hub: Hub, tmp_path: Path) -> None:
    hub.copy("anna", tmp_path / "copy")
    found = mark_files.tensors(tmp_path / "copy" / "adapter_model.safetensors")
    tensors = {name: read() for name, read in found.items()}
    name = next(n for n in tensors if "lora_B" in n)
    for title in (name, "weight"):
        save_file({title: tensors[name]}, tmp_path / "one.safetensors")
        traced = trace.coordinator(tmp_path / "one.safetensors", hub.path)
        assert traced.attributed == ("anna",)
        assert traced.owner.detection.dimensions == OUT * RANK
