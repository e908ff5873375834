"""An institution alone: the same way, its own coordinator, one ledger with every other run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.flow

RUN = """\
format = 1
name = "{name}"
[model]
name = "tiny-llama"
[adapter]
rank = 2
[privacy]
epsilon = {epsilon}
sample_rate = 0.5
rounds = 2
steps_per_round = 1
[training]
max_tokens = 96
[evaluation]
path = "held.jsonl"
"""


def _privity(home: Path, *arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "privity", *map(str, arguments)],
        env={**os.environ, "PRIVITY_HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=400, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def site(tiny_home: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "clinic-a"
    _privity(
        tiny_home, "client", "init", folder, "--name", "clinic-a",
        "--coordinator", "127.0.0.1:8443",
    )  # fmt: skip
    settings = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(settings.replace('"smollm2-135m-instruct"', '"tiny-llama"'))
    lines = [
        {"unit_id": f"p{n % 12}", "instruction": f"Which desk? case {n}", "response": "billing"}
        for n in range(24)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "held.jsonl").write_text(json.dumps(lines[0]) + "\n")
    return folder


def test_an_institution_trains_releases_and_verifies_without_anybody_else(
    tiny_home: Path, site: Path, tmp_path: Path
) -> None:
    run = tmp_path / "triage.toml"
    run.write_text(RUN.format(name="triage", epsilon=1.0))
    refused = _privity(tiny_home, "client", "train", site, "--run", run, code=3)
    assert "--yes" in refused
    made: dict[str, Any] = json.loads(
        _privity(tiny_home, "client", "train", site, "--run", run, "--yes", "--json")
    )
    assert made["verified"] == {"ok": True, "faults": 0}
    assert 0 < made["epsilon"] <= 1.0
    assert made["evaluation"]["records"] == 1
    found = json.loads(_privity(tiny_home, "audit", "verify", made["bundle"], "--json"))
    assert [one["name"] for one in found["institutions"]] == ["clinic-a"]
    approvals = _privity(tiny_home, "audit", "show", made["bundle"], "--kind", "approval")
    assert "operator" in approvals
    left = [p for p in psutil.process_iter(["cmdline"]) if str(site) in (p.info["cmdline"] or [])]
    assert left == []

    # Nothing twice, and the ledger is one: a second run composes with the first.
    assert "finished" in _privity(tiny_home, "client", "train", site, "--run", run, code=2)
    run.write_text(RUN.format(name="second", epsilon=1.9))
    over = _privity(tiny_home, "client", "train", site, "--run", run, "--yes", code=3)
    assert "budget" in over
