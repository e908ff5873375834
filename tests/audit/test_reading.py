"""Long logs are read quickly, in little memory, and no less carefully."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import blocks, bundle, canonical, dsse, events, kinds, merkle, reading, shape
from audit import verify_log as logs
from audit.errors import AuditError, LogDamaged
from audit.evidence import Collector
from audit.fields import Count, OneOf, Pattern

ACCESS = {
    "adapter_digest": canonical.digest(b"a"),
    "route": "chat",
    "outcome": "answered",
    "caller_commitment": canonical.digest(b"c"),
}


@pytest.fixture
def busy(federate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A federation whose first site also served 600 requests, read as if that were many."""
    monkeypatch.setattr(reading, "EACH", 10)
    monkeypatch.setattr(logs, "EACH", 10)
    played = federate(tmp_path, names=("alpha", "beta"), rounds=1).play()
    for _ in range(600):
        played.sites["alpha"].log.append("serving-access", ACCESS)
    played.sites["alpha"].witnessed_by(played.coordinator)
    return played


def test_a_long_log_holds_and_says_what_was_signed_through_the_chain(busy: Any, judge: Any) -> None:
    folder = busy.bundle()
    found = judge(folder)
    assert found.ok, found.faults
    assert any("600 entries of alpha are signed through" in text for text in found.notices)
    every = judge(folder, every=True)
    assert every.ok
    assert not any("signed through" in text for text in every.notices)


