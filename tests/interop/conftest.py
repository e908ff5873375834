"""A log to be checked by others, and where their tools are.

`make interop` installs the tools into one folder and names it in PRIVITY_INTEROP; without it the
tests run that need nothing but openssl, and Go where Debian's packages are.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from audit import keys, log, witness

SIZE = 300


@dataclass(frozen=True)
class Sample:
    """A published log of 300 entries, cosigned by two witnesses."""

    folder: Path
    log: log.Log
    keys: keys.KeyRing
    witnesses: tuple[keys.KeyRing, ...]

    def twin(self, place: Path) -> Path:
        """A copy to tamper with."""
        shutil.copytree(self.folder, place)
        return place


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    root = tmp_path_factory.mktemp("sample")
    ring = keys.create(root / "keys", "clinic")
    made = log.Log.create(root / "log", keys=ring)
    for number in range(SIZE - 1):
        verdict = "ok" if number % 3 else "faults"
        made.append("verifier-run", {"bundle_digest": f"sha256:{number:064x}", "verdict": verdict})
    others = []
    for name in ("hub", "ward"):
        other = keys.create(root / name / "keys", name)
        memory = witness.Witness(root / name / "witness.sqlite", other)
        line = memory.cosign_request(witness.request(made, 0), log_key=made.keys.log)
        made.add_cosignature(line, witness=other.public().witness)
        others.append(other)
    made.checkpoint()
    return Sample(root / "log", made, ring, tuple(others))


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of `make interop`."""
    place = os.environ.get("PRIVITY_INTEROP")
    if not place:
        pytest.skip("make interop installs this tool")
    return Path(place)
