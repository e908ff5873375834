"""A site and a coordinator on disk, and commands run on them in this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import privity
from client import folder as folders
from server import store
from tests.cli.said import Said, free_port


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVITY_DEBUG", "")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is some: keys and ledgers wait for the disk at every write."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        yield Path(place)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs one command in this process: (exit code, stdout, stderr)."""

    def run(*words: object) -> Said:
        code = privity.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture(scope="session")
def made() -> Iterator[Path]:
    """A site and a coordinator that never met; copied, never used."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        folders.create(Path(place) / "site", name="clinic-a", coordinator="127.0.0.1:9")
        store.create(
            Path(place) / "hub", name="hub", host="127.0.0.1", port=9, control_port=free_port()
        )
        yield Path(place)


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "site", tmp_path / "site"))


@pytest.fixture
def hub(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "hub", tmp_path / "hub"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that has the form of a model, and two small matrices."""
    folder = tmp_path / "toy-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    name = "model.layers.0.self_attn.{}_proj.weight"
    weights = {name.format(part): np.zeros((16, 16), np.float32) for part in ("q", "v")}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def run_file(tmp_path: Path, model: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(
        f'name = "triage"\n[model]\nname = "{model}"\n[privacy]\nepsilon = 2.0\n'
        '[federation]\ninstitutions = ["clinic-a"]\n'
    )
    return path
