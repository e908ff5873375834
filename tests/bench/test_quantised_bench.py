"""The benchmark of fewer bits runs from end to end, and fewer bits are fewer bytes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench import running


def test_a_quick_run_measures_every_form(tmp_path: Path) -> None:
    done = running.quick("quantised", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert list(found) == ["float32", "bfloat16", "int8", "nf4"]
    assert found["float32"]["cosine"] > 0.999999
    assert 0.5 < found["nf4"]["cosine"] < found["int8"]["cosine"] < 1.0
    assert found["nf4"]["weights_mb"] < found["int8"]["weights_mb"] < found["float32"]["weights_mb"]
