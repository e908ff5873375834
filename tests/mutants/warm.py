"""Run chosen tests against a changed function, again and again, in forks of one warm process.

Pytest collects once, the fixtures that all tests share are built once, and each change is made in
memory in a fork: the function's code is replaced where everybody finds it, whatever name they
imported it by. A fork runs the named tests until one fails.
"""

from __future__ import annotations

import gc
import importlib
import math
import os
import select
import signal
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

PATIENCE_S = 120
SHARED = "test_verify.py::test_a_sound_bundle_holds"  # builds what the others share
_LIGHT = ("numpy", "hypothesis", "safetensors.numpy", "typer.testing", "scipy.stats",
          "cryptography.hazmat.primitives.serialization")  # fmt: skip
_OPTIONS = ("-q", "--capture=sys", "--tb=no", "-W", "ignore::pytest.PytestAssertRewriteWarning")
_FAILED, _LATE, _TIMEOUT = 1, 2, -signal.SIGALRM


@dataclass
class Warm:
    """Collected tests and shared fixtures, ready to be forked."""

    session: pytest.Session
    folder: Path
    items: dict[str, pytest.Item] = field(default_factory=dict)
    _functions: dict[tuple[str, str, int], list[types.FunctionType]] = field(default_factory=dict)
    _sound: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.items = {item.nodeid: item for item in self.session.items}
        shared = next(item for name, item in self.items.items() if name.endswith(SHARED))
        other = next(item for item in self.session.items if item.path != shared.path)
        if any(r.failed for r in runtestprotocol(shared, nextitem=other, log=False)):
            raise RuntimeError("the tests fail without any change")
        self._rest = other, shared
        for found in gc.get_objects():
            if isinstance(found, types.FunctionType):
                code = found.__code__
                key = (code.co_filename, code.co_qualname, code.co_firstlineno)
                self._functions.setdefault(key, []).append(found)
        gc.collect()
        gc.freeze()  # else every fork's collector touches, and so copies, all of it

    def noticed(
        self, file: str, source: str, outer: str, tests: Sequence[str], *, until: float
    ) -> str | None:
        """Return the first of the tests that fails with a file's source changed, or None.

        Args:
            file: from the tree's root.
            source: its text, with the change.
            outer: qualified name of the outermost function around the change.
            tests: names; those that are not here are passed over.
            until: when to begin no further test, in seconds of `time.monotonic`.

        Raises:
            LookupError: the function cannot be changed in memory.
            TimeoutError: there was no time for all tests.
        """
        change = self._change(file, source, outer)
        names = [name for name in tests if name in self.items]
        while names:
            by = self._forked(change, names, until)
            if by is None or self._holds(by):
                return by
            # A test that fails alone and without the change says nothing about it.
            names = names[names.index(by) + 1 :]
        return None

    def _holds(self, name: str) -> bool:
        if name not in self._sound:
            self._sound[name] = self._forked(lambda: None, [name]) is None
        return self._sound[name]

    def _change(self, file: str, source: str, outer: str) -> Callable[[], None]:
        path = str(self.folder / file)
        for code in _codes(compile(source, path, "exec", dont_inherit=True)):
            found = self._functions.get((path, code.co_qualname, code.co_firstlineno))
            if code.co_qualname == outer and found:
                if any(f.__code__.co_freevars != code.co_freevars for f in found):
                    break

                def change(found: Any = found, code: Any = code) -> None:
                    for function in found:
                        function.__code__ = code

                return change
        raise LookupError(f"{file}: {outer}")

    def _forked(
        self, change: Callable[[], None], tests: Sequence[str], until: float = math.inf
    ) -> str | None:
        read, write = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.close(read)
                change()
                status = self._run(tests, write, until)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)  # never back into the parent's code
        os.close(write)
        with os.fdopen(read) as stream:
            last = _until_it_ends(child, stream)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == _LATE:
            raise TimeoutError
        if code not in (0, _FAILED, _TIMEOUT, -signal.SIGKILL):
            raise RuntimeError(f"a fork ended with {code}")
        return last if code else None

    def _run(self, tests: Sequence[str], write: int, until: float) -> int:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with tempfile.TemporaryDirectory(prefix="mutant-", dir=self.folder) as place:
            tempfile.tempdir = place
            for name, after in zip(tests, (*tests[1:], ""), strict=True):
                if time.monotonic() > until:
                    return _LATE
                signal.alarm(PATIENCE_S)  # a change may make a loop endless
                os.write(write, f"{name}\n".encode())
                item = self.items[name]
                self.session._setupstate.teardown_exact(item)  # it may be in another folder
                # Shared fixtures stay: there is always a next test.
                rest = next(other for other in self._rest if other is not item)
                reports = runtestprotocol(item, nextitem=self.items.get(after, rest), log=False)
                if any(report.failed for report in reports):
                    return _FAILED
        return 0


def _until_it_ends(child: int, stream: Any) -> str | None:
    """Return the last test that a fork began, when it has closed its pipe or been silent."""
    last, rest = None, ""
    while select.select([stream], [], [], 2 * PATIENCE_S)[0]:
        data = os.read(stream.fileno(), 65536).decode()
        if not data:
            return last
        *lines, rest = (rest + data).split("\n")
        last = lines[-1] if lines else last
    os.kill(child, signal.SIGKILL)  # whatever it waits for, no signal of its own ended it
    return last


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield const
            yield from _codes(const)


class _Plugin:
    def __init__(self, folder: Path, work: Callable[[Warm], int]) -> None:
        self._folder, self._work, self.status = folder, work, 255

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("the tests cannot be collected")
        self.status = self._work(Warm(session, self._folder))
        return True


def prepare() -> None:
    """Import what the tests need, and let hypothesis neither shrink nor remember."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LIGHT:
            importlib.import_module(name)
    from hypothesis import Phase, settings

    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("mutants")


def run(folder: Path, tests: Sequence[str], work: Callable[[Warm], int]) -> int:
    """Collect the tests of a copy of the tree and return what `work` makes of them."""
    here = {Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]}
    os.chdir(folder)
    sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or ".").resolve() not in here)]
    os.environ["PYTHONPATH"] = str(folder)
    plugin = _Plugin(folder, work)
    status = pytest.main([*_OPTIONS, *tests], plugins=[plugin])
    return 255 if status not in (0, 5) else plugin.status
