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
