"""A small federation with made-up arrays: real keys, logs, witnesses and a complete bundle."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import bundle, canonical, digests, keys, log, note, witness
from audit.events import Subject, decimal
from audit.findings import Findings
from audit.verify import verify

RUN = "run-1"
DELTA = "0.00001"
UNIT, ADJACENCY = "patient", "zero-out"

# Changes an event's fields on its way into a log (an insider who holds the keys); None drops it,
# a list writes several.
Edit = Callable[[str, str, int | None, dict[str, Any]], Any]


def recompute(rows: Sequence[tuple[float, float, int]], delta: float) -> float:
    """A stand-in accountant: monotone, additive, and wrong if any row or delta is left out."""
    return sum(rate * steps / sigma for sigma, rate, steps in rows) - math.log10(delta) / 100


def arrays(seed: int) -> dict[str, np.ndarray]:
    values = np.random.default_rng(seed).standard_normal((4, 2)).astype(np.float32)
    return {"layer.q.B": values, "layer.v.B": values + 1}


def digest(text: str) -> str:
    return canonical.digest(text.encode())


@dataclass
class Party:
    """One party's keys, log and witness."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.keys = keys.create(self.folder / "keys", self.name)
        self.log = log.Log.create(self.folder / "log", keys=self.keys)
        self.witness = witness.Witness(self.folder / "witness.sqlite", self.keys)

    @property
    def public(self) -> keys.PublicKeys:
        return self.keys.public()

    def witnessed_by(self, other: Party) -> None:
        last = other.witness.last(self.log.origin)
        body = witness.request(self.log, 0 if last is None else last[0])
        line = other.witness.cosign_request(body, log_key=self.public.log, origin=self.log.origin)
        self.log.add_cosignature(line, witness=other.public.witness)