def test_no_check_reads_the_entry_of_each_request_again(
    busy: Any, judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each such reading costs a file of 256 entries: over a long log, minutes."""
    again: list[int] = []
    event = logs._Files.event

    def counted(self: Any, index: int, tree: Any) -> Any:
        again.append(index)
        return event(self, index, tree)

    monkeypatch.setattr(logs._Files, "event", counted)
    assert judge(busy.bundle()).ok
    assert again == []


def _forge(busy: Any, where: int, judge: Any, **more: Any) -> set[tuple[str, str]]:
    """Put another signature into one entry and let the log key sign what comes of it."""
    site, form = busy.sites["alpha"], dsse.FORM
    journal = site.log._journal
    with journal.write() as db:
        rows = [bytes(row[0]) for row in db.execute("SELECT body FROM entries ORDER BY seq")]
        envelope = dsse.parse(rows[where])
        rows[where] = form % (
            base64.b64encode(envelope.payload), dsse.PAYLOAD_TYPE.encode(),
            envelope.keyid.encode(), base64.b64encode(bytes(64)),
        )  # fmt: skip
        db.execute("DROP TRIGGER entries_stay")
        db.execute("UPDATE entries SET body = ? WHERE seq = ?", (rows[where], where))
        db.execute("DROP TRIGGER checkpoints_remain")
        db.execute("DELETE FROM checkpoints")
        db.execute("DELETE FROM cosignatures")
    site.log._tree.cut(0)
    (site.log.folder / "checkpoint").unlink()
    for path in sorted((site.log.folder / "tile").rglob("*")):
        if path.is_file():
            path.unlink()
    site.log.checkpoint()
    return {(f.layer, f.code) for f in judge(busy.bundle(f"forged{where}"), **more).faults}


def test_who_has_only_the_log_key_cannot_forge_the_last_entry(busy: Any, judge: Any) -> None:
    assert ("bytes", "bad-signature") in _forge(busy, busy.sites["alpha"].log.size - 1, judge)


def test_who_has_only_the_log_key_cannot_forge_in_the_middle(busy: Any, judge: Any) -> None:
    last = busy.sites["alpha"].log.size - 1
    assert ("completeness", "prev-broken") in _forge(busy, last - 300, judge)


def test_every_signature_is_checked_when_asked(busy: Any, judge: Any) -> None:
    last = busy.sites["alpha"].log.size - 1
    assert ("bytes", "bad-signature") in _forge(busy, last - 300, judge, every=True)


def test_a_signature_before_a_careful_entry_with_a_broken_link_is_checked(busy: Any) -> None:
    keys = busy.sites["alpha"].keys
    reader = reading.Reader("alpha/log", keys.public(), every=False)

    def entry(kind: str, fields: dict[str, Any], seq: int, prev: bytes, key: Any) -> bytes:
        built = events.statement(
            kind, fields, emitter="alpha", origin="alpha/log", seq=seq,
            prev="sha256:" + prev.hex(), time=datetime.now(UTC),
        )  # fmt: skip
        return dsse.seal(canonical.encode(built), key)

    start = {"origin": "alpha/log", "software": "x", "keys": keys.public().to_json()}
    first = entry("log-started", start, 0, merkle.EMPTY_ROOT, keys.event)
    forged = entry("serving-access", ACCESS, 1, merkle.leaf_hash(first), keys.event)
    forged = forged[:-20] + (b"A" if forged[-20:-19] != b"A" else b"B") + forged[-19:]
    ran = {"bundle_digest": canonical.digest(b""), "verdict": "ok"}
    reader.read([first, forged, entry("verifier-run", ran, 2, bytes(32), keys.event)])
    assert [wrong.code for wrong in reader.chain] == ["prev-broken"]
    assert [(wrong.index, wrong.code) for wrong in reader.bytes_] == [(1, "bad-signature")]


def test_a_bundle_that_changes_while_it_is_read_is_noticed(busy: Any) -> None:
    folder = busy.bundle()
    opened = bundle.read(folder)
    source = opened.sites["alpha"]
    found = Collector()
    view = logs.read(opened, "sites/alpha", source, [], found)
    assert view is not None
    assert not found.faults
    index = next(index for index, _ in view.events.of("serving-access"))
    assert view.events[index].fields == ACCESS
    for name in ("000", "001"):
        path = folder / "sites/alpha/tile/entries" / name
        data = bytearray(path.read_bytes())
        data[-400] ^= 1
        path.write_bytes(bytes(data))
    with pytest.raises(LogDamaged, match="changed while"):
        view.events[511]  # of a block that is not in memory
    with pytest.raises(LogDamaged, match="changed while"):
        view.tree.inclusion(300, view.tree.size)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 1300), st.data())
def test_a_block_tree_gives_what_a_whole_tree_gives(size: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(number.to_bytes(2, "big")) for number in range(size)]
    whole = merkle.Tree(leaves)
    tree = blocks.BlockTree(lambda block: leaves[block * 256 : block * 256 + 256])
    for start in range(0, size, 256):
        tree.extend(leaves[start : start + 256])
    old = data.draw(st.integers(0, size))
    index = data.draw(st.integers(0, size - 1))
    assert (tree.size, tree.root(), tree.root(old)) == (size, whole.root(), whole.root(old))
    assert tree.leaf(index) == leaves[index]
    assert tree.inclusion(index, size) == whole.inclusion(index, size)
    assert tree.consistency(old, size) == whole.consistency(old, size)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60))
def test_a_tree_that_was_cut_is_the_tree_of_fewer_leaves(size: int, kept: int) -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(size)]
    tree = merkle.Tree(leaves)
    kept = min(kept, size)
    tree.cut(kept)
    assert (tree.size, tree.root()) == (kept, merkle.Tree(leaves[:kept]).root())
    for leaf in leaves[kept:]:
        tree.append(leaf)
    assert tree.root() == merkle.Tree(leaves).root()


def _values(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    table = kinds.KINDS[kind]
    return st.fixed_dictionaries(
        {name: _value(item) for name, item in table.required.items()},
        optional={name: _value(item) for name, item in table.optional.items()},
    )


def _value(item: object) -> st.SearchStrategy[Any]:
    if isinstance(item, Count):
        return st.integers(0, 2**53 - 1) | st.integers(0, 300)
    if isinstance(item, OneOf):
        return st.sampled_from(item.words)
    assert isinstance(item, Pattern)
    plain = st.from_regex(item.pattern, fullmatch=True).filter(lambda text: len(text) <= item.most)
    return plain


FLAT = sorted(shape.payloads("alpha", "alpha/log"))


@pytest.mark.parametrize("kind", FLAT)
@settings(deadline=None, max_examples=6)
@given(data=st.data())
def test_the_quick_form_admits_what_the_careful_way_admits_and_nothing_else(
    kind: str, data: st.DataObject
) -> None:
    form = shape.payloads("alpha", "alpha/log")[kind]
    moment = data.draw(st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31)))
    built = events.statement(
        kind, data.draw(_values(kind)), emitter="alpha", origin="alpha/log",
        seq=data.draw(st.integers(0, 2**40)), prev=canonical.digest(b""),
        time=moment.replace(tzinfo=UTC), run="run 1", round=data.draw(st.integers(0, 9)),
    )  # fmt: skip
    payload = canonical.encode(built)
    assert shape.kind_of(payload) == kind
    big = any(isinstance(x, int) and x >= 10**15 for x in built["predicate"]["fields"].values())  # type: ignore[index,call-overload,union-attr]
    leap = (moment.month, moment.day) == (2, 29)
    assert (form.fullmatch(payload) is not None) == (not big and not leap)
    place = data.draw(st.integers(0, len(payload) - 1))
    changed = bytearray(payload)
    changed[place] = data.draw(st.integers(0, 255))
    if form.fullmatch(bytes(changed)):
        read = events.read(canonical.decode(bytes(changed), where="it"))
        assert (read.emitter, read.origin, read.kind) == ("alpha", "alpha/log", kind)


@settings(deadline=None, max_examples=300)
@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.floats() | st.integers(-(2**55), 2**55),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=12,
    )
)
def test_the_quick_way_to_write_json_gives_the_canonical_bytes(value: Any) -> None:
    import rfc8785

    try:
        expected = rfc8785.dumps(value)
    except (ValueError, TypeError):
        with pytest.raises(AuditError):
            canonical.encode(value)
        return
    assert canonical.encode(value) == expected
    with contextlib.suppress(AuditError):  # a fraction may be written as a whole beyond 2**53
        assert canonical.encode(canonical.decode(expected, where="it")) == expected
    loose = json.dumps(value).encode()
    if loose != expected:
        with pytest.raises(AuditError):
            canonical.decode(loose, where="it")


def test_an_envelope_of_the_quick_form_is_one_of_the_careful_form(busy: Any) -> None:
    keys = busy.sites["alpha"].keys
    form = shape.envelope(dsse.keyid(keys.event.public_key().public_bytes_raw()))
    for length in (1, 2, 3, 40):
        entry = dsse.seal(b"x" * length, keys.event)
        said = form.fullmatch(entry)
        assert said is not None
        assert base64.b64decode(said[1]) == b"x" * length
        for place in range(len(entry)):
            for bit in range(8):
                flipped = entry[:place] + bytes([entry[place] ^ 1 << bit]) + entry[place + 1 :]
                said = form.fullmatch(flipped)
                if said is not None and len(said[1]) % 4 == 0:
                    dsse.parse(flipped)  # raises unless it is exactly one envelope
