"""Flip every bit and cut at every length of every file of a bundle of 300 entries: is it found?

    python -m bench.flips_audit [--quick] [--jobs N] [--json]

The bundle is of a whole run with its release; one institution's log has 300 entries. Whoever
changed a file also makes the manifest fit again, so what tells are the signatures, the Merkle trees
and what the logs say of each other. Every bit and every length of every file is tried.

The verifier's own functions judge, from the one that reads the changed bytes on: of a tile the
functions that split it and that check hashes against the signed root, of a checkpoint those that
check its signatures, of the manifest those that read it and compare it with the files, of the plan
and the release those that compare them with the coordinator's log. A change
that these do not tell goes to the whole verifier, and counts as missed only if that calls the
bundle good. To see that the short way is no kinder, a spread sample of the changes of each file
goes to the whole verifier in any case. --quick tries a sample everywhere.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import measure  # first: it makes `audit` the package
from bench.measure import Bar, at_least, at_most

# isort: split
from audit import (
    bundle,
    canonical,
    digests,
    dsse,
    merkle,
    note,
    tiles,
    verify_bytes,
    verify_meaning,
    verify_release,
)
from audit.errors import AuditError
from audit.evidence import Collector
from audit.verify import verify

SIZE = 300
WHOLE = 40  # changes of each file that the whole verifier judges in any case
QUICK_SAMPLE = 40
CHUNK_BYTES = 4096
RAN = {"bundle_digest": canonical.digest(b""), "verdict": "ok"}
Told = Callable[[bytes, int], bool]  # changed bytes, where: whether the short way tells


def make_bundle(root: Path, size: int = SIZE) -> tuple[Path, Any]:
    """A played run with its release, one institution's log of `size`; and the accountant."""
    path = measure.ROOT / "tests" / "audit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("privity_made_up", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} is missing")
    made_up = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made_up  # its dataclasses ask for it
    spec.loader.exec_module(made_up)
    played = made_up.Federation(root, names=("alpha",), rounds=1, quorum=1)
    own = 7  # entries that the run itself leaves
    for _ in range(size - own):
        played.sites["alpha"].log.append("verifier-run", RAN)
    played.play()
    if played.sites["alpha"].log.size != size:
        raise RuntimeError(f"the log has {played.sites['alpha'].log.size} entries, not {size}")
    return Path(played.bundle()), made_up.recompute