@dataclass
class Federation:
    """Plays one run and leaves its bundle; every knob is a way to be wrong."""

    root: Path
    names: tuple[str, ...] = ("alpha", "beta", "gamma")
    rounds: int = 2
    quorum: int = 2
    absent: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    edit: Edit = lambda party, kind, turn, fields: fields
    final_witnesses: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.coordinator = Party(self.root / "hub", "hub")
        self.sites = {name: Party(self.root / name, name) for name in self.names}
        self.plan = {"name": RUN, "rounds": self.rounds, "epsilon": DELTA}
        self.plan_digest = canonical.digest(canonical.encode(self.plan))
        self.release = self.root / "release"

    def append(
        self,
        party: Party,
        kind: str,
        fields: dict[str, Any],
        *,
        turn: int | None = None,
        subjects: Sequence[Subject] = (),
        run: str | None = RUN,
    ) -> log.Receipt | None:
        edited = self.edit(party.name, kind, turn, json.loads(json.dumps(fields)))
        receipt = None
        for each in edited if isinstance(edited, list) else [edited]:
            if isinstance(each, tuple):  # an event of another kind
                party.log.append(each[0], each[1])
            elif each is not None:
                receipt = party.log.append(kind, each, subjects=subjects, run=run, round=turn)
        return receipt

    def play(self) -> Federation:
        hub = self.coordinator
        for name, site in self.sites.items():
            joined = {"name": name, "keys": site.public.to_json()}
            self.append(hub, "institution-joined", joined, run=None)
        self.append(
            hub,
            "run-started",
            {
                "plan_digest": self.plan_digest,
                "plan": self.plan,
                "institutions": list(self.names),
                "quorum": self.quorum,
            },
        )
        self.commit()
        for site in self.sites.values():
            self.prepare(site)
        adapter = digests.arrays_digest(arrays(0))
        for turn in range(self.rounds):
            adapter = self.play_round(turn, adapter)
        self.cut(adapter)
        self.receive()
        finished = {"outcome": "completed", "rounds": self.rounds, "participants": list(self.names)}
        self.append(hub, "run-finished", finished)
        self.cosign(self.names if self.final_witnesses is None else self.final_witnesses)
        for site in self.sites.values():
            site.witnessed_by(hub)
        return self

    def prepare(self, site: Party) -> None:
        approved = {"plan_digest": self.plan_digest, "decision": "approved", "by": "operator"}
        self.append(site, "approval", approved)
        scrub = {
            "profile": "clinical",
            "scrubber_digest": digest("s"),
            "records_commitment": digest("r"),
        }
        self.append(site, "pii-scrub", scrub)
        after = recompute([(1.5, 0.01, 10 * self.rounds)], float(DELTA))
        self.append(
            site,
            "budget-reserved",
            {
                "plan_digest": self.plan_digest,
                "cohort_commitment": digest("cohort"),
                "noise_multiplier": "1.5",
                "sample_rate": "0.01",
                "steps": 10 * self.rounds,
                "rounds": self.rounds,
                "delta": DELTA,
                "epsilon_before": "0",
                "epsilon_after": decimal(after),
                "cap": "2",
                "ledger_head": digest("head"),
            },
        )

    def commit(self) -> None:
        size = self.coordinator.log.size
        self.append(
            self.coordinator,
            "watermark-keys",
            {
                "tree_size": size,
                "tree_root": "sha256:" + self.coordinator.log.root(size).hex(),
                **self.mark,
            },
        )

    @property
    def mark(self) -> dict[str, Any]:
        return {
            **{f"{name}_digest": digest(name) for name in ("basis", "table", "detector")},
            "strength": "0.05",
            "commitments": [
                {"recipient": n, "commitment": digest(n)} for n in ("owner", *self.names)
            ],
        }

    def play_round(self, turn: int, adapter: str) -> str:
        hub, accepted, inputs, notes = self.coordinator, [], [], {}
        sent = dict.fromkeys(self.names, adapter)
        if turn:
            sent = {name: digest(f"copy {turn} {name}") for name in self.names}
            copies = [{"recipient": n, "adapter_digest": sent[n]} for n in self.names]
            marked = {"input_adapter": adapter, "copies": copies}
            self.append(hub, "broadcast-marked", marked, turn=turn)
        for place, (name, site) in enumerate(self.sites.items()):
            if name in self.absent.get(turn, ()):
                continue
            update = digests.arrays_digest(arrays(100 * turn + place + 1))
            trained = self.append(
                site,
                "dp-training",
                {
                    "plan_digest": self.plan_digest,
                    "noise_multiplier": "1.5",
                    "sample_rate": "0.01",
                    "steps": 10,
                    "clip_norm": "1",
                    "unit": UNIT,
                    "adjacency": ADJACENCY,
                    "accountant": "PLD",
                    "delta": DELTA,
                    "ledger_head": digest("head"),
                    "input_digest": sent[name],
                },
                turn=turn,
                subjects=[Subject("update", update)],
            )
            cleared = {"verdict": "cleared", "code": "ok", "update_digest": update}
            self.append(site, "egress", cleared, turn=turn)
            site.witnessed_by(hub)
            notes[name] = site.log.checkpoint()
            stated = note.parse_checkpoint(note.parse(notes[name]))
            self.append(
                hub,
                "update-accepted",
                {
                    "institution": name,
                    "update_digest": update,
                    "site_size": stated.size,
                    "site_root": "sha256:" + stated.root.hex(),
                    "statement_index": trained.index if trained else 0,
                    "statement_leaf": trained.leaf_digest if trained else digest("none"),
                },
                turn=turn,
            )
            accepted.append(name)
            inputs.append({"institution": name, "update_digest": update})
        output = digests.arrays_digest(arrays(1000 + turn))
        mean = {
            "method": "uniform mean of B, A frozen",
            "inputs": inputs,
            "input_adapter": adapter,
            "output_adapter": output,
        }
        self.append(hub, "aggregation", mean, turn=turn)
        closed = {
            "accepted": accepted,
            "rejected": [],
            "absent": list(self.absent.get(turn, ())),
            "site_checkpoints": notes,
        }
        self.append(hub, "round-closed", closed, turn=turn)
        self.cosign(accepted)
        return output

    def cosign(self, names: Sequence[str]) -> None:
        for name in names:
            self.coordinator.witnessed_by(self.sites[name])

    def cut(self, adapter: str) -> None:
        hub = self.coordinator
        self.release.mkdir()
        save_file(arrays(77), self.release / "adapter_model.safetensors")
        (self.release / "README.md").write_text("# a card\n")
        (self.release / "bom.cdx.json").write_text("{}\n")
        released = digests.safetensors_digest(self.release / "adapter_model.safetensors")
        self.append(
            hub,
            "watermark-committed",
            {
                "reference_digest": adapter,
                **self.mark,
            },
        )
        copies = [
            {"recipient": name, "adapter_digest": released if place == 0 else digest(name)}
            for place, name in enumerate(self.names)
        ]
        self.append(hub, "watermark-embedded", {"copies": copies})
        scores = {"accuracy": "0.5", "macro_f1": "0.4", "loss": "1.25"}
        scored = {"data": "held out", "records": 10, "base": scores, "released": scores}
        self.append(hub, "evaluation", scored)
        epsilon = decimal(recompute([(1.5, 0.01, 10 * self.rounds)], float(DELTA)))
        claim = {
            "epsilon": epsilon,
            "delta": DELTA,
            "cap": "2",
            "unit": UNIT,
            "adjacency": ADJACENCY,
        }
        self.append(
            hub,
            "release",
            {
                "adapter_digest": released,
                "reference_digest": adapter,
                "card_digest": digests.file_digest(self.release / "README.md"),
                "bom_digest": digests.file_digest(self.release / "bom.cdx.json"),
                "folder_digest": digests.folder_digest(self.release),
                "claims": [{"institution": name, **claim} for name in self.names],
            },
        )

    def receive(self) -> None:
        for place, (name, site) in enumerate(self.sites.items()):
            released = digests.safetensors_digest(self.release / "adapter_model.safetensors")
            own = released if place == 0 else digest(name)
            self.append(site, "release-received", {"release_digest": own})

    def bundle(self, name: str = "bundle") -> Path:
        bundle.write(
            self.root / name,
            run=RUN,
            coordinator=bundle.Source(self.coordinator.log.folder, self.coordinator.public),
            sites={
                n: bundle.Source(site.log.folder, site.public) for n, site in self.sites.items()
            },
            plan=canonical.encode(self.plan),
            release=self.release,
        )
        return self.root / name


