"""Delete every check of the verifier, one at a time, and see whether a test notices.

    python tests/mutants/checks.py [--jobs N] [--list] [--state FILE] [--record] [FILE ...]

What a check is, `sites.py` says. Tests run in forks of one warm process (`warm.py`). First each
check is deleted and the test runs that noticed it the last time (`noticed.json`, which `--record`
writes). For those that are left, all tests run once with a mark on every check, which tells which
of them pass by it; these run then, the quickest first. Prints one line a check, and ends with
status 1 unless all were noticed; `JUSTIFIED` says why some may stay. `--seconds N` stops after so
long and takes the checks in an order that changes with the code. With `--state` a run that was cut
off goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import marks
import run
import warm
from justified import JUSTIFIED
from sites import FILES, Check, checks

NOTICED = Path(__file__).with_name("noticed.json")
_UNITS = (
    "note", "dsse", "canonical", "merkle", "tiles", "bundle", "events", "digests", "keys", "verify",
    "verify_refusals", "verify_checks", "verify_insiders", "verify_attacks", "verify_keys",
    "verify_review", "reading", "custody", "archive", "erasure", "officer", "witness",
    "limits", "verify_flips", "stopping", "verify_unmarked", "conduct", "timestamp",
    "verify_alone", "single_checks",
)  # fmt: skip
TESTS = (*(f"tests/audit/test_{name}.py" for name in _UNITS), "tests/fuzz/test_parsers.py")
_STAYED = "SURVIVED"
_FIRST = 8  # tests that try first, lest one check that all of them miss holds up the others


def find(names: Sequence[str]) -> list[Check]:
    found = [
        check
        for name in names
        for check in checks(name, (run.ROOT / "audit" / f"{name}.py").read_text(encoding="utf-8"))
    ]
    texts = {check.name for check in found}
    stale = sorted(set(JUSTIFIED) - texts)
    if stale and set(names) == set(FILES):
        raise ValueError(f"no such check any more: {stale}")
    return found


def tree() -> str:
    """A digest of the code and its tests: what was judged under another one counts no more."""
    state = hashlib.sha256()
    for folder in ("audit", "tests/audit"):
        for path in sorted((run.ROOT / folder).rglob("*.py")):
            state.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return state.hexdigest()


class State:
    """The judgements so far, on the disk, so that several processes can add to them."""

    def __init__(self, path: Path) -> None:
        self.path, self._tree = path, tree()
        self.stop = float("inf")

    def stop_after(self, seconds: float) -> None:
        """Make `over` true so long from now."""
        self.stop = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether no further check should be begun."""
        return time.monotonic() > self.stop

    def add(self, check: Check, word: str, by: str, began: float) -> None:
        row = {"tree": self._tree, "name": check.name, "word": word, "by": by}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        shown = f"{word:<8} {check.file}:{check.line} {check.text[:70]}"
        print(f"{shown} {time.monotonic() - began:.1f} s  {by}", flush=True)

    def read(self) -> dict[str, tuple[str, str]]:
        if not self.path.exists():
            return {}
        rows = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return {row["name"]: (row["word"], row["by"]) for row in rows if row["tree"] == self._tree}


def judge(
    folder: Path,
    share: Sequence[Check],
    tests: Mapping[str, Sequence[str]],
    state: State,
    last: bool,
) -> int:
    """Judge some checks in one warm process; return how many were not noticed."""

    def work(ready: warm.Warm) -> int:
        left = 0
        for check in share:
            if state.over:
                break
            began = time.monotonic()
            source = check.changed((folder / check.file).read_bytes()).decode()
            wanted = tests.get(check.name, list(ready.items))
            try:
                by = ready.noticed(check.file, source, check.outer, wanted, until=state.stop)
            except TimeoutError:
                break
            except LookupError:
                by = _cold(folder, check, [name for name in wanted if name in ready.items])
            if by is not None:
                state.add(check, "killed", by, began)
            elif last:
                left += 1
                state.add(check, _STAYED, f"{len(wanted)} tests pass by it", began)
        return min(left, 250)

    return warm.run(folder, [test for test in TESTS if (folder / test).exists()], work)