class Judge:
    """Says of changes to a copy of a bundle whether they are found."""

    def __init__(self, folder: Path, recompute: Any) -> None:
        self.folder, self._recompute = folder, recompute
        self.opened = bundle.read(folder)
        self.names = [*sorted(self.opened.files), bundle.MANIFEST]
        self._manifest = (folder / bundle.MANIFEST).read_bytes()
        sound = verify(folder, recompute=recompute)
        self._seen = [signer.cosigned_by for signer in sound.signers]
        evidence = verify_bytes.check(self.opened, Collector(), trust={}, against=None)
        if not sound.ok or evidence is None:
            raise RuntimeError("the bundle does not verify as it is")
        self._evidence = evidence
        self._releases = [event for _, event in evidence.coordinator.of("release", evidence.run)]
        self._digests = functools.lru_cache(None)(digests.file_digest)
        self._logs = {log.where: log for log in (evidence.coordinator, *evidence.sites.values())}

    def whole(self, name: str, changed: bytes) -> bool:
        """Whether the verifier finds a change, the manifest being made to fit."""
        path = self.folder / name
        original = path.read_bytes()
        path.write_bytes(changed)
        if name != bundle.MANIFEST:
            manifest = json.loads(self._manifest)
            manifest["files"][name] = digests.file_digest(path)
            (self.folder / bundle.MANIFEST).write_bytes(canonical.encode(manifest))
        try:
            findings = verify(self.folder, recompute=self._recompute)
        finally:
            path.write_bytes(original)
            (self.folder / bundle.MANIFEST).write_bytes(self._manifest)
        # A line whose name or key id changed is by nobody we know: one witness fewer is told.
        return not findings.ok or [s.cosigned_by for s in findings.signers] != self._seen

    def short(self, name: str) -> Told:
        """Return the way to judge changes of one file from the function on that reads it."""
        if name == bundle.MANIFEST:
            return self._in_manifest
        if name == bundle.PLAN:
            return self._in_plan
        if name.startswith(f"{bundle.RELEASE}/"):
            return lambda changed, place: self._in_release(name, changed)
        where = next((w for w in self._logs if name.startswith(f"{w}/")), None)
        if where is None:
            raise RuntimeError(f"nobody reads {name}")
        log = self._logs[where]
        if name == f"{where}/{bundle.CHECKPOINT}":
            return functools.partial(self._in_checkpoint, log)
        for tile in tiles.needed(log.checkpoint.size):
            if name == f"{where}/{tile.path}":
                data = (self.folder / name).read_bytes()
                if tile.level == tiles.ENTRIES:
                    return self._in_entries(log, tile, data)
                stored = tiles.hashes(tile, log.tree)
                return lambda changed, place: self._in_hashes(tile, stored, changed)
        raise RuntimeError(f"nobody reads {name}")

    def _in_manifest(self, changed: bytes, place: int) -> bool:
        path = self.folder / bundle.MANIFEST
        path.write_bytes(changed)
        found, read = Collector(), digests.file_digest
        digests.file_digest = self._digests  # only the manifest changes here
        try:
            opened = bundle.read(self.folder)
            verify_bytes._check_files(opened, set(self.opened.files), (), found)
        except AuditError:
            return True
        finally:
            digests.file_digest = read
            path.write_bytes(self._manifest)
        return bool(found.faults)

    def _in_plan(self, changed: bytes, place: int) -> bool:
        found = Collector()
        verify_meaning._check_plan(replace(self._evidence, plan=changed), found)
        return bool(found.faults)

    def _in_release(self, name: str, changed: bytes) -> bool:
        path, found = self.folder / name, Collector()
        original = path.read_bytes()
        path.write_bytes(changed)
        try:
            verify_release._check_folder(self._evidence, self._releases, found)
        finally:
            path.write_bytes(original)
        return bool(found.faults)

    def _in_checkpoint(self, log: Any, changed: bytes, place: int) -> bool:
        try:
            note.open_checkpoint(changed, key=note.parse_key(log.keys.log), origin=None)
            for other in self._logs.values():
                if other is not log:
                    note.check_signed(note.parse(changed), note.parse_key(other.keys.witness))
        except AuditError:
            return True
        return False

    def _in_hashes(self, tile: tiles.Tile, sound: bytes, changed: bytes) -> bool:
        try:
            return b"".join(tiles.split(changed, tile.width)) != sound
        except AuditError:
            return True

    def _in_entries(self, log: Any, tile: tiles.Tile, data: bytes) -> Told:
        size, root = log.checkpoint.size, log.checkpoint.root
        starts, offset = [], 0
        for entry in tiles.unpack(data, tile.width):
            starts.append((offset + 2, offset + 2 + len(entry)))
            offset += 2 + len(entry)
        owner = [n for n, (start, end) in enumerate(starts) for _ in range(start - 2, end)]
        proofs = [log.tree.inclusion(tile.start + n, size) for n in range(tile.width)]

        def told(changed: bytes, place: int) -> bool:
            number = owner[place]
            start, end = starts[number]
            try:
                if place < start or len(changed) != len(data):  # its lengths, or its end
                    tiles.unpack(changed, tile.width)
                    return False
                leaf = merkle.leaf_hash(changed[start:end])
                merkle.check_inclusion(leaf, tile.start + number, size, proofs[number], root)
            except AuditError:
                return True
            return False

        return told


