"""Flip every bit and cut at every length of every file of a bundle of 300 entries: is it found?

    python -m bench.flips_audit [--quick] [--json]

Twice. First as damage: the manifest stays, and every single changed file must differ from it; this
is done for every bit and every length. Then as an attack: whoever changed the file makes the
manifest fit again, and the signatures and the Merkle tree must tell. That is done for every bit of
a small file (a checkpoint, a tile of hashes), for a spread sample of the bits of a large one, and
for every length. --quick takes a sample everywhere.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import measure  # first: it makes `audit` the package
from bench.measure import Bar, at_least, at_most

# isort: split
from audit import bundle, canonical, keys, verify_bytes, witness
from audit.errors import AuditError
from audit.evidence import Collector
from audit.log import Log

SIZE = 300
SMALL_BYTES = 12_000
SAMPLE = 3_000  # bits of a large file
QUICK_SAMPLE = 150
RAN = {"bundle_digest": canonical.digest(b""), "verdict": "ok"}


def make_bundle(root: Path, size: int = SIZE) -> Path:
    """A coordinator's log of one entry and an institution's of `size`, each cosigning the other."""
    rings = {name: keys.create(root / name / "keys", name) for name in ("hub", "clinic")}
    logs = {name: Log.create(root / name / "log", keys=ring) for name, ring in rings.items()}
    for _ in range(size - 1):
        logs["clinic"].append("verifier-run", RAN)
    for name, other in (("hub", "clinic"), ("clinic", "hub")):
        memory = witness.Witness(root / other / "witness.sqlite", rings[other])
        line = memory.cosign_request(witness.request(logs[name], 0), log_key=logs[name].keys.log)
        logs[name].add_cosignature(line, witness=rings[other].public().witness)
        logs[name].checkpoint()
    sources = {n: bundle.Source(logs[n].folder, rings[n].public()) for n in rings}
    plan = canonical.encode({"name": "flips"})
    sites = {"clinic": sources["clinic"]}
    bundle.write(root / "bundle", run="r", coordinator=sources["hub"], sites=sites, plan=plan)
    return root / "bundle"


def spread(count: int, most: int) -> Sequence[int]:
    """At most so many places, evenly over all."""
    step = max(1, -(-count // most))
    return range(0, count, step)


def flipped(data: bytes, bit: int) -> bytes:
    place = bit >> 3
    return data[:place] + bytes([data[place] ^ 1 << (bit & 7)]) + data[place + 1 :]


def damage(folder: Path, most: int) -> Iterator[tuple[str, int, int]]:
    """Yield, for each file in the manifest, how many changes were tried and were missed."""
    read = bundle.read(folder)
    for name, stated in sorted(read.files.items()):
        data = (folder / name).read_bytes()
        missed = tried = 0
        state, done = hashlib.sha256(), 0
        for bit in spread(8 * len(data), most):
            place = bit >> 3
            state.update(data[done:place])
            done = place
            one = state.copy()
            one.update(bytes([data[place] ^ 1 << (bit & 7)]))
            one.update(data[place + 1 :])
            missed += "sha256:" + one.hexdigest() == stated
            tried += 1
        state, done = hashlib.sha256(), 0
        for length in spread(len(data), most):
            state.update(data[done:length])
            done = length
            missed += "sha256:" + state.copy().hexdigest() == stated
            tried += 1
        yield name, tried, missed


def attack(folder: Path, quick: bool) -> Iterator[tuple[str, int, int]]:
    """As `damage`, with a manifest that fits each change; the manifest itself comes last."""
    whole = _read(folder)
    if whole[0]:
        raise RuntimeError("the bundle does not verify")
    # plan.json is bound by the log of a run, of which there is none here.
    names = [name for name in sorted(bundle.read(folder).files) if name != bundle.PLAN]
    for name in [*names, bundle.MANIFEST]:
        path = folder / name
        data = path.read_bytes()
        most = QUICK_SAMPLE if quick else SAMPLE if len(data) > SMALL_BYTES else 1 << 40
        tried = missed = 0
        for number, changed in enumerate(_changes(data, most)):
            path.write_bytes(changed)
            faults, witnesses = _read(folder, without=name)
            # A line whose name or key id changed is by nobody we know: one witness fewer.
            noticed = faults or witnesses != whole[1]
            in_run = name == bundle.MANIFEST and _only_the_run(data, changed)
            missed += not (noticed or in_run)
            tried = number + 1
        path.write_bytes(data)
        yield name, tried, missed


def _changes(data: bytes, most: int) -> Iterator[bytes]:
    for bit in spread(8 * len(data), most):
        yield flipped(data, bit)
    for length in spread(len(data), most):
        yield data[:length]


def _read(folder: Path, without: str = "") -> tuple[int, tuple[tuple[str, ...], ...]]:
    """Return how many faults there are but for the manifest's own, and who cosigned."""
    found = Collector()
    try:
        opened = bundle.read(folder)
    except AuditError:
        return 1, ()
    evidence = verify_bytes.check(opened, found, trust={}, against=None)
    own = [f for f in found.faults if not (f.code == "changed-file" and f.where == without)]
    if evidence is None:
        return len(own) or 1, ()
    return len(own), tuple(
        log.cosigned_by for log in (evidence.coordinator, *evidence.sites.values())
    )


def _only_the_run(data: bytes, changed: bytes) -> bool:
    """Whether a change is inside the run's name: no damage to bytes, and no such run is found."""
    start = data.index(b'"run":"') + 7
    end = data.index(b'"', start)
    return (
        changed[:start] == data[:start] and changed[len(changed) - len(data) + end :] == data[end:]
    )


def main() -> None:
    options = measure.options(__doc__).parse_args()
    figures: dict[str, Any] = {}
    bars: dict[str, Bar] = {}
    with tempfile.TemporaryDirectory(prefix="privity-flips-", dir=_memory()) as place:
        folder = make_bundle(Path(place))
        ways = {
            "damage": damage(folder, QUICK_SAMPLE if options.quick else 1 << 40),
            "attack": attack(Path(shutil.copytree(folder, Path(place) / "copy")), options.quick),
        }
        for way, results in ways.items():
            tried = missed = 0
            for name, some, lost in results:
                print(f"{way}: {some:>9} changes of {name}, {lost} missed", flush=True)
                tried, missed = tried + some, missed + lost
            figures[way] = {"tried": tried, "missed": missed}
            bars[f"{way}: changes tried"] = at_least(tried, 1)
            bars[f"{way}: changes missed"] = at_most(missed, 0)
    measure.finish("flips_audit", figures, bars, as_json=options.json)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()
