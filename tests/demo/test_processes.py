"""The demo's processes: nothing that it starts outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from demo.errors import DemoError
from demo.processes import Processes


def test_a_failed_command_speaks_in_its_own_sentence_and_exit_code(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes, pytest.raises(DemoError) as refusal:
        processes.command("status", ["server", "status", str(tmp_path / "none")])
    assert refusal.value.exit_code == 2
    assert "is not a coordinator" in str(refusal.value)
    assert "Traceback" not in str(refusal.value)


# A shell's background job ignores SIGINT, and so would everything below it.
_DEMO = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from demo import processes
sys.executable, real = sys.argv[2], sys.executable
with processes.Processes(Path(sys.argv[1])) as all:
    all.service("sleeper", [])
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are a Linux feature")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupting_or_killing_the_demo_leaves_no_orphan(tmp_path: Path, number: int) -> None:
    # A stand-in for the interpreter: a child that, like ours, asks to die with its parent.
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import privity, time; "
        "privity._die_with_parent(); time.sleep(600)'\n"
    )
    stand_in.chmod(0o700)
    demo = subprocess.Popen(
        [sys.executable, "-c", _DEMO, str(tmp_path), str(stand_in)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=os.getcwd(),
    )  # fmt: skip
    assert demo.stdout is not None
    assert demo.stdout.readline() == b"started\n"
    time.sleep(1.0)
    children = psutil.Process(demo.pid).children(recursive=True)
    assert children
    demo.send_signal(number)
    demo.wait(timeout=20)
    demo.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