def _passing(folder: Path, found: Sequence[Check], state: State) -> dict[str, list[str]]:
    """The tests that pass by each check; kept beside the state."""
    kept = state.path.with_suffix(".hits")
    key = [tree(), [check.name for check in found]]
    if kept.exists():
        known, hits = json.loads(kept.read_text(encoding="utf-8"))
        if known == key:
            return dict(hits)
    hits = marks.passing(folder, found, TESTS)
    kept.write_text(json.dumps([key, hits]), encoding="utf-8")
    return hits


def _cold(folder: Path, check: Check, tests: Sequence[str]) -> str | None:
    """As `Warm.noticed`, in a process of its own that reads a changed file: what is no function."""
    place = folder / f"cold-{os.getpid()}"
    if not place.exists():
        run._copy_tree(place)
    path = place / check.file
    original = path.read_bytes()
    path.write_bytes(check.changed(original))
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-rf", "--tb=no", *tests]
    try:
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(place)},
        )  # fmt: skip
    finally:
        path.write_bytes(original)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return None if done.returncode == 0 else failed[1] if failed else done.stdout[-200:]


def _workers(jobs: int, work: Callable[[int], int]) -> None:
    """Run `work` in so many forks.

    Raises:
        RuntimeError: one of them could not do its work.
    """
    children = []
    for first in range(jobs):
        child = os.fork()
        if child == 0:
            status = run._BROKEN
            try:
                status = work(first)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        children.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(not 0 <= status < run._BROKEN for status in ended):
        raise RuntimeError("the checks were not judged: see above")


def _judge_all(found: Sequence[Check], state: State, jobs: int, quick: bool) -> None:
    known = json.loads(NOTICED.read_text(encoding="utf-8")) if NOTICED.exists() else {}

    def stage(tests: Mapping[str, Sequence[str]], of: Sequence[Check], last: bool = False) -> None:
        done = state.read()
        todo = [check for check in of if check.name not in done]
        if todo and not state.over:
            _workers(jobs, lambda n: judge(folder, todo[n::jobs], tests, state, last))

    with run._workspace() as folder:
        stage(known, [check for check in found if check.name in known])
        if state.over or {check.name for check in found} <= state.read().keys():
            return
        if quick:  # for a few it does not pay to see first which tests pass by them
            stage({}, found, last=True)
            return
        by = _passing(folder, found, state)
        stage({name: tests[:_FIRST] for name, tests in by.items()}, found)
        stage(by, found, last=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="delete each check, see whether tests notice")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="only say which checks there are")
    parser.add_argument("--state", type=Path, help="go on where this file says")
    parser.add_argument("--record", action="store_true", help="write down which test noticed")
    parser.add_argument("--seconds", type=float, help="judge what can be judged in so long")
    parser.add_argument("files", nargs="*", metavar="FILE", help="such as verify_bytes")
    options = parser.parse_args(arguments)
    found = find(options.files or FILES)
    if options.list:
        for check in found:
            print(f"{check.file}:{check.line} {check.name}")
        print(f"{len(found)} checks")
        return 0
    return judged(found, options)


def judged(found: list[Check], options: argparse.Namespace) -> int:
    """Judge the checks, say what came of it, and return the exit status."""
    began = time.monotonic()
    warm.prepare()
    with run._workspace() as place:
        state = State(options.state or place / "state")
        if options.seconds:
            state.stop_after(options.seconds)
            salt = tree()
            found.sort(key=lambda check: hashlib.sha256((salt + check.name).encode()).digest())
        try:
            _judge_all(found, state, options.jobs, quick=options.seconds is not None)
        except RuntimeError as error:
            print(error, flush=True)
            return 2
        rows = state.read()
    stayed = [c.name for c in found if rows.get(c.name, ("",))[0] == _STAYED]
    wrong = [name for name in stayed if name not in JUSTIFIED]
    needless = [
        c.name for c in found if c.name in JUSTIFIED and rows.get(c.name, ("",))[0] == "killed"
    ]
    for word, names in (("survived:", wrong), ("justified, yet a test notices:", needless)):
        for name in names:
            print(word, name)
    if options.record:
        noticed = {name: [by] for name, (word, by) in sorted(rows.items()) if word == "killed"}
        NOTICED.write_text(json.dumps(noticed, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{len(found)} checks, {len(rows)} judged, {len(stayed) - len(wrong)} justified, "
          f"{len(wrong)} survived, {time.monotonic() - began:.0f} s")  # fmt: skip
    return 1 if wrong or needless else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
