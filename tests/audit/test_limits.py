"""One step beyond every form and limit of what is read is refused, each by its own check."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import archive, bundle, canonical, digests, disclosures, fields, merkle, note
from audit.errors import AuditError, EventInvalid, Malformed

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
TEXT = note.Checkpoint("example.com/log", 3, bytes(32)).text
LINE = str(note.sign(TEXT, name="a", key=KEY))
BASE64 = LINE.split(" ")[2].strip()
MATERIAL = canonical.to_base64(bytes([note.ED25519]) + PUBLIC)
LEAF, OTHER = merkle.leaf_hash(b"leaf"), merkle.leaf_hash(b"other")
PAIR = merkle.node_hash(LEAF, OTHER)


def late_cosignature() -> None:
    """A cosignature whose time has its highest bit set, and that verifies all the same."""
    key = note.verifier_key("w", note.COSIGNATURE_V1, PUBLIC)
    time = 1 << 63
    signed = KEY.sign(f"cosignature/v1\ntime {time}\n{TEXT}".encode())
    line = note.Signature("w", key.id, time.to_bytes(8, "big") + signed)
    note.check_signature(TEXT, line, key)


def of_another_key() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    key = note.verifier_key("a", note.ED25519, other)
    note.check_signature(TEXT, note.parse_signature(LINE), key)


NOTES: list[tuple[Callable[[], object], str]] = [
    (lambda: note.verifier_key("a", 0x02, PUBLIC), "known type"),
    (lambda: note.verifier_key("a", note.ED25519, PUBLIC[:31]), "known type"),
    (lambda: note.parse_key("abc"), "lacks its parts"),
    (lambda: note.parse_key(f"a+00000000+{canonical.to_base64(bytes(32))}"), "wrong length"),
    (lambda: note.parse_key(f"a+00000000+{MATERIAL}"), "wrong key id"),
    (lambda: note.parse(f"{'x' * note.MAX_NOTE_BYTES}\n\n{LINE}"), "is over"),
    (lambda: note.parse(f"a\x01b\n\n{LINE}"), "control characters"),
    (lambda: note.parse(f"{TEXT}{LINE}"), "blank line"),
    (lambda: note.parse(f"\n\n{LINE}"), "blank line"),
    (lambda: note.parse(f"{TEXT}\n{LINE[:-1]}X"), "blank line"),
    (lambda: note.parse_signature(LINE[:-1]), "signature line"),
    (lambda: note.parse_signature(f"— a {BASE64} more\n"), "signature line"),
    (lambda: note.parse_signature(f"- a {BASE64}\n"), "signature line"),
    (lambda: note.parse_signature(f"— a+b {BASE64}\n"), "key name"),
    (lambda: note.parse_signature("— a AAAAAA==\n"), "too short"),
    (lambda: note.sign("no newline", name="a", key=KEY), "newline"),
    (lambda: note.cosign(TEXT, name="w", key=KEY, time=-1), "out of range"),
    (lambda: note.cosign(TEXT, name="w", key=KEY, time=1 << 63), "out of range"),
    (late_cosignature, "does not verify"),
    (of_another_key, "not by"),
]


@pytest.mark.parametrize(("act", "words"), NOTES)
def test_a_note_or_key_of_another_form_is_refused(act: Callable[[], object], words: str) -> None:
    with pytest.raises(AuditError, match=words):
        act()


PROOFS: list[Callable[[], object]] = [
    lambda: merkle.check_inclusion(LEAF, 1, 1, (), LEAF),
    lambda: merkle.check_inclusion(LEAF, -1, 1, (), LEAF),
    # Of a larger tree than the size says, and of a smaller one.
    lambda: merkle.check_inclusion(LEAF, 0, 1, (OTHER,), merkle.node_hash(OTHER, LEAF)),
    lambda: merkle.check_inclusion(LEAF, 0, 4, (OTHER,), PAIR),
    lambda: merkle.check_consistency(0, 0, (), merkle.EMPTY_ROOT, LEAF),
    lambda: merkle.check_consistency(3, 4, (), LEAF, PAIR),
    lambda: merkle.check_consistency(1, 4, (OTHER,), LEAF, PAIR),
    lambda: merkle.check_consistency(
        1, 2, (OTHER, OTHER), merkle.node_hash(OTHER, LEAF), merkle.node_hash(OTHER, PAIR)
    ),
    lambda: merkle.check_consistency(
        2, 3, (OTHER, OTHER), merkle.node_hash(OTHER, PAIR),
        merkle.node_hash(OTHER, merkle.node_hash(PAIR, OTHER)),
    ),
]  # fmt: skip


@pytest.mark.parametrize("act", PROOFS)
def test_a_proof_for_a_tree_of_another_size_is_refused(act: Callable[[], object]) -> None:
    with pytest.raises(merkle.ProofFailed):
        act()


TREES: list[Callable[[merkle.Tree], object]] = [
    lambda tree: tree.root(3),
    lambda tree: tree.root(-1),
    lambda tree: tree.leaf(2),
    lambda tree: tree.node(1, 1),
    lambda tree: tree.inclusion(0, 3),
    lambda tree: tree.consistency(1, 3),
    lambda tree: merkle.range_hash(tree.node, 1, 1),
]


@pytest.mark.parametrize("act", TREES)
def test_a_tree_answers_for_its_own_size_only(act: Callable[[merkle.Tree], object]) -> None:
    with pytest.raises(AuditError):
        act(merkle.Tree([LEAF, OTHER]))


FIELDS: list[tuple[fields.Type, object]] = [
    (fields.TEXT, "a" * 129),
    (fields.TEXT, "a\nb"),
    (fields.CODE, 1),
    (fields.OneOf(("a", "b")), "c"),
    (fields.ListOf(fields.COUNT), (0,)),
    (fields.ListOf(fields.COUNT), [0] * 4097),
    (fields.ListOf(fields.COUNT), [-1]),
    (fields.ListOf(fields.COUNT, distinct=True), [1, 1]),
    (fields.MapOf(fields.COUNT), [("a", 1)]),
    (fields.MapOf(fields.COUNT), {str(n): 1 for n in range(4097)}),
    (fields.MapOf(fields.COUNT), {"a b": 1}),
    (fields.MapOf(fields.COUNT), {"a": -1}),
    (fields.Table({}), []),
    (fields.Table({"a": fields.COUNT}), {}),
    (fields.Table({}), {"a": 1}),
    (fields.DOCUMENT, []),
    (fields.KEYS, {}),
]


@pytest.mark.parametrize(("kind", "value"), FIELDS)
def test_a_value_outside_its_type_is_refused(kind: fields.Type, value: object) -> None:
    with pytest.raises(EventInvalid):
        kind.check(value, "x")


def test_a_file_that_is_not_there_has_no_digest(tmp_path: Path) -> None:
    for digest in (digests.file_digest, digests.safetensors_digest):
        with pytest.raises(AuditError) as caught:
            digest(tmp_path / "nothing")
        assert caught.value.code == "unreadable"


def test_a_disclosure_beyond_any_size_or_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        disclosures.parse(disclosures.make("name", "v" * disclosures.MOST_BYTES).text)
    with pytest.raises(AuditError) as caught:
        disclosures.Table(tmp_path / "nowhere").commit({"name": "value"})
    assert caught.value.code == "disclosures-unavailable"


def manifest(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / bundle.MANIFEST).read_bytes())
    return value


def test_a_site_under_anothers_name_is_refused(copied: Path, sound: Any, tmp_path: Path) -> None:
    value = manifest(copied)
    value["sites"]["delta"] = value["sites"].pop("alpha")
    (copied / bundle.MANIFEST).write_bytes(canonical.encode(value))
    with pytest.raises(Malformed):
        bundle.read(copied)
    source = bundle.Source(sound.coordinator.log.folder, sound.coordinator.public)
    with pytest.raises(AuditError, match="name another party"):
        bundle.write(
            tmp_path / "out", run="r", coordinator=source, sites={"delta": source}, plan=b"{}"
        )


def test_a_party_whose_name_leaves_the_folder_is_not_written(sound: Any, tmp_path: Path) -> None:
    source = bundle.Source(sound.coordinator.log.folder, sound.coordinator.public)
    with pytest.raises(AuditError):
        bundle.write(
            tmp_path / "out", run="r", coordinator=source, sites={}, plan=b"{}",
            disclosures={"../../escaped": ["x"]},
        )  # fmt: skip
    assert not list(tmp_path.parent.glob("escaped"))


def test_a_pipe_is_not_copied_into_a_bundle(sound: Any, tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    os.mkfifo(tmp_path / "release" / "pipe")
    source = bundle.Source(sound.coordinator.log.folder, sound.coordinator.public)
    with pytest.raises(AuditError, match="not a plain file"):
        bundle.write(
            tmp_path / "out", run="r", coordinator=source, sites={}, plan=b"{}",
            release=tmp_path / "release",
        )  # fmt: skip


def test_a_link_to_a_bundle_is_no_bundle(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copied)
    with pytest.raises(AuditError) as caught:
        bundle.read(tmp_path / "link")
    assert caught.value.code == "no-bundle"


def test_a_manifest_of_too_many_files_is_refused(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_FILES", 3)
    with pytest.raises(Malformed, match="over 3 files"):
        bundle.read(copied)


def test_a_file_that_cannot_be_read_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *more: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AuditError) as caught:
        bundle.load(copied, "plan.json", most=99)
    assert caught.value.code == "unreadable"


def packed(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, data)
    return stream.getvalue()


def encrypted() -> bytes:
    data = bytearray(packed("a", b"x"))
    data[6] |= 1  # general purpose flags of the file's own header and of the directory's
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "check the path"),
        (packed("aXb", b"x").replace(b"aXb", b"a\0b"), "odd characters"),
        (encrypted(), "is encrypted"),
    ],
)
def test_a_zip_with_what_a_bundle_never_has_is_refused(
    data: bytes | None, words: str, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / "in.zip").write_bytes(data)
    (tmp_path / "out").mkdir()
    with pytest.raises(AuditError, match=words):
        archive.unpack(tmp_path / "in.zip", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_of_a_zip_stops_at_what_is_left_whatever_its_header_says(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(packed("a", b"x" * 10))) as opened:
        (item,) = opened.infolist()
        assert archive._write(opened, item, tmp_path / "a", 10) == 10
        with pytest.raises(Malformed, match="swells"):
            archive._write(opened, item, tmp_path / "b", 9)
