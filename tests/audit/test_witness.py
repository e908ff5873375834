from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from audit import keys, log, merkle, note, witness
from audit.errors import AuditError, BadSignature, InconsistentLog, Malformed, StaleRequest

ZERO = "sha256:" + "0" * 64


def append(writing: log.Log, text: str = "0") -> None:
    writing.append("release-received", {"release_digest": "sha256:" + text * 64}, run="r")


class Pair:
    """A log, a fork of it with the same keys, and a witness."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.ring = keys.create(folder / "alpha", "alpha")
        self.hub = keys.create(folder / "hub", "hub")
        self.log = log.Log.create(folder / "log", keys=self.ring)
        self.fork = log.Log.create(folder / "fork", keys=self.ring)
        self.witness = witness.Witness(folder / "w.sqlite", self.hub)
        self.key = self.ring.public().log

    def ask(self, asked: log.Log, old: int) -> str:
        body = witness.request(asked, old)
        return self.witness.cosign_request(body, log_key=self.key, origin="alpha/log")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_a_growing_log_is_cosigned_and_remembered(pair: Pair) -> None:
    for size in (1, 2, 3, 7):
        while pair.log.size < size:
            append(pair.log)
        last = pair.witness.last("alpha/log")
        line = pair.ask(pair.log, 0 if last is None else last[0])
        assert pair.log.add_cosignature(line, witness=pair.hub.public().witness) == size
        assert pair.witness.last("alpha/log") == (size, pair.log.root(size))
    assert pair.witness.last("other") is None


def test_the_same_checkpoint_may_be_cosigned_again(pair: Pair) -> None:
    assert pair.ask(pair.log, 0).split()[1] == pair.ask(pair.log, 1).split()[1]


def test_a_request_body_is_that_of_the_specification(pair: Pair) -> None:
    for _ in range(5):
        append(pair.log)
    body = witness.request(pair.log, 3)
    lines = body.decode().split("\n")
    count = len(pair.log.consistency(3, 6))
    assert lines[0] == "old 3"
    assert lines[1 + count] == ""
    assert "\n".join(lines[2 + count :]) == pair.log.checkpoint()
    asked = witness.parse_request(body)
    assert (asked.old_size, asked.proof) == (3, pair.log.consistency(3, 6))


def test_a_fork_is_refused_and_both_notes_are_kept(pair: Pair) -> None:
    append(pair.log)
    pair.ask(pair.log, 0)
    append(pair.fork, "1")
    append(pair.fork, "2")
    with pytest.raises(InconsistentLog) as caught:
        pair.ask(pair.fork, 2)
    assert caught.value.code == "log-forked"
    assert (caught.value.older, caught.value.newer) == (
        pair.log.checkpoint(),
        pair.fork.checkpoint(),
    )
    ((origin, older, newer),) = pair.witness.contradictions()
    assert (origin, older, newer) == ("alpha/log", caught.value.older, caught.value.newer)
    key = note.parse_key(pair.key)
    assert note.open_checkpoint(older, key=key, origin=origin).root != (
        note.open_checkpoint(newer, key=key, origin=origin).root
    )


def test_another_root_of_the_same_size_is_refused(pair: Pair) -> None:
    append(pair.log)
    append(pair.fork, "1")
    pair.ask(pair.log, 0)
    with pytest.raises(InconsistentLog):
        pair.ask(pair.fork, 2)


def test_a_rolled_back_log_is_refused_and_named(pair: Pair) -> None:
    append(pair.log)
    short = pair.log.note_for(1)
    pair.ask(pair.log, 0)
    with pytest.raises(InconsistentLog) as caught:
        pair.witness.cosign(short, old_size=0, proof=(), log_key=pair.key)
    assert caught.value.code == "log-rolled-back"
    assert pair.witness.last("alpha/log") == (2, pair.log.root(2))


def test_a_request_from_another_size_is_answered_with_the_right_one(pair: Pair) -> None:
    append(pair.log)
    pair.ask(pair.log, 0)
    append(pair.log)
    with pytest.raises(StaleRequest) as caught:
        pair.ask(pair.log, 1)
    assert caught.value.size == 2
    pair.ask(pair.log, caught.value.size)


def test_a_new_witness_asks_for_a_proof_from_zero(pair: Pair) -> None:
    append(pair.log)
    with pytest.raises(StaleRequest) as caught:
        pair.ask(pair.log, 1)
    assert caught.value.size == 0


def test_a_checkpoint_by_another_key_or_origin_is_refused(pair: Pair) -> None:
    body = witness.request(pair.log, 0)
    with pytest.raises(BadSignature):
        pair.witness.cosign_request(body, log_key=pair.hub.public().log)
    with pytest.raises(Malformed):
        pair.witness.cosign_request(body, log_key=pair.key, origin="beta/log")
    assert pair.witness.last("alpha/log") is None


def test_memory_survives_and_is_shared_by_two_handles(pair: Pair) -> None:
    pair.ask(pair.log, 0)
    again = witness.Witness(pair.folder / "w.sqlite", pair.hub)
    assert again.last("alpha/log") == pair.witness.last("alpha/log")
    append(pair.log)
    again.cosign_request(witness.request(pair.log, 1), log_key=pair.key)
    with pytest.raises(InconsistentLog):
        pair.witness.cosign(pair.log.note_for(1), old_size=1, proof=(), log_key=pair.key)


def test_a_clock_that_went_back_signs_nothing(pair: Pair) -> None:
    pair.ask(pair.log, 0)
    past = lambda: datetime.now(UTC) - timedelta(hours=1)  # noqa: E731
    late = witness.Witness(pair.folder / "w.sqlite", pair.hub, now=past)
    append(pair.log)
    with pytest.raises(AuditError) as caught:
        late.cosign_request(witness.request(pair.log, 1), log_key=pair.key)
    assert caught.value.code == "clock-went-back"
    assert pair.witness.last("alpha/log") == (1, pair.log.root(1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 1",
        b"old 01\n\nx",
        b"old -1\n\nx",
        b"old\n\nx",
        b"1\n\nx",
        b"old 1\nAAA\n\nx",
        b"old 1\n" + b"AAAA\n" * 64 + b"\nx",
        b"\xff\n\n",
        b"old 0\n\nno note",
    ],
)
def test_bodies_of_another_form_are_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        witness.parse_request(body)


def test_a_proof_with_short_hashes_is_refused(pair: Pair) -> None:
    append(pair.log)
    pair.ask(pair.log, 0)
    append(pair.log)
    with pytest.raises((InconsistentLog, merkle.ProofFailed)):
        pair.witness.cosign(pair.log.checkpoint(), old_size=2, proof=(b"short",), log_key=pair.key)
