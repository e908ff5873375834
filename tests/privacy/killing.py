"""Stop a copy of this process with SIGKILL right before its n-th call that changes a file.

Run as a program: killing.py LEDGER KILLS. Follows each copy call by call with ptrace, so that every
write, sync, truncation, creation and removal of a charge can be the last thing that happens.
Prints JSON: how many such calls a charge has, what each copy was told had been charged before it
died, and how often each call was hit.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import struct
import sys
from collections import Counter
from pathlib import Path

from privacy.ledger import Ledger
from privacy.plan import Mechanism, epsilon

_TRACEME, _SYSCALL, _SETOPTIONS, _SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_SYSGOOD, _EXITKILL = 1, 0x10_0000
_ENTRY = 1
ROUNDS = 3
ROW = Mechanism(1000.0, 1.0, 30)
# write, pwrite64, fsync, fdatasync, ftruncate, openat, unlink and unlinkat, rename
_CALLS = {
    "x86_64": {1, 18, 74, 75, 77, 257, 87, 263, 82},
    "aarch64": {64, 68, 82, 83, 46, 56, 35, 38},
}


def supported() -> bool:
    return sys.platform == "linux" and platform.machine() in _CALLS


def charge(path: Path, run: str, into: int) -> None:
    """What a site does before it releases: reserve, then begin each round; it tells each step."""
    ledger = Ledger.open(path)
    ledger.reserve(cohort=run, run=run, plan_digest="d", mechanism=ROW, rounds=ROUNDS, delta=1e-5,
                   cap=50.0)  # fmt: skip
    os.write(into, b"-1 ")
    for number in range(ROUNDS):
        ledger.begin_round(run, number, input_digest="d")
        os.write(into, f"{number} ".encode())


def follow(path: Path, run: str, last: int) -> tuple[list[int], int]:
    """Run `charge` in a copy and kill it before its call number `last` (-1: never).

    Returns:
        What it told before it died, and how many calls it made.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            libc.ptrace(_TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            charge(path, run, into)
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    os.waitpid(child, 0)
    libc.ptrace(_SETOPTIONS, child, None, _SYSGOOD | _EXITKILL)
    calls, info = 0, ctypes.create_string_buffer(88)
    while True:
        libc.ptrace(_SYSCALL, child, None, None)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            break
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            continue
        libc.ptrace(_SYSCALL_INFO, child, len(info), ctypes.addressof(info))
        number = struct.unpack_from("<Q", info, 24)[0]
        if info.raw[0] != _ENTRY or number not in _CALLS[platform.machine()]:
            continue
        if calls == last:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        calls += 1
    with os.fdopen(out) as told:
        return [int(word) for word in told.read().split()], calls


def main(path: Path, kills: int) -> dict[str, object]:
    # The first run counts; it also fills the caches that every copy shares.
    Ledger.open(path).balance("none", delta=1e-5, cap=50.0)
    epsilon([Mechanism(2000.0, 1.0, 1)], delta=1e-5)  # imports the accounting
    told, calls = follow(path, "whole", -1)
    assert told == [-1, *range(ROUNDS)]
    runs: dict[str, list[int]] = {}
    hit: Counter[int] = Counter()
    for number in range(kills):
        at = number % calls
        runs[f"run-{number}"], made = follow(path, f"run-{number}", at)
        hit[at] += made == at
    return {"calls": calls, "told": runs, "hit": len(hit), "kills": sum(hit.values())}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
