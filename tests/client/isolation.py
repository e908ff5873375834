"""Whether this kernel lets a trainer be cut off: what needs it is skipped elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _permitted() -> str:
    """Empty if this kernel lets this user make namespaces, else why not."""
    code = (
        "from client.namespace import *\n"
        "try: enter(View((), (), ()))\n"
        "except Refused as refusal: print(refusal)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


REFUSED = _permitted()
isolated = pytest.mark.skipif(bool(REFUSED), reason=f"no namespaces here: {REFUSED}")
