"""Feed every parser of foreign bytes what libFuzzer finds (atheris): typed errors only.

    python tests/fuzz/run.py [--seconds N] [TARGET ...]

Each target runs in a process of its own for so long. Anything but an `AuditError` is a crash; its
input is left in the working folder. Needs `pip install atheris`.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def _fuzz(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["audit"]):
        from audit.errors import AuditError
        from tests.fuzz import parsers
    target = parsers.targets()[name]

    def one(data: bytes) -> None:
        with contextlib.suppress(AuditError):
            target.parse(data)

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        options = [f"-max_total_time={seconds}", "-max_len=8192", "-verbosity=0", corpus]
        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz the parsers of foreign bytes")
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    if options.one:
        _fuzz(options.one, options.seconds)
        return 0
    from tests.fuzz import parsers

    failed = []
    for name in options.targets or parsers.targets():
        command = [sys.executable, __file__, "--seconds", str(options.seconds), "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{'ok' if done.returncode == 0 else 'CRASH':<6} {name}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr, flush=True)
    print(f"{len(failed)} crashed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
