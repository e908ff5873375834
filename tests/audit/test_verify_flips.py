"""Every single-bit flip is found, even when the manifest is made to fit again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit import bundle, canonical, digests, note, verify_bytes, verify_log
from audit.errors import AuditError
from audit.evidence import Collector

SMALL_BYTES = 1024
SAMPLE = 80


@pytest.fixture(scope="module")
def tiny(federate: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one institution and one round."""
    root = tmp_path_factory.mktemp("tiny")
    return Path(federate(root, names=("alpha",), rounds=1, quorum=1).play().bundle())


def flips(data: bytes) -> Iterator[bytes]:
    """Bits 0 and 7 of every byte, or of a fixed sample of them where there are many."""
    places = range(len(data))
    chosen = places if len(data) <= SMALL_BYTES else random.Random(7).sample(places, SAMPLE)
    for place in chosen:
        for bit in (0, 7):
            yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def test_every_file_of_a_bundle_is_covered_by_the_manifest(tiny: Path) -> None:
    read = bundle.read(tiny)
    assert set(bundle.walk(tiny)) == {*read.files, bundle.MANIFEST}
    for name, digest in read.files.items():
        data = (tiny / name).read_bytes()
        assert digests.file_digest(tiny / name) == digest
        assert all(canonical.digest(flipped) != digest for flipped in flips(data))


def test_every_flip_in_a_log_is_found_below_the_manifest(tiny: Path, tmp_path: Path) -> None:
    """Signatures and the Merkle tree find it, not only the list of files."""
    folder = Path(shutil.copytree(tiny, tmp_path / "bundle"))
    read = bundle.read(folder)
    witnesses = [
        note.parse_key(source.keys.witness) for source in (read.coordinator, *read.sites.values())
    ]
    tried = 0
    for where, source in (("coordinator", read.coordinator), ("sites/alpha", read.sites["alpha"])):
        sound = Collector()
        whole = verify_log.read(read, where, source, witnesses, sound)
        assert whole is not None
        assert not sound.faults
        for name in [name for name in read.files if name.startswith(f"{where}/")]:
            data = (folder / name).read_bytes()
            for flipped in flips(data):
                (folder / name).write_bytes(flipped)
                found = Collector()
                view = verify_log.read(read, where, source, witnesses, found)
                # A line whose name or key id changed is by nobody we know: one witness fewer.
                lost = view is not None and view.cosigned_by != whole.cosigned_by
                assert found.faults or lost, name
                tried += 1
            (folder / name).write_bytes(data)
    assert tried > 1000


def test_every_flip_in_the_manifest_is_found(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "bundle"))
    data = (folder / bundle.MANIFEST).read_bytes()
    run = data.index(b'"run":')
    for flipped in flips(data):
        (folder / bundle.MANIFEST).write_bytes(flipped)
        found = Collector()
        try:
            opened = bundle.read(folder)
        except AuditError:
            continue
        evidence = verify_bytes.check(opened, found, trust={}, against=None)
        in_run = flipped[:run] == data[:run] and flipped[run + 16 :] == data[run + 16 :]
        # Another run's name is no damage to the bytes; completeness finds no such run.
        assert found.faults or (in_run and evidence is not None and evidence.started is None)
