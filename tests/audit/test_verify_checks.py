"""Each check of the verifier alone: what it finds is found by nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import bundle, canonical, digests

CARD = "release/README.md"


def faults(findings: Any) -> list[tuple[str, str]]:
    return [(fault.code, fault.where) for fault in findings.faults]


def manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest, and keep it canonical."""
    path = folder / bundle.MANIFEST
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(canonical.encode(value))


def test_a_missing_file_is_named(copied: Path, judge: Any) -> None:
    (copied / CARD).unlink()
    assert faults(judge(copied)) == [("missing-file", CARD)]


def test_a_file_that_the_manifest_leaves_out_is_named(copied: Path, judge: Any) -> None:
    manifest(copied, lambda value: value["files"].pop("plan.json"))
    assert set(faults(judge(copied))) == {
        ("unexpected-file", "plan.json"),
        ("missing-file", "plan.json"),
    }


def test_a_file_with_no_place_in_a_bundle_is_named(copied: Path, judge: Any) -> None:
    (copied / "note.txt").write_text("x")
    digest = digests.file_digest(copied / "note.txt")
    manifest(copied, lambda value: value["files"].update({"note.txt": digest}))
    assert faults(judge(copied)) == [("unexpected-file", "note.txt")]


def test_a_link_to_the_right_bytes_is_no_file(copied: Path, judge: Any, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (copied / CARD).rename(target)
    (copied / CARD).symlink_to(target)
    assert faults(judge(copied)) == [("symlink", CARD)]


def test_a_pipe_is_no_file_and_is_not_waited_for(copied: Path, judge: Any) -> None:
    (copied / CARD).unlink()
    os.mkfifo(copied / CARD)
    assert faults(judge(copied)) == [("symlink", CARD)]


def test_a_file_beyond_any_size_is_not_hashed(
    copied: Path, judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(path.stat().st_size for path in copied.rglob("*") if path.is_file())
    monkeypatch.setattr(bundle, "MAX_RELEASE_BYTES", largest - 1)
    assert {code for code, _ in faults(judge(copied))} == {"too-large"}


def test_a_plan_beyond_any_size_is_not_read(
    copied: Path, judge: Any, relisted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "plan.json").write_bytes(b"1" * (1 << 20))
    relisted(copied)
    monkeypatch.setattr(bundle, "MAX_JSON_BYTES", 1 << 19)
    assert faults(judge(copied)) == [("too-large", "plan.json")]


def test_disclosures_that_are_no_text_are_named(copied: Path, judge: Any, relisted: Any) -> None:
    (copied / "disclosures").mkdir()
    (copied / "disclosures" / "alpha").write_bytes(b"\xff\n")
    relisted(copied)
    assert faults(judge(copied)) == [("bad-disclosure", "disclosures/alpha")]


def test_a_hash_tile_beyond_any_size_is_named(
    federate: Any, judge: Any, relisted: Any, tmp_path: Path
) -> None:
    played = federate(tmp_path)
    ran = {"bundle_digest": "sha256:" + "1" * 64, "verdict": "ok"}
    for _ in range(260):
        played.sites["alpha"].log.append("verifier-run", ran)
    folder = Path(played.play().bundle())
    tile = "sites/alpha/tile/1/000.p/1"
    (folder / tile).write_bytes(bytes(bundle.MAX_TILE_BYTES + 1))
    relisted(folder)
    assert faults(judge(folder)) == [("too-large", tile)]


def test_released_weights_that_cannot_be_read_are_named(
    copied: Path, judge: Any, relisted: Any
) -> None:
    (copied / "release" / "adapter_model.safetensors").write_bytes(b"no tensors")
    relisted(copied)
    assert faults(judge(copied)) == [("not-safetensors", "release/adapter_model.safetensors")]


def test_two_claims_about_one_institution_are_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    def edit(party: str, kind: str, turn: int | None, fields: dict[str, Any]) -> Any:
        if kind == "release":
            first = fields["claims"][0]
            fields["claims"] = [{**first, "epsilon": "0.1"}, *fields["claims"]]
        return fields

    (fault,) = judge(federate(tmp_path, edit=edit).play().bundle()).faults
    assert (fault.code, fault.sentence) == (
        "claim-differs",
        "two claims are about one institution",
    )


def test_a_run_that_was_aggregated_again_after_its_release_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    class Again(federate):  # type: ignore[misc]
        def receive(self) -> None:
            super().receive()
            *_, last = self.coordinator.log.entries("aggregation")
            more = {**last.event.fields, "input_adapter": last.event.fields["output_adapter"]}
            self.coordinator.log.append("aggregation", more, run="run-1", round=1)

    found = judge(Again(tmp_path).play().bundle())
    assert "the run was aggregated again after this release" in {f.sentence for f in found.faults}
