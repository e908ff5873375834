"""From a leaked file to a name with its evidence; and every forged claim is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import (
    chips,
    digests,
    dispute,
    dossier,
    keys,
    log,
    mark_evidence,
    mark_files,
    mark_keys,
    trace,
    watermark,
)
from audit.errors import AuditError

RANK, OUT, IN, SCALE = 8, 96, 64, 2.0
NAMES = ("anna", "bert", "coordinator")
RUN = "r1"


def adapter(seed: int) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(12)]
    a = {n: np.linalg.qr(rng.normal(size=(IN, RANK)))[0].T.astype(np.float32) for n in names}
    b = {n: rng.normal(size=(OUT, RANK)).astype(np.float32) for n in names}
    return {f"{n}.B": x for n, x in b.items()}, {f"{n}.A": x for n, x in a.items()}


B, A = adapter(1)


def write_peft(folder: Path, b: dict, a: dict, dtype: Any = np.float32) -> Path:
    folder.mkdir()
    tensors = {
        f"base_model.model.{name[:-2]}.lora_{side}.weight": np.ascontiguousarray(x, dtype)
        for side, arrays in (("A", a), ("B", b))
        for name, x in arrays.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@dataclass
class Hub:
    """A coordinator's folder with one run: master key, log, committed keys, two references."""

    path: Path
    log: log.Log
    keys: mark_keys.Keys

    def copy(self, name: str, out: Path, number: int = 2, **more: Any) -> Path:
        reference = self.keys.references()[number]
        subkey = self.keys.of(name).subkey
        marked = watermark.mark(reference, owner=self.keys.owner.subkey, recipient=subkey)
        return write_peft(out, marked, A, **more)


def make(path: Path, **forged: Any) -> Hub:
    """An honest coordinator, or one that forges a part of the commitment."""
    ring = keys.create(path / "keys", "hub")
    made = log.Log.create(path / "log", keys=ring)
    master = path / "secrets" / "watermark.master"
    master.parent.mkdir()
    master.write_text((b"m" * 32).hex())
    made.append(
        "run-started",
        {"plan_digest": "sha256:" + "0" * 64, "plan": {}, "institutions": ["anna"], "quorum": 1},
        run=RUN,
    )
    size = forged.get("size", made.size)
    root = "sha256:" + made.root(made.size).hex()

    def key(name: str) -> mark_keys.Key:
        subkey = chips.derive(
            b"m" * 32, origin=made.origin, size=size, root=root, release=RUN, recipient=name
        )
        return mark_keys.Key(name, forged.get("subkeys", {}).get(name, subkey), b"n" * 32)

    held = mark_keys.create(
        path / "runs" / RUN / "watermark",
        release=RUN, scale=SCALE, strength=0.05, tree_size=size, tree_root=root,
        owner=key(""), recipients=tuple(key(name) for name in NAMES), basis=A,
    )  # fmt: skip
    rows = [{"recipient": k.name or "owner", "commitment": k.commitment} for k in held.all]
    made.append(
        "watermark-keys",
        {
            "tree_size": size,
            "tree_root": root,
            **{f"{n}_digest": "sha256:" + "0" * 64 for n in ("basis", "table", "detector")},
            "strength": "0.05",
            "commitments": forged.get("rows", rows),
        },
        run=RUN,
    )
    held.keep_reference(1, {n: 0.5 * x + 0.3 for n, x in B.items()})
    held.keep_reference(2, B)
    made.checkpoint()
    return Hub(path, made, held)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = make(tmp_path / "hub")
    yield made
    made.log.close()


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


def merged_files(hub: Hub, folder: Path, *, half: bool = False) -> tuple[Path, Path]:
    rng = np.random.default_rng(4)
    base = {f"{n.removesuffix('.B')}.weight": rng.normal(size=(OUT, IN)) for n in B}
    reference = hub.keys.references()[2]
    marked = watermark.mark(
        reference, owner=hub.keys.owner.subkey, recipient=hub.keys.of("bert").subkey
    )
    whole = {
        f"{m}.weight": base[f"{m}.weight"] + SCALE * marked[f"{m}.B"] @ A[f"{m}.A"]
        for m in reference.carriers
    }
    for name, tensors in (("base", base), ("model", whole)):
        (folder / name).mkdir(parents=True)
        kind = np.float16 if half else np.float32
        save_file(
            {n: np.asarray(x, kind) for n, x in tensors.items()},
            folder / name / "model.safetensors",
        )
    return folder / "model", folder / "base"


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