def changes(data: bytes, first: int, last: int) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Yield kind, place and maker of every flip in, and cut at, some bytes of a file."""
    for place in range(first, min(last, len(data))):
        for bit in range(8):
            flip = bytes([data[place] ^ 1 << bit])
            yield "flips", place, lambda p=place, f=flip: data[:p] + f + data[p + 1 :]
        yield "cuts", place, lambda p=place: data[:p]


def every(data: bytes, most: int) -> int:
    """Every how-manieth change to take for about `most` of a file, flips and cuts alike."""
    step = max(1, 9 * len(data) // most)
    return step if step % 3 else step + 1  # nine changes belong to each byte


def judge_part(judge: Judge, name: str, first: int, last: int, step: int) -> Counter[str]:
    """Judge each `step`-th change of a part of a file."""
    data = (judge.folder / name).read_bytes()
    told, counts = judge.short(name), Counter[str]()
    often = every(data, WHOLE)
    for number, (kind, place, make) in enumerate(changes(data, first, last)):
        if number % step:
            continue
        changed = make()
        counts[kind] += 1
        short = told(changed, place)
        if not short or (9 * first + number) % often == 0:
            counts["whole"] += 1
            whole = judge.whole(name, changed)
            counts["missed"] += not whole
            counts["disagreed"] += short and not whole
    return counts


def judge_all(folder: Path, recompute: Any, jobs: int, quick: bool) -> dict[str, Counter[str]]:
    """Judge every change of every file in so many processes, each with a copy of the bundle."""
    names = Judge(folder, recompute).names
    files = {name: (folder / name).read_bytes() for name in names}
    parts = [
        (name, first, first + CHUNK_BYTES, every(data, QUICK_SAMPLE) if quick else 1)
        for name, data in files.items()
        for first in range(0, len(data), CHUNK_BYTES)
    ]
    results: dict[str, Counter[str]] = {name: Counter() for name in names}
    pipes = []
    for worker in range(jobs):
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            status = 1
            try:
                status = _work(folder, recompute, parts[worker::jobs], worker, write)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(write)
        pipes.append(read)
    for read in pipes:
        with os.fdopen(read) as stream:
            for line in stream:
                name, counts = json.loads(line)
                results[name].update(counts)
    for _ in pipes:
        if os.wait()[1]:
            raise RuntimeError("a worker failed: see above")
    return results


def _work(
    folder: Path,
    recompute: Any,
    parts: Sequence[tuple[str, int, int, int]],
    worker: int,
    write: int,
) -> int:
    """Judge parts in a copy; equal bytes are parsed and checked once, for they give one answer."""
    for module, name in ((dsse, "parse"), (note, "parse"), (note, "check_signature")):
        setattr(module, name, functools.lru_cache(1 << 12)(getattr(module, name)))
    judge = Judge(Path(shutil.copytree(folder, folder.with_name(f"copy-{worker}"))), recompute)
    for name, first, last, step in parts:
        counts = judge_part(judge, name, first, last, step)
        os.write(write, (json.dumps([name, counts]) + "\n").encode())
    return 0


def main() -> None:
    parser = measure.options(__doc__)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    began = time.monotonic()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="privity-flips-", dir=memory) as place:
        folder, recompute = make_bundle(Path(place))
        results = judge_all(folder, recompute, options.jobs, options.quick)
    total = Counter[str]()
    for name, counts in results.items():
        total.update(counts)
        print(f"{counts['flips']:>9} flips, {counts['cuts']:>7} cuts of {name}: "
              f"{counts['missed']} missed")  # fmt: skip
    tried = total["flips"] + total["cuts"]
    figures = {
        "files": len(results), "flips": total["flips"], "cuts": total["cuts"],
        "found": tried - total["missed"], "missed": total["missed"],
        "by the whole verifier": total["whole"], "every change": not options.quick,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    bars: dict[str, Bar] = {
        "changes tried": at_least(tried, 1),
        "changes missed": at_most(total["missed"], 0),
        "changes that only the short way finds": at_most(total["disagreed"], 0),
    }
    measure.finish("flips_audit", figures, bars, as_json=options.json)


if __name__ == "__main__":
    main()
