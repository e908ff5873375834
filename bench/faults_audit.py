"""Kill a log's writers, and fail every file system call of an append: is anything lost?

    python -m bench.faults_audit [--quick] [--json]

Kills: processes with several threads each append to one log and say so after each append returned;
all are killed (SIGKILL) at a random moment. Afterwards the log must open, be without gap, and hold
every entry that was acknowledged, byte for byte.

Injection, with strace: a process opens a log, appends one event, acknowledges it, and publishes a
checkpoint. Every call that touches the log's folder in between fails once with EIO, once with
ENOSPC, and is once the process's last (SIGKILL). Afterwards the same must hold, and the log must
take another event and publish it.

Order, with strace: between the writing of an entry to the journal and its acknowledgement there is
an fdatasync of the journal that has returned.
"""

from __future__ import annotations

import os
import random
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import measure  # first: it makes `audit` the package
from bench.measure import Bar, at_least, at_most

# isort: split
from audit import canonical, keys, merkle
from audit.errors import AuditError
from audit.log import Log

FIELDS = {"bundle_digest": canonical.digest(b""), "verdict": "ok"}
KIND = "verifier-run"
FAULTS = ("error=EIO", "error=ENOSPC", "signal=SIGKILL")
CALLS = (
    "openat,open,creat,read,pread64,write,pwrite64,pwritev,fsync,fdatasync,ftruncate,fallocate,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,stat,fstat,newfstatat,lstat,"
    "access,faccessat,faccessat2,chmod,fchmod,fchown,fcntl,flock,lseek,mmap,readlink,getdents64"
)
BEGIN, END = "/privity-begin", "/privity-end"
_CHILD = f"""
import os, sys
from pathlib import Path
from audit import keys
from audit.log import Log
folder, ring = Path(sys.argv[1]), keys.load(Path(sys.argv[2]))
os.path.exists({BEGIN!r})
log = Log.open(folder, keys=ring)
for _ in range(int(sys.argv[3])):
    receipt = log.append({KIND!r}, {FIELDS!r})
    os.write(1, b"%d %s\\n" % (receipt.index, receipt.leaf.hex().encode()))
log.checkpoint()
os.write(1, b"published\\n")
os.path.exists({END!r})
"""
_THREADS = f"""
import os, sys, threading
from pathlib import Path
from audit import keys
from audit.log import Log
log = Log.open(Path(sys.argv[1]), keys=keys.load(Path(sys.argv[2])))
def work():
    for _ in range(int(sys.argv[3])):
        receipt = log.append({KIND!r}, {FIELDS!r})
        os.write(1, b"%d\\n" % receipt.index)
threads = [threading.Thread(target=work) for _ in range(int(sys.argv[4]))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
_LINE = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)$")


@dataclass(frozen=True, slots=True)
class Call:
    """One call to fail: its name and how many of that name the process makes before it."""

    name: str
    ordinal: int
    text: str


def can_trace() -> bool:
    """Whether strace is here and may fail other processes' calls."""
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(
        ["strace", "-o", os.devnull, "-e", "inject=getcwd:error=EIO", "true"],
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


def make_log(root: Path) -> tuple[Path, Path]:
    """A small log with a checkpoint, and its keys."""
    ring = keys.create(root / "keys", "site")
    made = Log.create(root / "log", keys=ring)
    made.append(KIND, FIELDS)
    made.checkpoint()
    made.close()
    return root / "log", root / "keys"


def check(folder: Path, ring: keys.KeyRing, acknowledged: Sequence[tuple[int, str]]) -> int:
    """Check that a log is sound and holds what was acknowledged; return its size.

    Raises:
        AssertionError: something is lost or damaged.
    """
    opened = Log.open(folder, keys=ring)
    try:
        size = opened.size
        for index, leaf in acknowledged:
            assert index < size, f"entry {index} was acknowledged and is lost"
            assert merkle.leaf_hash(opened.entry(index)).hex() == leaf, f"entry {index} differs"
        seqs = [entry.event.seq for entry in opened.entries()]
        assert seqs == list(range(size)), "the log has a gap"
        opened.append(KIND, FIELDS)
        opened.checkpoint()
    finally:
        opened.close()
    Log.open(folder, keys=ring).close()
    return size


def kill_writers(root: Path, kills: int, *, processes: int = 2, threads: int = 4) -> dict[str, int]:
    """Kill appending processes so many times; return what was acknowledged and stored."""
    folder, key_folder = make_log(root)
    ring = keys.load(key_folder)
    luck = random.Random(6)
    told: list[tuple[int, str]] = []
    size = 2
    for _ in range(kills):
        children = [_start(folder, ring, threads) for _ in range(processes)]
        fresh = _listen(children, luck.uniform(0.01, 0.12))
        size = check(folder, ring, fresh)
        told += fresh
    check(folder, ring, told)
    return {"kills": kills * processes, "acknowledged": len(told), "stored": size, "lost": 0}


def _start(folder: Path, ring: keys.KeyRing, threads: int) -> tuple[int, int]:
    """Fork a process that appends for ever; return its id and the pipe on which it says so."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    try:
        opened = Log.open(folder, keys=ring)

        def work() -> None:
            while True:
                receipt = opened.append(KIND, FIELDS)
                os.write(write, b"%d %s\n" % (receipt.index, receipt.leaf.hex().encode()))

        for _ in range(threads):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(60)
    finally:
        os._exit(1)  # never back into the parent's code


def _listen(children: Sequence[tuple[int, int]], seconds: float) -> list[tuple[int, str]]:
    """Collect acknowledgements; kill all children so long after the first."""
    text: dict[int, bytes] = {}
    with selectors.DefaultSelector() as selector:
        for _, pipe in children:
            selector.register(pipe, selectors.EVENT_READ)
        end = time.monotonic() + 30
        while (left := end - time.monotonic()) > 0:
            for chosen, _ in selector.select(left):
                text[chosen.fd] = text.get(chosen.fd, b"") + os.read(chosen.fd, 65536)
                end = min(end, time.monotonic() + seconds)
                seconds = 3600.0  # the end is set once
        for child, _ in children:
            os.kill(child, signal.SIGKILL)
        for child, pipe in children:
            os.waitpid(child, 0)
            while data := os.read(pipe, 65536):
                text[pipe] = text.get(pipe, b"") + data
            os.close(pipe)
    lines = [line for data in text.values() for line in data.split(b"\n")[:-1]]
    return [_acknowledged(line.decode()) for line in lines]


def _acknowledged(line: str) -> tuple[int, str]:
    index, leaf = line.split(" ")
    return int(index), leaf


def calls_of_an_append(root: Path) -> list[Call]:
    """Return every call on the log's folder from opening it to having published."""
    folder, key_folder = make_log(root)
    trace = root / "trace"
    _run(["-y", "-o", str(trace), "-e", f"trace={CALLS}"], folder, key_folder)
    seen: Counter[str] = Counter()
    found: list[Call] = []
    inside = False
    for line in trace.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        seen[match[1]] += 1
        inside = (inside or BEGIN in line) and END not in line
        if inside and str(folder) in line:
            found.append(Call(match[1], seen[match[1]], match[2][:100]))
    return found


def inject(root: Path, call: Call, fault: str) -> str:
    """Fail one call of an append; return what became of the process, in a word.

    Raises:
        AssertionError: something was lost or damaged by it.
    """
    folder, key_folder = make_log(root)
    what = f"inject={call.name}:{fault}:when={call.ordinal}"
    done = _run(["-o", os.devnull, "-e", what], folder, key_folder)
    lines = done.stdout.splitlines()
    told = [_acknowledged(line) for line in lines if line != "published"]
    check(folder, keys.load(key_folder), told)
    if done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "killed"
    if done.returncode:
        return "refused" if told == [] else "refused later"
    on_disk = call.name in ("pwrite64", "fdatasync") and "-wal>" in call.text
    assert not on_disk, "the journal could not be written and nobody said so"
    return "went on"


def _run(strace: Sequence[str], folder: Path, key_folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["strace", "-f", "--seccomp-bpf", *strace, sys.executable, "-c", _CHILD, str(folder),
         str(key_folder), "1"],
        cwd=measure.ROOT, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(measure.ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def trace_order(root: Path, threads: int, each: int) -> list[str]:
    """Trace threads that append; return the thread, call and state of each line that matters."""
    folder, key_folder = make_log(root)
    trace = root / "trace"
    subprocess.run(
        ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=pwrite64,write,fdatasync,fsync",
         sys.executable, "-c", _THREADS, str(folder), str(key_folder), str(each), str(threads)],
        cwd=measure.ROOT, capture_output=True, check=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(measure.ROOT)},
    )  # fmt: skip
    return trace.read_text(errors="replace").splitlines()


def unsynced(lines: Sequence[str]) -> tuple[int, list[str]]:
    """Return how many acknowledgements a trace has, and those that came too early.

    An acknowledgement is a line on standard output. In the time since the thread's last one there
    must be a write to the journal's write-ahead log by whoever led, then an fdatasync of it that
    was begun afterwards and that returned 0.
    """
    wrote: int | None = None  # the last write to the write-ahead log
    begun: dict[str, int] = {}  # by thread: the last write before its fdatasync was begun
    synced = -1  # the last write that is on the disk for certain
    first_since: dict[str, int] = {}  # by thread: how many writes there were at its last line
    early: list[str] = []
    count = 0
    for number, line in enumerate(lines):
        thread = line.split(" ", 1)[0]
        if "-wal>" in line and "pwrite64(" in line:
            wrote = number
        if "fdatasync(" in line and "-wal>" in line:
            begun[thread] = -1 if wrote is None else wrote
            if line.endswith("= 0"):
                synced = max(synced, begun[thread])
        elif "fdatasync resumed" in line and line.endswith("= 0"):
            synced = max(synced, begun.get(thread, -1))
        elif re.search(r"\bwrite\(1<", line):
            count += 1
            if not synced > first_since.get(thread, -1):
                early.append(line)
            first_since[thread] = number
    return count, early


def main() -> None:
    options = measure.options(__doc__).parse_args()
    figures: dict[str, Any] = {}
    bars: dict[str, Bar] = {}
    kills = 20 if options.quick else 200
    with tempfile.TemporaryDirectory(prefix="privity-faults-") as name:
        root = Path(name)
        (root / "kills").mkdir()
        found = kill_writers(root / "kills", kills)
        print(f"kills: {found}")
        figures["kills"] = found
        bars["processes killed while appending"] = at_least(found["kills"], kills)
        if not can_trace():
            print("no strace here: no call was failed")
            return measure.finish("faults_audit", figures, bars, as_json=options.json)
        words: Counter[str] = Counter()
        bad = 0
        for call, fault, word in _judged(root / "inject", 20 if options.quick else 1):
            words[f"{fault}: {word}"] += 1
            bad += word.startswith("LOST")
            if word.startswith("LOST"):
                print(f"{fault} at {call.name} {call.ordinal} ({call.text}): {word}")
        print(f"injected: {dict(words)}")
        figures["injected"] = dict(words)
        bars["calls failed"] = at_least(sum(words.values()), 1)
        bars["of these with loss or damage"] = at_most(bad, 0)
        (root / "order").mkdir()
        count, early = unsynced(trace_order(root / "order", 8, 25))
        print(f"order: {count} acknowledgements, {len(early)} before their fdatasync returned")
        bars["acknowledgements traced"] = at_least(count, 200)
        bars["of these before their fdatasync returned"] = at_most(len(early), 0)
    measure.finish("faults_audit", figures, bars, as_json=options.json)


def _judged(root: Path, every: int) -> Iterator[tuple[Call, str, str]]:
    points = [(call, fault) for call in calls_of_an_append(root / "calls") for fault in FAULTS]
    for number, (call, fault) in enumerate(points[::every]):
        try:
            word = inject(root / str(number), call, fault)
        except (AssertionError, AuditError) as error:
            word = f"LOST {error}"
        yield call, fault, word
        shutil.rmtree(root / str(number))


if __name__ == "__main__":
    main()
