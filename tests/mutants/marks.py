"""Which tests pass by which check: all run once with a mark before each check's statement."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import run
from sites import Check

_PLUGIN = """
import json, os, sys, time
import pytest
HITS, SEEN = {}, set()
sys.modules["privity_hits"] = sys.modules[__name__]
def hit(number): SEEN.add(number)
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    SEEN.clear()
    began = time.process_time()
    yield
    HITS[item.nodeid] = [time.process_time() - began, sorted(SEEN)]
def pytest_sessionfinish():
    with open(os.environ["PRIVITY_HITS"], "w") as stream: json.dump(HITS, stream)
"""


def passing(folder: Path, found: Sequence[Check], tests: Sequence[str]) -> dict[str, list[str]]:
    """Return the tests that pass by each check, by its name, the quickest first.

    Raises:
        RuntimeError: a test fails as it is.
    """
    originals = {check.file: (folder / check.file).read_bytes() for check in found}
    unmarked = _mark(folder, found)
    (folder / "privity_hits_plugin.py").write_text(_PLUGIN)
    os.environ["PRIVITY_HITS"] = str(folder / "hits.json")
    plain, patience = run._OPTIONS, run._PATIENCE_S
    run._OPTIONS, run._PATIENCE_S = (*plain, "-p", "privity_hits_plugin"), 3600
    status, output = run._pytest(folder, [test for test in tests if (folder / test).exists()])
    run._OPTIONS, run._PATIENCE_S = plain, patience
    for file, data in originals.items():
        (folder / file).write_bytes(data)
        for stale in (folder / file).parent.glob(f"__pycache__/{Path(file).stem}.*.pyc"):
            stale.unlink()
    if status != 0:
        raise RuntimeError(f"the tests fail without any change\n{output}")
    hits = json.loads((folder / "hits.json").read_text())
    return by_check(hits, found, unmarked)


def by_check(
    hits: Mapping[str, tuple[float, Sequence[int]]],
    found: Sequence[Check],
    unmarked: Sequence[Check],
) -> dict[str, list[str]]:
    """Return the tests by check from the seconds and the marks of each test.

    Those come first in which what the check guards was found wrong, then the quickest.
    """
    ordered = sorted(hits, key=lambda test: hits[test][0])
    by = {check.name: [t for t in ordered if n in hits[t][1]] for n, check in enumerate(found)}
    for check in unmarked:  # all tests that pass by the file's checks may notice
        same = {t for other in found if other.file == check.file for t in by[other.name]}
        by[check.name] = [test for test in ordered if test in same]
    fired = {check.name: by[check.name] for check in found if check.fires}
    for check in found:
        wrong = {t for other in found if check.guards(other) for t in fired.get(other.name, ())}
        by[check.name].sort(key=lambda test: test not in wrong)
    return by


def _mark(folder: Path, found: Sequence[Check]) -> list[Check]:
    """Put a mark before the statement of each check; return those that cannot have one."""
    unmarked = []
    for file in {check.file for check in found}:
        path = folder / file
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        marked: dict[int, str] = {}
        for number, check in enumerate(found):
            if check.file != file:
                continue
            line = lines[check.line - 1]
            if line.lstrip().startswith(("elif", "else")):
                unmarked.append(check)
                continue
            space = line[: len(line) - len(line.lstrip())]
            call = f'__import__("sys").modules["privity_hits"].hit({number})'
            marked[check.line] = marked.get(check.line, "") + f"{space}{call}\n"
        for place in sorted(marked, reverse=True):
            lines[place - 1] = marked[place] + lines[place - 1]
        path.write_text("".join(lines), encoding="utf-8")
    return unmarked
