"""The benchmark of the officer's page runs from end to end on made-up entries."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench import running


def test_a_quick_run_asks_every_question_and_ends_with_its_bar(tmp_path: Path) -> None:
    done = running.quick("officer", tmp_path)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])

    assert line["bench"] == "officer"
    assert line["figures"]["entries"] == 20_000
    asked = [name for name in line["figures"] if name.startswith("ms ")]
    assert len(asked) >= 20
    bar = line["bars"]["slowest answer, ms"]
    assert bar["limit"] == 300.0
    assert bar["value"] >= max(line["figures"][name] for name in asked) - 0.1
