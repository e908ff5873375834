"""How long the officer's page takes to answer over a million entries.

Made-up entries of twenty institutions, indexed as those of a bundle are; then the page itself, in
one process and without a network, asked through every filter and combination that an officer has,
also for what occurs nowhere, which is the slowest. Each question is asked five times after a first
one, and the slowest of the five counts. A receipt is made from the tiles of a real log of 70,000
signed entries.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx

from audit import bundle as bundles
from audit import canonical, dsse, events, index, keys, merkle, note, page, tiles
from audit.entries import Entry
from audit.events import Event
from audit.findings import Findings
from audit.page_access import COOKIE, Access
from audit.page_shelf import Book
from bench.measure import at_most, finish, options

_SITES = tuple(f"site-{number:02}" for number in range(20))
_HOST = "127.0.0.1:8090"
_RUN_ROUNDS = 500
_LIMIT_MS = 300.0
_QUESTIONS = {
    "newest": "",
    "kind": "kind=egress",
    "institution": "institution=site-07",
    "run": "run=run-1",
    "round": "round=3",
    "problems": "problems=1",
    "a day": "since=2026-01-20&until=2026-01-20",
    "kind and institution": "kind=dp-training&institution=site-11",
    "kind, run, round": "kind=update-accepted&run=run-2&round=7",
    "institution and problems": "institution=site-03&problems=1",
    "oldest run and institution": "institution=site-05&run=run-0&kind=egress",
    "nothing: kind at another's log": "kind=dp-training&institution=hub",
    "nothing: a run in no such time": "run=run-0&since=2039-01-01",
    "nothing: all at once": "institution=site-01&kind=egress&run=run-1&round=2&problems=1"
    "&since=2026-01-01&until=2026-01-02",
    "page 2 of a kind": "kind=round-closed&before=500000",
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    given = parser.parse_args()
    count = 20_000 if given.quick else given.entries
    with tempfile.TemporaryDirectory(prefix="privity-bench-") as folder:
        root = Path(folder)
        began = time.perf_counter()
        made = index.build(root / "index.sqlite", _entries(count), run="run-0")
        built = time.perf_counter() - began
        bundle = _bundle(root, 500 if given.quick else 70_000)
        book = Book("made", bundle, _findings(bundle), datetime.now(UTC), made)
        times = asyncio.run(_ask(book))
    figures: dict[str, float] = {"entries": count, "index_seconds": round(built, 2)}
    print(f"{count:,} entries indexed in {built:.1f} s")
    for name, value in times.items():
        print(f"{value:8.1f} ms  {name}")
        figures[f"ms {name}"] = round(value, 1)
    slowest = max(times.values())
    finish("officer", figures, {"slowest answer, ms": at_most(slowest, _LIMIT_MS)},
           as_json=given.json)  # fmt: skip


async def _ask(book: Book) -> dict[str, float]:
    access = Access(frozenset({_HOST}))
    session = access.log_in(access.link())
    transport = httpx.ASGITransport(app=page.create((book,), access))
    asked = {name: f"/b/made/entries?{query}" for name, query in _QUESTIONS.items()}
    asked |= {
        "overview": "/",
        "run, first rounds": "/b/made",
        "run, last rounds": f"/b/made?first={_RUN_ROUNDS - 50}",
        "an entry with its proof": "/b/made/entry/solo/400",
        "its receipt": "/b/made/entry/solo/400/receipt",
        "witnesses": "/b/made/witnesses",
        "release": "/b/made/release",
    }
    times = {}
    async with httpx.AsyncClient(
        transport=transport, base_url=f"http://{_HOST}", cookies={COOKIE: session or ""}
    ) as client:
        for name, path in asked.items():
            taken = []
            for _ in range(6):
                began = time.perf_counter()
                answer = await client.get(path)
                taken.append(1000 * (time.perf_counter() - began))
                assert answer.status_code == 200, (name, answer.status_code)
            times[name] = max(taken[1:])
    return times


def _entries(count: int) -> Iterator[Entry]:
    """Rounds of twenty institutions: training, egress, acceptance of each, then the round's end."""
    moment, number, turn = datetime(2026, 1, 1, tzinfo=UTC), 0, 0
    sizes = dict.fromkeys((*_SITES, "hub"), 0)

    def entry(name: str, kind: str, fields: dict[str, object]) -> Entry:
        run = f"run-{turn // _RUN_ROUNDS}"
        event = Event(
            kind, name, name, sizes[name], "", moment, run, turn % _RUN_ROUNDS, fields, ()
        )
        sizes[name] += 1
        return Entry(name, event.seq, event)

    digest = "sha256:" + "0" * 64
    trained = dict.fromkeys(("noise_multiplier", "sample_rate", "clip_norm"), "1")
    trained |= {"steps": 2, "unit": "person", "adjacency": "zero-out"}  # type: ignore[dict-item]
    while True:
        for site in _SITES:
            moment += timedelta(seconds=3)
            denied = (turn + number) % 4001 == 5
            verdict = {"verdict": "denied" if denied else "cleared", "code": "none"}
            taken = {"institution": site, "update_digest": digest}
            for name, kind, fields in (
                (site, "dp-training", trained),
                (site, "egress", verdict),
                ("hub", "update-accepted", taken),
            ):
                yield entry(name, kind, fields)  # type: ignore[arg-type]
                number += 1
                if number == count:
                    return
        closed = {"accepted": list(_SITES), "rejected": [], "absent": []}
        yield entry("hub", "round-closed", closed)
        number += 1
        turn += 1
        if number == count:
            return


def _bundle(root: Path, count: int) -> bundles.Bundle:
    """A bundle whose one log has so many real, signed entries; written without its journal."""
    ring = keys.create(root / "keys", "solo")
    origin, folder, tree = "solo/log", root / "log", merkle.Tree()
    bodies: list[bytes] = []
    for number in range(count):
        prev = tree.leaf(number - 1) if number else merkle.EMPTY_ROOT
        statement = events.statement(
            "institution-revoked", {"name": f"site-{number}"}, emitter="solo", origin=origin,
            seq=number, prev="sha256:" + prev.hex(), time=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        bodies.append(dsse.seal(canonical.encode(statement), ring.event))
        tree.append(merkle.leaf_hash(bodies[-1]))
    for tile in tiles.needed(count):
        place = folder / tile.path
        place.parent.mkdir(parents=True, exist_ok=True)
        packed = tile.level == tiles.ENTRIES
        items = bodies[tile.start : tile.start + tile.width]
        place.write_bytes(tiles.pack(items) if packed else tiles.hashes(tile, tree))
    text = note.Checkpoint(origin, count, tree.root()).text
    signed = note.Note(text, (note.sign(text, name=origin, key=ring.log),))
    (folder / "checkpoint").write_text(str(signed), encoding="utf-8")
    source = bundles.Source(folder, ring.public())
    return bundles.write(
        root / "made", run="run-0", coordinator=source, sites={}, plan=canonical.encode({})
    )


def _findings(bundle: bundles.Bundle) -> Findings:
    """Made-up findings: this measures the page and not the verifier."""
    return Findings(
        run=bundle.run, bundle_digest=bundle.digest, intact=True, complete=True, consistent=True,
        faults=(), notices=(), signers=(), institutions=(), release=None, rounds=0, quorum=None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
