"""How fast a log takes events durably, and how fast and in how much memory a stranger verifies it.

    python bench/audit.py [--quick] [--json] [--dir DIR]

Appending: threads append signed events to one log on the disk of DIR; each call returns after the
entry is on the disk (SQLite, WAL, synchronous=FULL). The figure is events a second over the whole
time, and the 50th and 99th percentile of a call.

Verifying: bundles of a coordinator's log and an institution's log with so many entries, nearly all
of them `serving-access`, each signed. `verify` is what `privity audit verify` runs, in a process of
its own; its peak memory is compared between the sizes. Also measured, on the smallest size only:
the same with every entry's own signature checked.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench import measure  # first: it makes `audit` the package
from bench.measure import Bar, at_least, at_most

# isort: split
from audit import bundle, canonical, dsse, events, keys, log, merkle, note, tiles

WRITERS = 64
EVENTS = 12_800
SIZES = (100_000, 1_000_000)
QUICK_EVENTS, QUICK_SIZES = 640, (2_000, 20_000)
DIGEST = canonical.digest(b"")
FIELDS = {
    "adapter_digest": DIGEST,
    "route": "chat",
    "outcome": "answered",
    "caller_commitment": DIGEST,
}
BARS_S = {100_000: 3.0, 1_000_000: 30.0}
_PROBE = """
import json, sys, time
from pathlib import Path
from audit.verify import verify
from bench import measure
started = time.perf_counter()
found = verify(Path(sys.argv[1]), recompute=lambda rows, delta: 0.0, every=sys.argv[2] == "every")
seconds = time.perf_counter() - started
codes = sorted({fault.code for fault in found.faults})
found = {"seconds": seconds, "peak": measure.peak(), "intact": found.intact, "codes": codes}
print(json.dumps(found))
"""


def main() -> None:
    parser = measure.options(__doc__)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--part", choices=("append", "verify"), help="only one of the two")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    bars: dict[str, Bar] = {}
    with tempfile.TemporaryDirectory(prefix="privity-bench-", dir=options.dir) as name:
        if options.part != "verify":
            measure_appends(Path(name), options.quick, figures, bars)
        if options.part != "append":
            measure_verifying(Path(name), options.quick, figures, bars)
    measure.finish("audit", figures, bars, as_json=options.json)


def measure_appends(root: Path, quick: bool, figures: dict[str, Any], bars: dict[str, Bar]) -> None:
    for writers in (1, WRITERS):
        each = (QUICK_EVENTS if quick else EVENTS) // WRITERS
        rate, calls = append(root / f"writers-{writers}", writers, each)
        middle, late = statistics.median(calls), percentile(calls, 0.99)
        print(f"{writers} writers: {rate:.0f} events/s, a call {middle:.1f} ms, p99 {late:.1f} ms")
        figures[f"{writers} writers"] = {"per_s": rate, "p50_ms": middle, "p99_ms": late}
    bars[f"signed durable events a second with {WRITERS} writers"] = at_least(rate, 1000)
    bars[f"p99 of an append with {WRITERS} writers, ms"] = at_most(late, 150)


def append(folder: Path, writers: int, each: int) -> tuple[float, list[float]]:
    """Append from several threads; return events a second and the milliseconds of each call."""
    opened = log.Log.create(folder, keys=keys.create(folder.with_suffix(".keys"), "bench"))
    calls: list[float] = []
    start = threading.Barrier(writers + 1)

    def work() -> None:
        own = []
        start.wait()
        for _ in range(each):
            before = time.perf_counter()
            opened.append("serving-access", FIELDS)
            own.append((time.perf_counter() - before) * 1e3)
        calls.extend(own)

    threads = [threading.Thread(target=work) for _ in range(writers)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if opened.size != writers * each + 1:
        raise RuntimeError("events were lost")
    opened.close()
    return writers * each / seconds, calls


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure_verifying(
    root: Path, quick: bool, figures: dict[str, Any], bars: dict[str, Bar]
) -> None:
    sizes = QUICK_SIZES if quick else SIZES
    peaks = {}
    for size in sizes:
        made = make_bundle(root / f"bundle-{size}", size)
        found = probe(made, "chain")
        peaks[size] = found["peak"] / 2**20
        print(f"{size} entries: {found['seconds']:.2f} s, peak {peaks[size]:.0f} MiB")
        figures[f"verify {size}"] = found
        bars[f"verify {size} entries, s"] = at_most(found["seconds"], BARS_S.get(size, 3.0))
        if size == sizes[0]:
            every = probe(made, "every")
            print(f"{size} entries, every signature: {every['seconds']:.2f} s")
            figures[f"verify {size}, every signature"] = every
    low, high = (peaks[size] for size in sizes)
    bars["peak memory of the largest over the smallest, MiB"] = at_most(high - low, 16)


def probe(folder: Path, how: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(folder), how],
        cwd=measure.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    if not found["intact"]:
        raise RuntimeError(f"the bundle does not verify: {found['codes']}")
    return found


def make_bundle(folder: Path, size: int) -> Path:
    """A bundle with a coordinator's log of one entry and an institution's of `size`.

    There is no run in it: what is measured is the reading. Entries are written as `Log` writes
    them, without waiting for the disk.
    """
    sources = {}
    for name, count in (("hub", 1), ("clinic", size)):
        ring = keys.create(folder / f"{name}.keys", name)
        write_log(folder / name, ring, count)
        sources[name] = bundle.Source(folder / name, ring.public())
    plan = canonical.encode({"name": "bench"})
    sites = {"clinic": sources["clinic"]}
    out = folder / "bundle"
    bundle.write(out, run="bench", coordinator=sources["hub"], sites=sites, plan=plan)
    return out


def write_log(folder: Path, ring: keys.KeyRing, size: int) -> None:
    origin, tree = f"{ring.name}/log", merkle.Tree()
    write = writer(ring, origin)
    pending: list[bytes] = []
    for index in range(size):
        prev = tree.leaf(index - 1) if index else merkle.EMPTY_ROOT
        pending.append(write(index, prev))
        tree.append(merkle.leaf_hash(pending[-1]))
        if len(pending) == tiles.WIDTH or index == size - 1:
            start = index - len(pending) + 1
            tile = tiles.Tile(tiles.ENTRIES, start // tiles.WIDTH, len(pending))
            put(folder / tile.path, tiles.pack(pending))
            pending = []
    for tile in tiles.needed(size):
        if tile.level != tiles.ENTRIES:
            put(folder / tile.path, tiles.hashes(tile, tree))
    stated = note.Checkpoint(origin, size, tree.root())
    signed = note.Note(stated.text, (note.sign(stated.text, name=origin, key=ring.log),))
    put(folder / "checkpoint", str(signed).encode())


def writer(ring: keys.KeyRing, origin: str) -> Callable[[int, bytes], bytes]:
    """Return what makes the entry of an index: the first is `log-started`."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    def payload(kind: str, fields: dict[str, Any], seq: int, prev: str, time: str) -> bytes:
        at = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        return canonical.encode(
            events.statement(
                kind, fields, emitter=ring.name, origin=origin, seq=seq, prev=prev, time=at
            )
        )

    start = {"origin": origin, "software": "bench", "keys": ring.public().to_json()}
    mark, clock = 7_777_777_777, "2001-01-01T01:01:01.000001Z"
    form = payload("serving-access", FIELDS, mark, "sha256:" + "e" * 64, clock).decode()

    def make(index: int, prev: bytes) -> bytes:
        at = events.timestamp(moment + timedelta(milliseconds=40 * index))
        before = "sha256:" + prev.hex()
        if index == 0:
            return dsse.seal(payload("log-started", start, 0, before, at), ring.event)
        text = form.replace(str(mark), str(index)).replace(clock, at)
        return dsse.seal(text.replace("sha256:" + "e" * 64, before).encode(), ring.event)

    return make


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    main()
