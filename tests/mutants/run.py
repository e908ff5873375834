"""Break the product in one place at a time and see whether the tests notice.

    python tests/mutants/run.py [--jobs N] [NAME ...]

Prints one line a mutant, `killed` or `SURVIVED`, and ends with status 1 unless all were killed. A
mutant whose old text is not in its file exactly once is stale, and an error; so is one that fails
to import or to end, for then no test has judged it.

Heavy libraries are imported once; each mutant is a fork of that process in its own copy of the
source tree, so that the tests, their subprocesses and whatever reads the source see the mutant.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("configs", "privacy", "model", "audit", "client", "server", "demo", "tests")
_HEAVY = ("torch", "opacus", "opacus.grad_sample", "opacus.optimizers", "opacus.accountants",
          "numpy", "scipy.stats", "scipy.optimize", "dp_accounting", "hypothesis", "pydantic",
          "pytest", "_pytest.assertion.rewrite", "cryptography.hazmat.primitives.ciphers",
          "safetensors.torch", "transformers", "transformers.models.llama.modeling_llama", "peft",
          "flwr.app")  # fmt: skip
_OPTIONS = ("-x", "-q", "-rf", "--tb=line", "-W", "ignore::pytest.PytestAssertRewriteWarning")
_PATIENCE_S = 300
_BROKEN = 255  # a worker's status when it could not do its work
_FAILED = re.compile(r"^FAILED \S+?::(.+?)(?: - (.*))?$", re.MULTILINE)
_CARELESS = re.compile(r"(Name|UnboundLocal|Attribute|Import|Syntax|Indentation)Error")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mutant: a word, the test that noticed it, and the output if none did."""

    word: str
    by: str
    seconds: float
    output: str


def mutated(mutant: Mutant, text: str) -> str:
    """Return `text` with the mutant's change.

    Raises:
        ValueError: the old text is not there exactly once: the mutant is stale.
    """
    for old, new in ((mutant.old, mutant.new), *([mutant.also] if mutant.also else [])):
        if (count := text.count(old)) != 1 or old == new:
            raise ValueError(f"{mutant.name}: {old!r} stands {count} times in {mutant.file}")
        text = text.replace(old, new)
    return text


def check_fresh(mutants: Iterable[Mutant]) -> None:
    """Refuse a list in which a mutant is stale, or two have one name."""
    names: set[str] = set()
    for mutant in mutants:
        mutated(mutant, (ROOT / mutant.file).read_text(encoding="utf-8"))
        if mutant.name in names:
            raise ValueError(f"{mutant.name}: two mutants have this name")
        names.add(mutant.name)


def _copy_tree(folder: Path) -> None:
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name)
    for name in ("privity.py", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)


def _import_heavy() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _HEAVY:
            importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    settings = importlib.import_module("hypothesis").settings
    phase = importlib.import_module("hypothesis").Phase
    phases = [phase.explicit, phase.generate]  # no shrinking
    settings.register_profile("mutants", phases=phases, database=None)
    settings.load_profile("mutants")
    gc.collect()
    gc.freeze()  # else every fork's collector touches, and so copies, all of it


def _pytest(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run tests in a fork, in `folder`; return pytest's status and output."""
    sys.stdout.flush()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(write, 1)
        os.dup2(write, 2)
        signal.alarm(_PATIENCE_S)
        status = 70
        try:
            status = _in_child(folder, tests)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)  # never back into the parent's code
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        output = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output


def _in_child(folder: Path, tests: Sequence[str]) -> int:
    import pytest

    os.chdir(folder)
    sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or ".").resolve() not in _ours())]
    os.environ["PYTHONPATH"] = str(folder)
    sys.dont_write_bytecode = _baseline_done(folder)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), line_buffering=True)
    sys.stderr = sys.stdout
    status = int(pytest.main([*_OPTIONS, *tests]))
    sys.stdout.flush()
    return status


def _ours() -> set[Path]:
    return {ROOT, Path(__file__).resolve().parent}


def _baseline_done(folder: Path) -> bool:
    return (folder / ".baseline").exists()


def _judge(mutant: Mutant, folder: Path) -> Outcome:
    path = folder / mutant.file
    original = path.read_text(encoding="utf-8")
    started = time.monotonic()
    path.write_text(mutated(mutant, original), encoding="utf-8")
    for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        stale.unlink()
    try:
        status, output = _pytest(folder, mutant.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    words = {0: "SURVIVED", 1: "killed"}
    failed = _FAILED.search(output)
    by, why = failed.groups("") if failed else ("", "")
    word = words.get(status, "BROKEN")
    if word == "killed" and (not by or _CARELESS.match(why)):
        word = "BROKEN"  # by our own mistake in writing it, not by what it does
    return Outcome(word, by, time.monotonic() - started, output)


@contextlib.contextmanager
def _workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name).resolve()
        _copy_tree(folder)
        yield folder


def _work(mutants: Sequence[Mutant]) -> int:
    """Judge mutants one after another; return how many were not killed."""
    missed = 0
    with _workspace() as folder:
        status, output = _pytest(folder, sorted({test for m in mutants for test in m.tests}))
        if status != 0:
            raise RuntimeError(f"the tests fail without any mutant\n{output}")
        (folder / ".baseline").touch()
        for mutant in mutants:
            outcome = _judge(mutant, folder)
            print(f"{outcome.word:<8} {mutant.name:<46} {outcome.seconds:4.1f} s  {outcome.by}",
                  flush=True)  # fmt: skip
            if outcome.word != "killed":
                missed += 1
                print(outcome.output, flush=True)
    return missed


def main(arguments: Sequence[str]) -> int:
    """Judge the named mutants, or all; return the exit status."""
    parser = argparse.ArgumentParser(description="break the product, see whether tests notice")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    check_fresh(MUTANTS)
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    started = time.monotonic()
    _import_heavy()
    workers = []
    for first in range(min(options.jobs, len(chosen))):
        worker = os.fork()
        if worker == 0:
            missed = _BROKEN
            try:
                missed = min(_BROKEN - 1, _work(chosen[first :: options.jobs]))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(missed)
        workers.append(worker)
    ended = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    if any(not 0 <= status < _BROKEN for status in ended):
        print("the mutants were not judged: see above", flush=True)
        return 2
    missed = sum(ended)
    print(f"{len(chosen) - missed} killed, {missed} survived, "
          f"{time.monotonic() - started:.0f} s")  # fmt: skip
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
