"""Each check of a reader refuses by itself what no check behind it would refuse."""

from __future__ import annotations

import base64
import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audit import (
    archive,
    blocks,
    bundle,
    canonical,
    disclosures,
    dsse,
    events,
    keys,
    merkle,
    note,
    reading,
    rotation,
    verify_log,
)
from audit.errors import AuditError, EventInvalid, LogDamaged, Malformed

HASHES = [merkle.leaf_hash(bytes([number])) for number in range(256)]
ACCESS = {
    "adapter_digest": canonical.digest(b"a"),
    "route": "chat",
    "outcome": "answered",
    "caller_commitment": canonical.digest(b"c"),
}


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> keys.KeyRing:
    return keys.create(tmp_path_factory.mktemp("ring"), "alpha")


def access(ring: keys.KeyRing, seq: int, prev: str, *, forged: bool = False) -> bytes:
    """A signed entry of a bulk kind, or one with a worthless signature."""
    said = events.statement(
        "serving-access", ACCESS, emitter="alpha", origin="alpha/log", seq=seq, prev=prev,
        time=datetime(2026, 1, 1, tzinfo=UTC), run="run-1",
    )  # fmt: skip
    entry = dsse.seal(canonical.encode(said), ring.event)
    if not forged:
        return entry
    signature = json.loads(entry)["signatures"][0]["sig"].encode()
    return entry.replace(signature, base64.b64encode(bytes(64)))


def test_entries_before_an_unreadable_tile_are_checked_before_it(ring: keys.KeyRing) -> None:
    """What comes behind the gap signs nothing of what came before it."""
    reader = reading.Reader("alpha/log", ring.public(), every=False)
    reader.read([access(ring, 0, "sha256:" + merkle.EMPTY_ROOT.hex(), forged=True)])
    assert reader.chained == 1
    reader.skip(1)
    reader.read([access(ring, 2, "sha256:" + "0" * 64)])
    reader.finish()
    assert [wrong.index for wrong in reader.bytes_] == [0]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_what_is_no_envelope_is_a_fault_of_its_entry(ring: keys.KeyRing, length: int) -> None:
    """Among them one whose payload has the letters of base64 and not its length."""
    entry = dsse.seal(canonical.encode({}), ring.event)
    short = json.loads(entry)
    short["payload"] = short["payload"][:length]
    reader = reading.Reader("alpha/log", ring.public(), every=True)
    reader.read([b"no envelope", canonical.encode(short)])
    assert [wrong.index for wrong in reader.bytes_] == [0, 1]


