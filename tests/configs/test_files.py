"""Files that a person owns: private from birth, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs import files
from configs.errors import ConfigError


def test_a_file_has_its_mode_and_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.replace(path, b"one", mode=files.PRIVATE)
    assert path.stat().st_mode & 0o777 == 0o600
    files.replace(path, b"two", mode=files.PRIVATE)
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    files.replace(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="no space left"):
        files.replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_need_not_last_is_written_whole_and_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waited(handle: int) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "fsync", waited)
    path = tmp_path / "a"
    files.replace(path, b"one", mode=files.PRIVATE, durable=False)
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(AssertionError):
        files.replace(path, b"two")


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        files.replace(tmp_path / "none" / "a", b"x")


def test_a_secret_is_private_random_and_never_overwritten(tmp_path: Path) -> None:
    files.create_secret(tmp_path / "a")
    files.create_secret(tmp_path / "b")
    first, second = files.read_secret(tmp_path / "a"), files.read_secret(tmp_path / "b")
    assert len(first) == 32
    assert first != second
    with pytest.raises(ConfigError, match="never overwritten"):
        files.create_secret(tmp_path / "a")
    assert files.read_secret(tmp_path / "a") == first


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    files.create_secret(tmp_path / "a")
    (tmp_path / "a").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        files.read_secret(tmp_path / "a")


@pytest.mark.parametrize("content", [b"xyz", b"\xff", b"123"])
def test_a_damaged_secret_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="damaged"):
        files.read_secret(path)
    with pytest.raises(ConfigError, match="missing"):
        files.read_secret(tmp_path / "none")
