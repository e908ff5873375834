"""A bundle in a zip is the bundle: it unpacks to the same bytes and verifies as it is."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit import archive, bundle
from audit.cli import app
from audit.errors import AuditError


def tree(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in bundle.walk(folder)}


def test_packing_gives_the_same_bytes_each_time_and_unpacks_to_the_bundle(
    copied: Path, tmp_path: Path
) -> None:
    archive.pack(copied, tmp_path / "a.zip")
    archive.pack(copied, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert tree(archive.unpack(tmp_path / "a.zip", tmp_path)) == tree(copied)
    with pytest.raises(AuditError, match="exists already"):
        archive.pack(copied, tmp_path / "a.zip")
    (copied / "link").symlink_to("plan.json")
    with pytest.raises(AuditError, match="not a plain file"):
        archive.pack(copied, tmp_path / "c.zip")


def test_a_zip_is_verified_like_a_folder(copied: Path, tmp_path: Path, account: Any) -> None:
    archive.pack(copied, tmp_path / "a.zip")
    words = ["verify", str(tmp_path / "a.zip"), "--json"]
    done = CliRunner().invoke(app, words, obj={"recompute": account})
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["ok"] is True
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        largest = max(packed.infolist(), key=lambda info: info.compress_size)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    # Names and extra fields of a member's own header come before its bytes (APPNOTE 4.3.7).
    lengths = struct.unpack_from("<HH", data, largest.header_offset + 26)
    data[largest.header_offset + 30 + sum(lengths) + largest.compress_size // 2] ^= 1
    (tmp_path / "a.zip").write_bytes(bytes(data))
    assert CliRunner().invoke(app, words, obj={"recompute": account}).exit_code != 0