def relist(folder: Path) -> None:
    """Make the manifest fit the files again, as whoever tampered with them would."""
    path = folder / bundle.MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["files"] = {
        name: digests.file_digest(folder / name)
        for name in bundle.walk(folder)
        if name != bundle.MANIFEST
    }
    path.write_bytes(canonical.encode(manifest))


@pytest.fixture(scope="session")
def federate() -> type[Federation]:
    """The class above: tests import nothing from each other."""
    return Federation


@pytest.fixture(scope="session")
def account() -> Callable[[Sequence[tuple[float, float, int]], float], float]:
    """The stand-in accountant."""
    return recompute


@pytest.fixture(scope="session")
def judge() -> Callable[..., Findings]:
    """The verifier with the stand-in accountant."""
    return lambda folder, **more: verify(folder, recompute=recompute, **more)


@pytest.fixture(scope="session")
def relisted() -> Callable[[Path], None]:
    """Makes a tampered bundle's manifest fit again."""
    return relist


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: logs wait for the disk at every entry."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="privity-test-", dir=place) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In place of pytest's own."""
    with quick_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def sound() -> Iterator[Federation]:
    """A played federation; copy its bundle before changing anything."""
    with quick_folder() as folder:
        federation = Federation(folder).play()
        federation.bundle()
        yield federation


@pytest.fixture
def copied(sound: Federation, tmp_path: Path) -> Path:
    """A copy of a sound bundle, to be damaged."""
    return Path(shutil.copytree(sound.root / "bundle", tmp_path / "bundle"))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Any]:
    from tests.audit import hub as made

    found = made.make(tmp_path / "hub")
    yield found
    found.log.close()
