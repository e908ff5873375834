from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audit import bundle, canonical
from audit.errors import AuditError, Malformed


def rewrite(folder: Path, change: dict[str, Any]) -> None:
    path = folder / bundle.MANIFEST
    path.write_bytes(canonical.encode({**json.loads(path.read_bytes()), **change}))


def test_a_bundle_reads_back(sound: Any) -> None:
    read = bundle.read(sound.root / "bundle")
    assert set(read.sites) == {"alpha", "beta", "gamma"}
    assert read.coordinator.keys == sound.coordinator.public
    assert read.release == sound.root / "bundle" / "release"


def test_a_bundle_is_never_written_over(sound: Any) -> None:
    with pytest.raises(AuditError) as caught:
        sound.bundle()
    assert caught.value.exit_code == 2


def test_a_failed_bundle_leaves_nothing(sound: Any, tmp_path: Path) -> None:
    source = bundle.Source(tmp_path / "nowhere", sound.coordinator.public)
    with pytest.raises(AuditError, match="lacks a file"):
        bundle.write(tmp_path / "out", run="r", coordinator=source, sites={}, plan=b"{}")
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_copied_into_a_bundle(sound: Any, tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "passwd").symlink_to("/etc/passwd")
    source = bundle.Source(sound.coordinator.log.folder, sound.coordinator.public)
    with pytest.raises(AuditError, match="not a plain file"):
        bundle.write(
            *(tmp_path / "out",),
            run="r",
            coordinator=source,
            sites={},
            plan=b"{}",
            release=tmp_path / "release",
        )


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../x": "sha256:" + "0" * 64}},
        {"files": {"/etc/passwd": "sha256:" + "0" * 64}},
        {"files": {"a//b": "sha256:" + "0" * 64}},
        {"files": {"a\\b": "sha256:" + "0" * 64}},
        {"files": {"a": "0" * 64}},
        {"files": []},
        {"sites": {"../alpha": {}}},
        {"sites": {"alpha": {}}},
        {"sites": []},
        {"coordinator": None},
        {"run": 1},
        {"format": 2},
        {"format": "1"},
        {"more": 1},
    ],
)
def test_manifests_of_another_form_are_refused(copied: Path, change: dict[str, Any]) -> None:
    rewrite(copied, change)
    with pytest.raises(Malformed):
        bundle.read(copied)


def test_a_newer_format_is_named(copied: Path) -> None:
    rewrite(copied, {"format": 2})
    with pytest.raises(Malformed) as caught:
        bundle.read(copied)
    assert caught.value.code == "newer-format"


@pytest.mark.parametrize("place", ["nowhere", "README"])
def test_what_is_no_bundle_is_wrong_usage(tmp_path: Path, place: str) -> None:
    (tmp_path / "README").write_text("x")
    with pytest.raises(AuditError) as caught:
        bundle.read(tmp_path / place)
    assert (caught.value.code, caught.value.exit_code) == ("no-bundle", 2)


def test_files_behind_links_and_oversized_files_are_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(AuditError) as caught:
        bundle.load(copied, "plan.json", most=3)
    assert caught.value.code == "too-large"
    (copied / "coordinator").rename(tmp_path / "elsewhere")
    (copied / "coordinator").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError) as caught:
        bundle.load(copied, "coordinator/checkpoint", most=1 << 20)
    assert caught.value.code == "symlink"
