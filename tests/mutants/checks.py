"""Delete every check of the verifier, one at a time, and see whether a test notices.

    python tests/mutants/checks.py [--jobs N] [--list] [FILE ...]

A check is a `raise`, a fault that is noted, a call of another check, or one of several conditions
that lead to nothing but these. The tests run once with a mark on every check, which tells which of
them pass by it; then each check is deleted and those tests run, the quickest first. Prints one line
a mutant, and ends with status 1 unless all were killed. `JUSTIFIED` says why some may stay.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import run
from justified import JUSTIFIED

FILES = (
    "verify", "verify_bytes", "verify_log", "verify_completeness", "verify_meaning",
    "verify_budget", "verify_release", "reading", "rotation", "blocks", "note", "dsse",
    "canonical", "merkle", "tiles", "bundle", "events", "fields", "stopping",
)  # fmt: skip
TESTS = tuple(
    f"tests/audit/test_{name}.py"
    for name in ("verify", "verify_flips", "verify_insiders", "verify_attacks", "verify_keys",
                 "verify_checks", "reading", "note", "dsse", "canonical", "merkle", "tiles",
                 "bundle", "events", "custody", "keys", "stopping", "verify_unmarked")
)  # fmt: skip
_NOTED = re.compile(r"^(found|collector)\.add\(|\.(bytes_|chain)\.append\(")
_CALLED = re.compile(r"^(\w+\.)*_?check\w*\(|^self\.(finish|_place|_keys)\(")
_PLUGIN = """
import json, os, sys, time
import pytest
HITS, SEEN = {}, set()
sys.modules["privity_hits"] = sys.modules[__name__]
def hit(number): SEEN.add(number)
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    SEEN.clear()
    began = time.perf_counter()
    yield
    HITS[item.nodeid] = [time.perf_counter() - began, sorted(SEEN)]
def pytest_sessionfinish():
    with open(os.environ["PRIVITY_HITS"], "w") as stream: json.dump(HITS, stream)
