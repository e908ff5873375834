"""Runs a benchmark as its user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def quick(name: str, home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `bench/NAME.py --quick --json` in an empty folder, without any model pulled."""
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / f"{name}.py"), "--quick", "--json", *more],
        env={**os.environ, "PRIVITY_HOME": str(home), "OMP_NUM_THREADS": "1"},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