# -- forged claims --------------------------------------------------------------------------------


def refused(hub: Hub, suspect: Path, **more: Any) -> str:
    with pytest.raises(AuditError) as caught:
        trace.coordinator(suspect, hub.path, **more)
    assert caught.value.exit_code == 4
    return caught.value.code


def test_a_key_made_after_the_fact_is_refused(hub: Hub, tmp_path: Path) -> None:
    suspect = write_peft(tmp_path / "x", *adapter(99))
    document = json.loads(hub.keys.file.read_text())
    late = mark_keys.Key("anna", b"f" * 32, b"n" * 32)
    document["recipients"][0] |= {"subkey": late.subkey.hex(), "commitment": late.commitment}
    hub.keys.file.write_text(json.dumps(document))
    assert refused(hub, suspect) == "key-uncommitted"


def test_a_ground_key_is_refused_though_it_was_committed_to(tmp_path: Path) -> None:
    hub = make(tmp_path / "hub", subkeys={"anna": b"g" * 32})
    assert refused(hub, hub.copy("anna", tmp_path / "x")) == "key-ground"


def test_keys_that_are_bound_to_another_head_are_refused(tmp_path: Path) -> None:
    hub = make(tmp_path / "hub", size=1)
    assert refused(hub, hub.copy("anna", tmp_path / "x")) == "key-unbound"


def test_an_artefact_older_than_the_commitment_is_refused(hub: Hub, tmp_path: Path) -> None:
    leaked = hub.copy("anna", tmp_path / "x")
    now = datetime.now(UTC)
    assert refused(hub, leaked, published=now - timedelta(days=1)) == "artefact-older"
    assert trace.coordinator(leaked, hub.path, published=now + timedelta(days=1)).attributed


def test_an_edited_commitment_is_refused(hub: Hub, tmp_path: Path) -> None:
    leaked = hub.copy("anna", tmp_path / "x")
    (tile,) = [p for p in (hub.path / "log" / "tile" / "entries").rglob("*") if p.is_file()
               and p.name == str(hub.log.size)]  # fmt: skip
    data = tile.read_bytes()
    tile.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    assert refused(hub, leaked) in {"wrong-root", "damaged-entry", "bad-signature", "not-dsse"}


def test_a_run_without_commitment_counts_for_nothing(hub: Hub, tmp_path: Path) -> None:
    leaked = hub.copy("anna", tmp_path / "x")
    shutil.copytree(hub.path / "runs" / RUN, hub.path / "runs" / "r2")
    file = hub.path / "runs" / "r2" / "watermark" / mark_keys.KEY_FILE
    file.write_text(file.read_text().replace('"release": "r1"', '"release": "r2"'))
    assert refused(hub, leaked) == "key-uncommitted"


# -- disputes -------------------------------------------------------------------------------------


def test_an_arbiter_repeats_the_test_with_half_a_key(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        mark_evidence, "from_bundle", lambda path: mark_evidence.from_coordinator(path)
    )
    leaked = hub.copy("anna", tmp_path / "x")
    whole = trace.coordinator(leaked, hub.path).recipients[0].detection.z
    for half in chips.HALVES:
        case = dispute.disclose(hub.keys, "anna", half=half, number=None, out=tmp_path / str(half))
        held = {chips.half_of(name) for name in mark_files.tensors(case / "reference.safetensors")}
        assert held == {half}
        assert hub.keys.of("anna").subkey.hex() not in (case / "opening.json").read_text()
        found = dispute.repeat(leaked, case, hub.path)
        assert found.verdict == "ATTRIBUTED"
        assert found.detection.z == pytest.approx(whole / np.sqrt(2), rel=0.1)
    stranger = write_peft(tmp_path / "y", *adapter(99))
    assert dispute.repeat(stranger, case, hub.path).verdict == "NO EVIDENCE"
    document = json.loads((case / "opening.json").read_text())
    document["key"] = "66" * 32
    (case / "opening.json").write_text(json.dumps(document))
    with pytest.raises(AuditError) as caught:
        dispute.repeat(leaked, case, hub.path)
    assert caught.value.code == "key-uncommitted"
    with pytest.raises(AuditError, match="exists"):
        dispute.disclose(hub.keys, "anna", half=0, number=None, out=case)
    with pytest.raises(AuditError, match="no key was made"):
        dispute.disclose(hub.keys, "nobody", half=0, number=None, out=tmp_path / "z")


