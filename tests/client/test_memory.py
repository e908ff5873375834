"""Memory and time by class of GPU follow from shapes, and grow with what makes them grow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client import cli, memory
from model.manifest import ModelFolder


def _model(path: Path, *, layers: int, hidden: int, inner: int, kv: int, vocab: int) -> ModelFolder:
    """A model's shapes without its weights."""
    path.mkdir()
    facts = {"hidden_size": hidden, "vocab_size": vocab, "tie_word_embeddings": hidden < 1000}
    (path / "config.json").write_text(json.dumps(facts))
    shapes = {"q": (hidden, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, hidden),
              "gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}  # fmt: skip
    linear = {f"model.layers.{n}.{name}": s for n in range(layers) for name, s in shapes.items()}
    return ModelFolder("m", path, "sha256:" + "0" * 64, "Qwen2ForCausalLM", linear)


@pytest.fixture
def small(tmp_path: Path) -> ModelFolder:  # the shape of SmolLM2-135M
    return _model(tmp_path / "s", layers=30, hidden=576, inner=1536, kv=192, vocab=49_152)


@pytest.fixture
def large(tmp_path: Path) -> ModelFolder:  # the shape of Qwen2 7B
    return _model(tmp_path / "l", layers=28, hidden=3584, inner=18_944, kv=512, vocab=152_064)


def test_parameters_are_those_that_the_models_are_named_for(
    small: ModelFolder, large: ModelFolder
) -> None:
    assert memory.parameters(small) == pytest.approx(134.5e6, rel=0.01)
    assert memory.parameters(large) == pytest.approx(7.6e9, rel=0.01)


def test_what_is_kept_of_a_token_is_what_was_measured(small: ModelFolder) -> None:
    """1.5 MB a token in float32: two sizes of a pass differ by that."""
    sizes = [
        memory.gigabytes(small, trained=0, longest=64, chunk_tokens=tokens, precision="float32")
        for tokens in (1000, 2000)
    ]
    assert (sizes[1] - sizes[0]) * 1e9 / 1000 == pytest.approx(1.5e6, rel=0.05)


def test_a_large_model_fits_the_classes_that_hold_it(large: ModelFolder) -> None:
    needed = {
        precision: memory.gigabytes(
            large, trained=1_000_000, longest=512, chunk_tokens=384, precision=precision
        )
        for precision in ("float32", "bfloat16")
    }
    assert needed["float32"] > 30.0
    assert 15.0 < needed["bfloat16"] < 21.0
    said = memory.by_device(large, needed=needed, tokens=1e6)
    assert said.keys() == memory.DEVICES.keys()
    assert said["T4 16 GB"] == f"float32 needs {needed['float32']:.1f} GB, too much"
    assert "bfloat16 fits" in said["L4 24 GB"]
    assert "float32 fits" not in said["L4 24 GB"]
    assert "float32 fits" in said["A100 80 GB"]
    assert " min)" in said["A100 80 GB"]
    assert " min)" not in memory.by_device(large, needed=needed, tokens=0.0)["A100 80 GB"]


def test_the_plan_command_says_each_class_on_a_line(federation: Callable[..., Any]) -> None:
    made = federation(["clinic-a"])
    site, run = str(made.sites["clinic-a"].path), str(made.run_file())
    done = CliRunner().invoke(cli.app, ["plan", site, "--run", run], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "gpu estimates T4 16 GB" in done.output
    assert "memory gb float32" in done.output
    found = CliRunner().invoke(cli.app, ["plan", site, "--run", run, "--json"])
    assert json.loads(found.output)["gpu_estimates"].keys() == memory.DEVICES.keys()


def test_fewer_bits_need_less_memory_and_the_tables_stay_whole(large: ModelFolder) -> None:
    def size(precision: str) -> float:
        return memory.gigabytes(
            large, trained=1_000_000, longest=512, chunk_tokens=384, precision=precision
        )

    matrices = sum(out * into for out, into in large.linear.values())
    one = 3 * 4 * max(out * into for out, into in large.linear.values())  # multiplied out
    assert (size("float32") - size("int8")) * 1e9 == pytest.approx(3 * matrices - one, rel=1e-6)
    assert size("nf4") < size("int8") < size("float32")
