"""Key files are secret, whole or refused; damaged suspects are refused; the dossier is whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit import digests, dossier, mark_keys, trace
from audit.errors import AuditError
from tests.audit.hub import SCALE, A, B, Hub, refused, write_peft


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