# -- files ----------------------------------------------------------------------------------------


def test_key_material_is_private_and_never_printed(hub: Hub) -> None:
    for path in hub.keys.folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    key = hub.keys.of("anna")
    for shown in (repr(key), repr(hub.keys)):
        assert key.subkey.hex() not in shown
        assert repr(key.subkey) not in shown
    with pytest.raises(AuditError, match="never overwritten"):
        mark_keys.write_secret(hub.keys.file, b"")
    hub.keys.keep_reference(2, B)
    with pytest.raises(AuditError, match="another adapter"):
        hub.keys.keep_reference(2, {n: x + 1 for n, x in B.items()})


@pytest.mark.parametrize("part", ["subkey", "format", "recipients", "json", "tree"])
def test_a_damaged_key_file_is_refused(hub: Hub, tmp_path: Path, part: str) -> None:
    document = json.loads(hub.keys.file.read_text())
    if part == "subkey":
        document["recipients"][0]["subkey"] = "66" * 32
    elif part == "format":
        document["format"] = 1
    elif part == "recipients":
        document["recipients"] = []
    elif part == "tree":
        del document["tree"]
    hub.keys.file.write_text("{" if part == "json" else json.dumps(document))
    assert refused(hub, hub.copy("anna", tmp_path / "x")) == "bad-key-file"


@pytest.mark.parametrize("content", [b"", b"no", b"\xff" * 64, b"\x02" + bytes(7) + b"[]", None])
def test_a_damaged_adapter_is_refused(hub: Hub, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(AuditError):
        trace.coordinator(tmp_path, hub.path)


def test_a_value_that_is_not_finite_is_refused(hub: Hub, tmp_path: Path) -> None:
    broken = {n: x.copy() for n, x in B.items()}
    next(iter(broken.values()))[0, 0] = np.nan
    with pytest.raises(AuditError, match=r"not finite|no finite"):
        trace.coordinator(write_peft(tmp_path / "x", broken, A), hub.path)


def test_recipients_need_names_of_their_own(tmp_path: Path) -> None:
    key = mark_keys.Key("anna", b"a" * 32, b"1" * 32)
    for held in ((), (key, key), (replace(key, name=""),)):
        with pytest.raises(AuditError, match="name of its own"):
            mark_keys.create(
                tmp_path, release="r", scale=SCALE, strength=0.05, tree_size=0, tree_root="h",
                owner=key, recipients=held, basis=A,
            )  # fmt: skip


def test_the_dossier_holds_every_key_and_escapes_what_came_from_outside(
    hub: Hub, tmp_path: Path
) -> None:
    leaked = hub.copy("anna", tmp_path / "x")
    found = trace.coordinator(leaked, hub.path)
    page = dossier.page(
        found, artefact="<b>x</b>", digest=digests.folder_digest(leaked), written="today"
    )
    for word in ("ATTRIBUTED to anna", "bert", "z = 8", "inclusion proof", "&lt;b&gt;x"):
        assert word in page
    assert "<b>x</b>" not in page
    assert "http" not in page
    assert "<script" not in page
    assert hub.keys.of("anna").subkey.hex() not in page
    unchecked = dossier.page(replace(found, committed=None), artefact="x", digest="d", written="t")
    assert "No log was given" in unchecked
