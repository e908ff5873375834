"""The verifier follows a party's keys over time, and rejects what a key signs outside its time."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit import canonical, dsse, events, keys, merkle, note, reading, rotation
from audit.errors import AuditError, BadSignature

RAN = {"bundle_digest": "sha256:" + "0" * 64, "verdict": "ok"}
DAY = timedelta(days=1)


def codes(findings: Any) -> set[tuple[str, str]]:
    return {(fault.layer, fault.code) for fault in findings.faults}


def rotate(party: Any, **more: Any) -> None:
    """Rotate a party's keys in the middle of its life."""
    place = party.folder / f"keys-{party.log.size}"
    new = keys.create(place, party.name)
    party.log.rotate(new, reason="scheduled", **more)
    party.keys = new
    party.witness = type(party.witness)(place / "witness.sqlite", new)


def rotating(federate: Any, *who: str) -> Any:
    """A federation whose named parties rotate their keys between the rounds."""

    class Rotating(federate):  # type: ignore[misc]
        def play_round(self, turn: int, adapter: str) -> str:
            for name in who if turn else ():
                rotate(self.coordinator if name == "hub" else self.sites[name])
            return str(super().play_round(turn, adapter))

    return Rotating


@pytest.mark.parametrize("who", [("alpha",), ("hub",), ("alpha", "beta", "gamma", "hub")])
def test_a_run_in_which_keys_were_rotated_holds(
    federate: Any, judge: Any, tmp_path: Path, who: tuple[str, ...]
) -> None:
    played = rotating(federate, *who)(tmp_path)
    first = {party.name: party.public.log for party in (played.coordinator, *played.sites.values())}
    early = played.coordinator.log.checkpoint()
    folder = played.play().bundle()
    found = judge(folder)
    assert found.ok, found.faults
    pinned = judge(folder, trust=first, against=early)
    assert pinned.ok
    assert all(signer.pinned for signer in pinned.signers)
    thief = keys.create(tmp_path / "thief", who[0]).public().log
    assert ("bytes", "untrusted-key") in codes(judge(folder, trust={who[0]: thief}))


