"""The benchmarks of the logs run from end to end, and what they compare is what they say."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench import running


def test_a_quick_run_measures_appending_and_verifying(tmp_path: Path) -> None:
    done = running.quick("audit", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["figures"]) == {
        "1 writers", "64 writers", "verify 2000", "verify 2000, every signature", "verify 20000",
    }  # fmt: skip
    assert found["figures"]["64 writers"]["per_s"] > found["figures"]["1 writers"]["per_s"]
    assert len(found["bars"]) == 5