"""


@dataclass(frozen=True, slots=True)
class Check:
    """A place to mutate: characters `start` to `end` of a file become `new`."""

    file: str
    line: int  # of the statement, to place the mark before it
    start: int
    end: int
    new: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.file}: {self.text}"


def checks(name: str, source: str) -> Iterator[Check]:
    """Yield the checks of one file."""
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line.encode()))
    raw = source.encode()

    def at(node: ast.stmt | ast.expr, new: str, mark: int) -> Check:
        start = lines[node.lineno - 1] + node.col_offset
        end = lines[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        text = " ".join(raw[start:end].decode().split())
        return Check(f"audit/{name}.py", mark, start, end, new, text[:110])

    for node in ast.walk(ast.parse(source)):
        if _is_check(node):
            yield at(node, "pass", node.lineno)
        if isinstance(node, ast.If) and all(map(_leads_on, node.body)):
            test = node.test
            if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
                for value in test.values:
                    yield at(value, "False", node.lineno)


def _is_check(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return True
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    text = ast.unparse(node)
    return bool(_NOTED.search(text) or _CALLED.match(text))


def _leads_on(node: ast.stmt) -> bool:
    """Whether a statement only prepares a check, or is one."""
    return _is_check(node) or isinstance(node, ast.Assign | ast.Return | ast.Continue)


def find(names: Sequence[str]) -> list[Check]:
    found = [
        check
        for name in names
        for check in checks(name, (run.ROOT / "audit" / f"{name}.py").read_text(encoding="utf-8"))
    ]
    texts = [check.name for check in found]
    stale = [text for text in JUSTIFIED if text not in texts]
    if stale and set(names) == set(FILES):
        raise ValueError(f"no such check any more: {stale}")
    return found


def _mark(folder: Path, found: Sequence[Check]) -> None:
    """Put a mark before the statement of every check."""
    for file in {check.file for check in found}:
        path = folder / file
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, check in reversed(list(enumerate(found))):
            if check.file == file:
                line = lines[check.line - 1]
                if line.lstrip().startswith(("elif", "else")):
                    continue
                space = line[: len(line) - len(line.lstrip())]
                mark = f'{space}__import__("sys").modules["privity_hits"].hit({number})\n'
                lines[check.line - 1] = mark + line
        path.write_text("".join(lines), encoding="utf-8")


def _hits(folder: Path, found: Sequence[Check]) -> dict[int, list[tuple[float, str]]]:
    """Run all tests on marked files; return the tests that pass by each check."""
    originals = {check.file: (folder / check.file).read_bytes() for check in found}
    (folder / "privity_hits_plugin.py").write_text(_PLUGIN)
    os.environ["PRIVITY_HITS"] = str(folder / "hits.json")
    _mark(folder, found)
    run._OPTIONS = (*run._OPTIONS, "-p", "privity_hits_plugin")
    tests = [test for test in TESTS if (folder / test).exists()]
    status, output = run._pytest(folder, tests)
    run._OPTIONS = run._OPTIONS[:-2]
    if status != 0:
        raise RuntimeError(f"the tests fail without any mutant\n{output}")
    for file, data in originals.items():
        (folder / file).write_bytes(data)
    by: dict[int, list[tuple[float, str]]] = {}
    for test, (seconds, numbers) in json.loads((folder / "hits.json").read_text()).items():
        for number in numbers:
            by.setdefault(number, []).append((seconds, test))
    return by


def _judge(folder: Path, check: Check, tests: Sequence[str]) -> tuple[str, str]:
    if not tests:
        return "SURVIVED", "no test passes by"
    path = folder / check.file
    original = path.read_bytes()
    path.write_bytes(original[: check.start] + check.new.encode() + original[check.end :])
    for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        stale.unlink()
    try:
        status, output = run._pytest(folder, tests)
    finally:
        path.write_bytes(original)
    failed = run._FAILED.search(output)
    by = failed[1] if failed else ""
    return ("SURVIVED", f"{len(tests)} tests") if status == 0 else ("killed", by)


def _work(found: Sequence[Check], first: int, jobs: int) -> int:
    missed = 0
    with run._workspace() as folder:
        by = _hits(folder, found)
        for number, check in list(enumerate(found))[first::jobs]:
            began = time.monotonic()
            tests = [test for _, test in sorted(by.get(number, []))]
            # An `elif` cannot be marked: all tests that pass by the file's checks may notice.
            if number not in by and "elif" in _line(check):
                tests = sorted({t for n, c in enumerate(found) if c.file == check.file
                                for _, t in by.get(n, [])})  # fmt: skip
            word, why = _judge(folder, check, tests)
            if word == "SURVIVED" and check.name in JUSTIFIED:
                word, why = "stays", JUSTIFIED[check.name]
            missed += word == "SURVIVED"
            seconds = time.monotonic() - began
            print(f"{word:<8} {check.file}:{check.line} {check.text[:70]} {seconds:.1f} s  {why}",
                  flush=True)  # fmt: skip
    return missed


def _line(check: Check) -> str:
    return (run.ROOT / check.file).read_text(encoding="utf-8").splitlines()[check.line - 1]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="delete each check, see whether tests notice")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="only say which checks there are")
    parser.add_argument("files", nargs="*", metavar="FILE", help="such as verify_bytes")
    options = parser.parse_args(arguments)
    found = find(options.files or FILES)
    if options.list:
        for check in found:
            print(f"{check.file}:{check.line} {check.text}")
        print(f"{len(found)} checks")
        return 0
    run._HEAVY = ("numpy", "hypothesis", "pytest", "safetensors.numpy", "typer.testing",
                  "cryptography.hazmat.primitives.serialization")  # fmt: skip
    run._import_heavy()
    began = time.monotonic()
    workers = []
    for first in range(options.jobs):
        worker = os.fork()
        if worker == 0:
            missed = run._BROKEN
            try:
                missed = min(run._BROKEN - 1, _work(found, first, options.jobs))
            finally:
                os._exit(missed)
        workers.append(worker)
    ended = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    if any(not 0 <= status < run._BROKEN for status in ended):
        print("the checks were not judged: see above", flush=True)
        return 2
    missed = sum(ended)
    print(f"{len(found)} checks, {len(JUSTIFIED)} justified, {missed} survived, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
