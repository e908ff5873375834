"""Every parser of foreign bytes in `audit`, with seeds, for hypothesis and for atheris."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import (
    archive,
    bundle,
    canonical,
    disclosures,
    dsse,
    events,
    keys,
    merkle,
    note,
    policy,
    reading,
    receipt,
    rotation,
    tiles,
    witness,
)

Parser = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A parser and inputs that it accepts."""

    parse: Parser
    seeds: tuple[bytes, ...]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _hashes(data: bytes) -> list[bytes]:
    return [data[i : i + 32] for i in range(0, len(data), 32)]


def _manifest(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / bundle.MANIFEST).write_bytes(data)
        return bundle.read(Path(name))


def _unpack(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "in.zip").write_bytes(data)
        (root / "out").mkdir()
        place = archive.unpack(root / "in.zip", root / "out")
        for path in place.rglob("*"):
            assert not path.is_symlink()
            assert path.resolve().is_relative_to(place)
        assert {path.name for path in root.iterdir()} == {"in.zip", "out"}
        return place


@cache
def targets() -> Mapping[str, Target]:
    """Every parser by name."""
    ring = keys.KeyRing("site", *(Ed25519PrivateKey.generate() for _ in keys.ROLES))
    public = ring.public()
    tree = merkle.Tree([merkle.leaf_hash(bytes([n])) for n in range(7)])
    stated = note.Checkpoint("site/log", 7, tree.root())
    line = note.sign(stated.text, name="site/log", key=ring.log)
    seen = note.cosign(stated.text, name="site/witness", key=ring.witness, time=1)
    signed = str(note.Note(stated.text, (line, seen)))
    started = {"origin": "site/log", "software": "x", "keys": public.to_json()}
    statement = events.statement(
        "log-started", started, emitter="site", origin="site/log", seq=0,
        prev=canonical.digest(b""), time=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    entry = dsse.seal(canonical.encode(statement), ring.event)
    rule = policy.text([public.log], {"w": public.witness}, least=1)
    proof = receipt.Receipt(3, tree.inclusion(3, 7), signed, b"extra")
    request = "\n".join(["old 3", *map(canonical.to_base64, tree.consistency(3, 7)), "", signed])
    manifest = canonical.encode(
        {"format": 1, "run": "r", "coordinator": public.to_json(), "sites": {},
         "files": {"plan.json": canonical.digest(b"")}}
    )  # fmt: skip
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bundle.json", manifest)
        made.writestr("coordinator/checkpoint", signed)
    shown = disclosures.make("caller", "somebody").text.encode()

    def inclusion(data: bytes) -> None:
        merkle.check_inclusion(tree.leaf(3), 3, 7, _hashes(data), tree.root())

    def consistency(data: bytes) -> None:
        merkle.check_consistency(3, 7, _hashes(data), tree.root(3), tree.root())

    def read_entry(data: bytes) -> None:
        reader = reading.Reader("site/log", public, every=False)
        reader.read([data])
        reader.finish()

    def event(data: bytes) -> object:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return events.read(value)

    def follow(data: bytes) -> object:
        return rotation.open_note(_text(data), [rotation.Segment(0, public)], "site/log")

    def key_set(data: bytes) -> object:
        return keys.PublicKeys.from_json(canonical.decode(data, where="keys"))

    return {
        "note": Target(note.parse, (signed.encode(),)),
        "note as text": Target(lambda data: note.parse(_text(data)), (signed.encode(),)),
        "checkpoint": Target(
            lambda data: note.parse_checkpoint(note.parse(data)), (signed.encode(),)
        ),
        "signed checkpoint": Target(follow, (signed.encode(),)),
        "signature": Target(
            lambda data: note.parse_signature(_text(data)), (str(line).encode(), str(seen).encode())
        ),
        "verifier key": Target(lambda data: note.parse_key(_text(data)), (public.log.encode(),)),
        "public keys": Target(key_set, (canonical.encode(public.to_json()),)),
        "entries": Target(lambda data: tiles.unpack(data, 3), (tiles.pack([b"a", b"", entry]),)),
        "hashes": Target(lambda data: tiles.split(data, 3), (bytes(96),)),
        "inclusion proof": Target(inclusion, (b"".join(tree.inclusion(3, 7)),)),
        "consistency proof": Target(consistency, (b"".join(tree.consistency(3, 7)),)),
        "envelope": Target(lambda data: dsse.parse(data).statement, (entry,)),
        "entry": Target(read_entry, (entry,)),
        "canonical": Target(lambda data: canonical.decode(data, where="it"), (manifest,)),
        "event": Target(event, (canonical.encode(statement),)),
        "policy": Target(policy.parse, (rule.encode(), b"quorum none\n")),
        "receipt": Target(receipt.parse, (str(proof).encode(),)),
        "witness request": Target(witness.parse_request, (request.encode(),)),
        "manifest": Target(_manifest, (manifest,)),
        "archive": Target(_unpack, (packed.getvalue(),)),
        "disclosure": Target(lambda data: disclosures.parse(_text(data)), (shown,)),
    }