def test_cosignatures_of_before_a_rotation_still_count(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    played = federate(tmp_path).play()
    rotate(played.sites["alpha"])
    played.sites["alpha"].log.checkpoint()
    found = judge(played.bundle())
    assert found.ok
    assert "alpha" in next(s for s in found.signers if s.name == "hub").cosigned_by


def test_a_bundle_that_states_keys_which_were_rotated_away_is_faulty(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    played = federate(tmp_path).play()
    site = played.sites["alpha"]
    old = site.keys
    rotate(site)
    size, root = site.log.size, site.log.root(site.log.size)
    stated = note.Checkpoint("alpha/log", size, root)
    line = note.sign(stated.text, name="alpha/log", key=old.log)
    site.log.checkpoint()
    (site.log.folder / "checkpoint").write_text(str(note.Note(stated.text, (line,))))
    site.keys = old
    assert codes(judge(played.bundle())) >= {("bytes", "wrong-keys")}


def reader(ring: keys.KeyRing, every: bool = True) -> reading.Reader:
    return reading.Reader("site/log", ring.public(), every)


class Chain:
    """Entries of a log as its owner, or a thief of a key, would write them."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def add(self, kind: str, fields: dict[str, Any], key: Any) -> Chain:
        before = merkle.leaf_hash(self.entries[-1]) if self.entries else merkle.EMPTY_ROOT
        built = events.statement(
            kind, fields, emitter="site", origin="site/log", seq=len(self.entries),
            prev="sha256:" + before.hex(), time=self.time,
        )  # fmt: skip
        self.entries.append(dsse.seal(canonical.encode(built), key))
        return self

    def start(self, ring: keys.KeyRing, **more: Any) -> Chain:
        fields = {"origin": "site/log", "software": "x", "keys": ring.public().to_json(), **more}
        return self.add("log-started", fields, ring.event)

    def rotate(self, old: keys.KeyRing, new: keys.KeyRing, **more: Any) -> Chain:
        handed = rotation.handover("site/log", len(self.entries), old, new)
        fields = {"keys": new.public().to_json(), "reason": "scheduled", "note": handed, **more}
        return self.add("key-rotated", fields, old.event)

    def wrong(self, ring: keys.KeyRing) -> list[tuple[int, str]]:
        read = reader(ring)
        read.read(self.entries)
        read.finish()
        assert not read.chain
        return [(wrong.index, wrong.code) for wrong in read.bytes_]


@pytest.fixture
def rings(tmp_path: Path) -> list[keys.KeyRing]:
    return [keys.create(tmp_path / str(number), "site") for number in range(3)]


def test_entries_of_a_rotated_key_are_rejected(rings: list[keys.KeyRing]) -> None:
    old, new, thief = rings
    good = Chain().start(old).rotate(old, new).add("verifier-run", RAN, new.event)
    assert good.wrong(old) == []
    late = good.add("verifier-run", RAN, old.event)
    assert late.wrong(old) == [(3, "bad-signature")]
    stolen = Chain().start(old).rotate(thief, new)
    assert stolen.wrong(old) == [(1, "bad-signature")]
    half = Chain().start(old)
    handed = rotation.handover("site/log", 1, thief, new)
    fields = {"keys": new.public().to_json(), "reason": "x", "note": handed}
    half.add("key-rotated", fields, old.event)
    assert [code for _, code in half.wrong(old)] == ["not-signed"]


def test_an_expired_key_is_named(rings: list[keys.KeyRing]) -> None:
    old, new, _ = rings
    chain = Chain()
    end = events.timestamp(chain.time + DAY)
    chain.start(old, keys_expire=end).add("verifier-run", RAN, old.event)
    chain.time += DAY
    assert chain.add("verifier-run", RAN, old.event).wrong(old) == []
    chain.time += timedelta(microseconds=1)
    assert chain.add("verifier-run", RAN, old.event).wrong(old) == [(3, "expired-key")]
    renewed = Chain().start(old, keys_expire=end)
    renewed.rotate(old, new, keys_expire=events.timestamp(renewed.time + 2 * DAY))
    renewed.time += 2 * DAY
    assert renewed.add("verifier-run", RAN, new.event).wrong(old) == []
    renewed.time += DAY
    assert renewed.add("verifier-run", RAN, new.event).wrong(old) == [(3, "expired-key")]


def test_a_witness_who_saw_a_checkpoint_after_expiry_convicts_a_clock_set_back(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    played = federate(tmp_path).play()
    site = played.sites["alpha"]
    past = datetime.now(UTC) - timedelta(days=400)
    site.log._now = lambda: past
    rotate(site, expires=past + DAY)
    site.log.append("verifier-run", RAN)
    site.witnessed_by(played.coordinator)
    assert codes(judge(played.bundle())) == {("bytes", "expired-key")}


def test_what_a_revoked_key_signed_beyond_its_size_is_rejected(rings: list[keys.KeyRing]) -> None:
    old, new, _ = rings

    def revoked(size: int, key: keys.KeyRing = old, extra: int = 2) -> list[tuple[int, str]]:
        chain = Chain().start(old)
        for _ in range(extra):
            chain.add("verifier-run", RAN, old.event)
        chain.rotate(old, new)
        fields = {"log_key": key.public().log, "size": size, "reason": "compromised"}
        return chain.add("key-revoked", fields, new.event).wrong(old)

    assert revoked(3) == []
    assert revoked(2) == [(2, "revoked-key")]
    assert revoked(0) == [(0, "revoked-key")]
    assert revoked(9) == [(4, "bad-revocation")]
    assert revoked(3, key=new) == [(4, "bad-revocation")]


def test_a_checkpoint_signed_outside_a_keys_time_is_named(rings: list[keys.KeyRing]) -> None:
    old, new, thief = rings
    history = [rotation.Segment(0, old.public()), rotation.Segment(5, new.public())]

    def open_note(size: int, ring: keys.KeyRing, origin: str = "site/log") -> str:
        stated = note.Checkpoint(origin, size, bytes(32))
        line = note.sign(stated.text, name="site/log", key=ring.log)
        try:
            rotation.open_note(str(note.Note(stated.text, (line,))), history, "site/log")
        except AuditError as error:
            return error.code
        return "good"

    assert [open_note(size, old) for size in (1, 4, 5, 9)] == ["good"] * 2 + ["retired-key"] * 2
    assert [open_note(size, new) for size in (4, 5, 9)] == ["retired-key", "good", "good"]
    assert open_note(4, thief) == BadSignature("x", code="not-signed").code
    assert open_note(4, old, origin="other/log") == "wrong-origin"


def test_the_first_keys_of_a_log_are_read_without_trust(rings: list[keys.KeyRing]) -> None:
    old, _, _ = rings
    assert reading.first_keys(Chain().start(old).entries[0]) == old.public()
    assert reading.first_keys(b"nonsense") is None
    ran = Chain().add("verifier-run", RAN, old.event).entries[0]
    assert reading.first_keys(ran) is None
    assert base64.b64encode(ran)
