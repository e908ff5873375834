"""Every forged claim is refused with its reason, and a dispute opens one half of a key only."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import (
    chips,
    digests,
    dispute,
    mark_evidence,
    mark_files,
    mark_keys,
    trace,
    watermark,
)
from audit.errors import AuditError
from tests.audit.hub import RUN, SCALE, A, Hub, adapter, make, refused, write_peft


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


def fitted(b: dict, hub: Hub) -> dict:
    """The unmarked reference to which any file would be a copy of bert's: the file less a mark."""
    reference = watermark.Reference.of(b, A, SCALE)
    marked = watermark.mark(
        reference, owner=hub.keys.owner.subkey, recipient=hub.keys.of("bert").subkey
    )
    return {name: (2 * x - marked[name]).astype(np.float32) for name, x in b.items()}


def test_a_reference_made_to_fit_the_artefact_is_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspect = write_peft(tmp_path / "x", adapter(99)[0], A)
    place = hub.keys.folder / "reference-2.safetensors"
    place.unlink()
    hub.keys.keep_reference(2, fitted(adapter(99)[0], hub))
    assert refused(hub, suspect) == "reference-uncommitted"
    # What it is refused for: without the check, somebody else's adapter would name bert.
    monkeypatch.setattr(mark_evidence, "_check_material", lambda *_: None)
    assert trace.coordinator(suspect, hub.path).attributed == ("bert",)


@pytest.mark.parametrize("what", ["basis", "table"])
def test_another_basis_or_table_than_the_log_holds_is_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    leaked = hub.copy("anna", tmp_path / "x")
    if what == "table":
        monkeypatch.setattr(chips, "table_digest", lambda: "sha256:" + "1" * 64)
    else:
        (hub.keys.folder / mark_keys.BASIS_FILE).unlink()
        arrays = {n: np.ascontiguousarray(x[::-1]) for n, x in A.items()}
        save_file(arrays, hub.keys.folder / mark_keys.BASIS_FILE)
    assert refused(hub, leaked) == "reference-uncommitted"


def test_a_detector_of_another_version_is_named_and_not_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaked = hub.copy("anna", tmp_path / "x")
    same = trace.coordinator(leaked, hub.path).committed
    assert same is not None
    assert same.same_detector
    monkeypatch.setattr(watermark, "detector_digest", lambda: "sha256:" + "1" * 64)
    other = trace.coordinator(leaked, hub.path).committed
    assert other is not None
    assert not other.same_detector


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
    fit = tmp_path / "fit"
    shutil.copytree(case, fit)
    forged = watermark.half_arrays(fitted(adapter(99)[0], hub), A, 1)
    arrays = {name: np.ascontiguousarray(x) for name, x in forged.items()}
    (fit / "reference.safetensors").unlink()
    save_file(arrays, fit / "reference.safetensors")
    document = json.loads((fit / "opening.json").read_text())
    document["reference_digest"] = digests.arrays_digest(arrays)
    (fit / "opening.json").write_text(json.dumps(document))
    with pytest.raises(AuditError) as caught:
        dispute.repeat(stranger, fit, hub.path)
    assert caught.value.code == "reference-uncommitted"
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
