"""A release folder appears whole and signed, or not at all."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import digests, signing
from audit.errors import AuditError
from server import facts, release
from server.errors import ServerError

DIGEST = "sha256:" + "1" * 64
FACTS = facts.ReleaseFacts(
    release="r1",
    run="run",
    coordinator="north",
    software="privity 0.1.0",
    time=datetime(2026, 11, 22, tzinfo=UTC),
    licence="Apache-2.0",
    base_model="base",
    base_digest=DIGEST,
    seed="seed",
    plan={"rounds": 1},
    plan_digest=DIGEST,
    institutions=("a",),
    claims=(facts.Claim("a", 1.0, 1e-6, 2.0, "patient", "zero-out"),),
    rounds=(facts.Participation(0, ("a",)),),
    data={},
)
CONFIG = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": 2, "lora_alpha": 4}


def write_adapter(folder: Path, **config: object) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    tensors = {
        "base_model.model.m.lora_A.weight": np.eye(2, 4, dtype=np.float32),
        "base_model.model.m.lora_B.weight": np.ones((3, 2), dtype=np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signing.create_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def test_a_release_is_complete_signed_and_names_its_digests(tmp_path: Path, key: Path) -> None:
    made = release.cut(tmp_path / "out" / "r1", adapter_files=write_adapter, facts=FACTS, key=key)
    signing.verify_folder(made.folder, key.with_name("key.pem.pub"))
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "bom.cdx.json",
        "model.sig",
        "release.json",
    ]
    assert made.adapter_digest == digests.safetensors_digest(
        made.folder / "adapter_model.safetensors"
    )
    for digest, name in (
        (made.card_digest, "README.md"),
        (made.bom_digest, "bom.cdx.json"),
        (made.facts_digest, "release.json"),
        (made.signature_digest, "model.sig"),
    ):
        assert digests.file_digest(made.folder / name) == digest
    assert made.folder_digest == digests.folder_digest(made.folder)
    assert made.content_digest == signing.content_digest(made.folder)
    assert made.adapter_digest in (made.folder / "README.md").read_text("utf-8")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r1"]


def test_only_the_adapters_two_files_are_taken_from_a_folder(tmp_path: Path, key: Path) -> None:
    source = tmp_path / "adapter"
    source.mkdir()
    write_adapter(source)
    (source / "notes.txt").write_text("not for others")
    made = release.cut(tmp_path / "r1", adapter_files=source, facts=FACTS, key=key)
    assert not (made.folder / "notes.txt").exists()


def test_the_facts_for_machines_round_trip(tmp_path: Path, key: Path) -> None:
    made = release.cut(tmp_path / "r1", adapter_files=write_adapter, facts=FACTS, key=key)
    stated = json.loads((made.folder / "release.json").read_text("utf-8"))
    assert stated["format"] == 1
    assert stated["release"] == "r1"
    assert stated["claims"][0] == dataclasses.asdict(FACTS.claims[0])
    assert stated["partial"] is False
    assert stated["adapter_digest"] == made.adapter_digest


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"base_model_name_or_path": "/home/x/base"}, "another base model"),
        ({"peft_type": "IA3"}, "no plain LoRA"),
        ({"auto_mapping": {"parent_library": "evil"}}, "no plain LoRA"),
    ],
)
def test_an_unfit_adapter_is_refused(tmp_path: Path, key: Path, config, reason: str) -> None:
    with pytest.raises(ServerError, match=reason):
        release.cut(
            tmp_path / "r1",
            adapter_files=lambda folder: write_adapter(folder, **config),
            facts=FACTS,
            key=key,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.pem", "key.pem.pub"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, key: Path) -> None:
    def broken(folder: Path) -> None:
        write_adapter(folder)
        (folder / "adapter_model.safetensors").write_bytes(b"broken")

    with pytest.raises(AuditError):
        release.cut(tmp_path / "r1", adapter_files=broken, facts=FACTS, key=key)
    with pytest.raises(AuditError):
        release.cut(
            tmp_path / "r1", adapter_files=write_adapter, facts=FACTS, key=tmp_path / "absent"
        )
    with pytest.raises(ServerError, match="no adapter_config"):
        release.cut(tmp_path / "r1", adapter_files=lambda folder: None, facts=FACTS, key=key)
    with pytest.raises(ServerError, match="cannot be cut"):
        release.cut(
            tmp_path / "r1",
            adapter_files=write_adapter,
            facts=dataclasses.replace(FACTS, claims=()),
            key=key,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.pem", "key.pem.pub"]


def test_a_value_that_is_not_finite_is_not_released(tmp_path: Path, key: Path) -> None:
    def broken(folder: Path) -> None:
        write_adapter(folder)
        save_file(
            {"base_model.model.m.lora_B.weight": np.full((3, 2), np.nan, dtype=np.float32)},
            folder / "adapter_model.safetensors",
        )

    with pytest.raises((AuditError, ServerError)):
        release.cut(tmp_path / "r1", adapter_files=broken, facts=FACTS, key=key)


def test_a_release_is_never_overwritten(tmp_path: Path, key: Path) -> None:
    release.cut(tmp_path / "r1", adapter_files=write_adapter, facts=FACTS, key=key)
    with pytest.raises(ServerError, match="never overwritten"):
        release.cut(tmp_path / "r1", adapter_files=write_adapter, facts=FACTS, key=key)
