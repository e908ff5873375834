"""A trainer in an attacker's hands: the runner takes counts and float arrays, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from client import cell, frames
from client import folder as folders
from client.cell import Cell
from client.errors import ClientError
from client.folder import Folder


@pytest.fixture
def site(tmp_path: Path) -> Folder:
    made = folders.create(tmp_path / "clinic-a", name="clinic-a", coordinator="127.0.0.1:8443")
    made.data.write_text('{"instruction": "a", "response": "b"}\n')
    return made


def _plan(federation: Any) -> Any:
    from configs.load import load
    from configs.run import Run
    from server import plans

    plan = plans.make(load(federation.run_file(), Run))
    return plan, plans.digest(plan)


class _Fake:
    """A child of an attacker: whatever it writes, byte by byte."""

    def __init__(self, *written: bytes) -> None:
        self.pipe, theirs = socket.socketpair()
        self.alive, self.stopped = True, False

        def write() -> None:
            with theirs, contextlib.suppress(OSError):
                for part in written:
                    theirs.sendall(part)
                theirs.shutdown(socket.SHUT_WR)
                while theirs.recv(1 << 16):
                    pass

        threading.Thread(target=write, daemon=True).start()

    def stop(self) -> None:
        self.stopped = True
        self.pipe.close()


_FAKES: list[_Fake] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _FAKES:
        _FAKES.pop().stop()


def _frame(kind: str, facts: Any = None, arrays: Any = None, body: bytes | None = None) -> bytes:
    head = json.dumps({"kind": kind, "facts": facts or {}}).encode()
    data = body if body is not None else save(arrays) if arrays else b""
    return frames._LENGTHS.pack(len(head), len(data)) + head + data


def _cell(site: Folder, plan: Any, *written: bytes) -> tuple[Cell, _Fake]:
    made, fake = Cell(site), _Fake(*written)
    made._child, made._loaded = fake, plan  # type: ignore[assignment]
    made._records = cell._identity(site.data)
    _FAKES.append(fake)
    return made, fake


REPORT = {"records": 3, "persons": 2, "kept": 3, "removed": {"NAME": 1}, "quarantined": {},
          "faults": {}, "unkeyed": 0}  # fmt: skip
DIGEST = "sha256:" + "5" * 64


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"\xff" * 12,
        _frame("trained"),
        _frame("opened", {"scrubber_digest": DIGEST, "report": REPORT, "note": "zq"}),
        _frame("opened", {"scrubber_digest": "zq", "report": REPORT}),
        _frame("opened", {"scrubber_digest": DIGEST, "report": REPORT | {"zq": 1}}),
        _frame("opened", {"scrubber_digest": DIGEST, "report": REPORT | {"kept": "zq"}}),
        _frame("opened", {"scrubber_digest": DIGEST, "report": REPORT | {"kept": {"a": 1}}}),
        _frame("opened", {"scrubber_digest": DIGEST, "report": REPORT | {"kept": -1}}),
        _frame("opened", {"scrubber_digest": DIGEST, "report": REPORT | {"faults": {"z\n": 1}}}),
        _frame("opened", {"scrubber_digest": DIGEST, "report": REPORT | {"faults": 3}}),
        _frame("opened", {}, {"a": np.ones(2, np.float32)}),
        frames._LENGTHS.pack(2, 0) + b"[]",
        frames._LENGTHS.pack(9, 0) + b'{"kind":1',
    ],
)  # fmt: skip
def test_a_report_with_anything_but_counts_is_not_taken(site: Folder, written: bytes) -> None:
    made, fake = _cell(site, ("plan", "digest"), written)
    with pytest.raises(ClientError) as fault:
        made.open()
    assert fault.value.code in ("trainer-stopped", "trainer-strange")
    assert fake.stopped
    assert "zq" not in str(fault.value)


def _answers(name: str, start: dict[str, Any]) -> list[bytes]:
    delta = {f"delta/{key}": a for key, a in start.items()}
    step = _frame("step", {"step": 1, "steps": 1})
    return {
        "foreign array": [_frame("trained", {}, delta | {"zq": np.ones(2, np.float32)})],
        "too large": [_frame("trained", {}, delta | {"state/x": np.ones(1 << 20, np.float32)})],
        "a text for arrays": [_frame("trained", {}, body=b"zq" * 100)],
        "another kind": [_frame("zq")],
        "too many steps": [step] * 100,
        "a step that is none": [_frame("step", {"step": "zq"})],
        "a long head": [frames._LENGTHS.pack(1 << 21, 0)],
        "no word": [],
    }[name]


@pytest.mark.parametrize(
    "name",
    ["foreign array", "too large", "a text for arrays", "another kind", "too many steps",
     "a step that is none", "a long head", "no word"],
)  # fmt: skip
def test_a_round_with_anything_but_its_arrays_is_not_taken(
    federation: Callable[..., Any], name: str
) -> None:
    from server.conduct import _start

    made = federation(("clinic-a",))
    plan = _plan(made)
    start = _start(plan[0])
    trainer, fake = _cell(made.sites["clinic-a"], plan, *_answers(name, start))
    with pytest.raises(ClientError) as fault:
        trainer.train(start, None, lambda *_: None)
    assert fault.value.code in ("trainer-stopped", "trainer-strange")
    assert fake.stopped


@pytest.mark.parametrize("code", ["zqtext", "all-quarantined", 7, None])
def test_a_failure_is_one_of_few_codes(site: Folder, code: Any) -> None:
    made, _ = _cell(site, ("plan", "digest"), _frame("failed", {"code": code, "text": "zq"}))
    with pytest.raises(ClientError) as fault:
        made.open()
    assert fault.value.code == ("all-quarantined" if code == "all-quarantined" else "failed")
    assert "zq" not in str(fault.value)


def test_words_of_the_trainer_reach_the_terminal_without_control_characters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    out, into = os.pipe()
    os.write(into, b"one\x1b[2Jtwo\n" + b"x" * 5000 + b"\n\xff\n")
    os.close(into)
    cell._print(os.fdopen(out, "rb"))
    assert "\x1b" not in caplog.text
    assert max(len(record.getMessage()) for record in caplog.records) <= 520