def test_keys_of_another_name_are_not_handed_over_to(tmp_path: Path, ring: keys.KeyRing) -> None:
    new = keys.create(tmp_path, "beta")
    text = rotation.text("alpha/log", 5, new.public())
    lines = tuple(note.sign(text, name=f"{party.name}/log", key=party.log) for party in (ring, new))
    made = events.statement(
        "key-rotated",
        {"keys": new.public().to_json(), "note": str(note.Note(text, lines)), "reason": "planned"},
        emitter="alpha", origin="alpha/log", seq=5, prev=canonical.digest(b""),
        time=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    with pytest.raises(Malformed, match="other keys"):
        rotation.follow(events.read(made), ring.public())


def test_one_leaf_does_not_pass_for_the_block_whose_root_it_is() -> None:
    fetched = [HASHES]
    tree = blocks.BlockTree(lambda index: fetched[0])
    tree.extend(HASHES)
    fetched[0] = [tree.root()]
    with pytest.raises(LogDamaged):
        tree.node(0, 0)


def test_a_tree_is_cut_to_what_it_has_only() -> None:
    for size in (3, -1):
        with pytest.raises(AuditError):
            merkle.Tree(HASHES[:2]).cut(size)


def test_a_consistency_proof_that_goes_on_above_both_roots_is_refused() -> None:
    """It ends at roots of larger trees, and both of them fit."""
    first, second, third, extra = HASHES[:4]
    older = merkle.node_hash(extra, merkle.node_hash(third, first))
    newer = merkle.node_hash(extra, merkle.node_hash(third, merkle.node_hash(first, second)))
    with pytest.raises(merkle.ProofFailed):
        merkle.check_consistency(3, 4, (first, second, third, extra), older, newer)


@pytest.mark.parametrize("data", [b"1152921504606846976", b"[-9007199254740993]"])
def test_a_whole_number_that_is_not_exact_everywhere_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        canonical.decode(data, where="it")


def test_a_disclosure_has_one_spelling() -> None:
    """The last letter's unused bits are no second way to write the same value."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    salted = disclosures.make("name", "value").text
    assert len(salted) % 4 != 0
    other = salted[:-1] + letters[letters.index(salted[-1]) + 1]
    assert base64.urlsafe_b64decode(other + "==") == base64.urlsafe_b64decode(salted + "==")
    with pytest.raises(Malformed):
        disclosures.parse(other)


def test_a_statement_without_fields_is_refused(ring: keys.KeyRing) -> None:
    said: Any = events.statement(
        "serving-access", ACCESS, emitter="alpha", origin="alpha/log", seq=0,
        prev=canonical.digest(b""), time=datetime(2026, 1, 1, tzinfo=UTC), run="run-1",
    )  # fmt: skip
    del said["predicate"]["fields"]
    with pytest.raises(EventInvalid, match="has no fields"):
        events.read(said)


def test_files_are_added_to_a_bundle_below_it_or_not_at_all(copied: Path) -> None:
    with pytest.raises(Malformed):
        bundle.add(copied, {"../beside": b"x"})
    assert not (copied.parent / "beside").exists()
    with pytest.raises(AuditError) as caught:
        bundle.add(copied, {f"{bundle.PLAN}/below": b"x"})
    assert (caught.value.code, caught.value.exit_code) == ("unwritable", 2)


def test_a_file_is_read_from_inside_a_bundle_or_not_at_all(copied: Path) -> None:
    (copied.parent / "beside").write_bytes(b"x")
    for name, code in (("../beside", "path-escape"), ("absent", "missing-file")):
        with pytest.raises(AuditError) as caught:
            bundle.load(copied, name, most=9)
        assert caught.value.code == code


@pytest.mark.parametrize("digest", [7, None, ["sha256:" + "0" * 64]])
def test_a_digest_in_a_manifest_is_text(copied: Path, digest: Any) -> None:
    manifest = json.loads((copied / bundle.MANIFEST).read_bytes())
    manifest["files"][bundle.PLAN] = digest
    (copied / bundle.MANIFEST).write_bytes(canonical.encode(manifest))
    with pytest.raises(Malformed):
        bundle.read(copied)


def test_what_is_neither_file_nor_link_is_not_packed(copied: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(copied / "socket"))
        with pytest.raises(AuditError, match="not a plain file"):
            archive.pack(copied, tmp_path / "out.zip")


@pytest.mark.parametrize("value", [5, {"salt": "name"}, ["s", "n"], ["s", "n", 3], ["s"] * 4])
def test_a_disclosure_is_three_texts(value: Any) -> None:
    text = base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    with pytest.raises(Malformed):
        disclosures.parse(text)


def test_an_entry_that_is_read_again_is_the_one_that_was_hashed(
    ring: keys.KeyRing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where the file holds another sound entry by then."""
    first, other = (access(ring, 0, "sha256:" + mark * 64) for mark in "01")
    source = bundle.Source(tmp_path, ring.public())
    held = bundle.Bundle(tmp_path, "run-1", source, {}, {}, "sha256:" + "0" * 64)
    files = verify_log._Files(held, "logs/alpha", 1)
    tree = merkle.Tree([merkle.leaf_hash(first)])
    monkeypatch.setattr(files, "entries", lambda tile: [first])
    assert files.event(0, tree).seq == 0
    files._held = (0, [other])
    with pytest.raises(LogDamaged, match="changed"):
        files.event(0, tree)
