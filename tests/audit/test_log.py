from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audit import keys, log, merkle, note, tiles
from audit.errors import AuditError, BadSignature, EventInvalid, LogDamaged

ZERO = "sha256:" + "0" * 64
ROOT = Path(__file__).parents[2]
WRITER = """
import sys
import time
from pathlib import Path
from audit import keys, log
folder = Path(sys.argv[1])
writing = log.Log.open(folder / "log", keys=keys.load(folder / "keys"))
fields = {"release_digest": "sha256:" + "0" * 64}
for turn in range(int(sys.argv[2])):
    receipt = writing.append("release-received", fields, run="r")
    print(receipt.index, receipt.leaf.hex(), flush=True)
    time.sleep(0.002)  # SQLite's lock is not fair: leave the other writer a turn
    if turn % 7 == 6:
        writing.checkpoint()
"""


def append(writing: log.Log, count: int = 1) -> None:
    for _ in range(count):
        writing.append("release-received", {"release_digest": ZERO}, run="r")


@pytest.fixture
def ring(tmp_path: Path) -> keys.KeyRing:
    return keys.create(tmp_path / "keys", "alpha")


@pytest.fixture
def made(tmp_path: Path, ring: keys.KeyRing) -> log.Log:
    return log.Log.create(tmp_path / "log", keys=ring)


def writer(folder: Path, count: int, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(folder), str(count)]
    with output.open("wb") as stream:
        return subprocess.Popen(command, cwd=ROOT, stdout=stream)


def acknowledged(output: str) -> dict[int, str]:
    lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
    return {int(index): leaf for index, leaf in lines}


def test_a_log_begins_by_naming_itself_and_its_keys(made: log.Log, ring: keys.KeyRing) -> None:
    (first,) = made.entries()
    assert first.event.kind == "log-started"
    assert first.event.fields["keys"] == ring.public().to_json()
    with pytest.raises(EventInvalid):
        made.append("log-started", dict(first.event.fields))


def test_entries_count_and_name_the_entry_before(made: log.Log) -> None:
    append(made, 3)
    read = [entry.event for entry in made.entries()]
    assert [event.seq for event in read] == [0, 1, 2, 3]
    for index in range(1, 4):
        leaf = merkle.leaf_hash(made.entry(index - 1)).hex()
        assert read[index].prev == f"sha256:{leaf}"


def test_a_checkpoint_is_signed_and_its_tiles_hold_every_entry(
    made: log.Log, ring: keys.KeyRing
) -> None:
    append(made, 300)
    text = made.checkpoint()
    key = note.parse_key(ring.public().log)
    stated = note.open_checkpoint(text, key=key, origin="alpha/log")
    assert stated.size == 301
    entries = []
    for tile in tiles.needed(301):
        data = (made.folder / tile.path).read_bytes()
        if tile.level == tiles.ENTRIES:
            entries += tiles.unpack(data, tile.width)
    assert merkle.Tree(map(merkle.leaf_hash, entries)).root() == stated.root
    assert (made.folder / "checkpoint").read_text() == text


def test_proofs_of_a_log_hold(made: log.Log) -> None:
    append(made, 9)
    leaf = merkle.leaf_hash(made.entry(4))
    merkle.check_inclusion(leaf, 4, 10, made.inclusion(4, 10), made.root(10))
    merkle.check_consistency(6, 10, made.consistency(6, 10), made.root(6), made.root(10))


def test_an_earlier_size_gets_a_note_of_its_own(made: log.Log, ring: keys.KeyRing) -> None:
    append(made, 5)
    key = note.parse_key(ring.public().log)
    stated = note.open_checkpoint(made.note_for(3), key=key, origin=None)
    assert (stated.size, stated.root) == (3, made.root(3))
    with pytest.raises(AuditError):
        made.note_for(7)


def test_filters_choose_by_kind_and_run(made: log.Log) -> None:
    append(made, 2)
    made.append("release-received", {"release_digest": ZERO}, run="other")
    assert [e.index for e in made.entries("release-received", "r")] == [1, 2]
    assert [e.index for e in made.entries(run="other")] == [3]


def test_a_refused_event_leaves_no_trace(made: log.Log) -> None:
    with pytest.raises(EventInvalid):
        made.append("release-received", {"release_digest": "x"}, run="r")
    plan = {"text": "x" * 60_000}
    with pytest.raises(AuditError, match="65535"):
        made.append(
            "run-started",
            {"plan_digest": ZERO, "plan": plan, "institutions": ["a"], "quorum": 1},
            run="r",
        )
    assert made.size == 1
    append(made)
    assert made.size == 2


def test_two_handles_see_each_other(made: log.Log, ring: keys.KeyRing) -> None:
    other = log.Log.open(made.folder, keys=ring)
    append(made)
    append(other)
    append(made)
    assert made.size == other.size == 4
    assert [e.event.seq for e in other.entries()] == [0, 1, 2, 3]


def test_a_cosignature_stays_with_the_size_that_it_covers(made: log.Log, tmp_path: Path) -> None:
    ring = keys.create(tmp_path / "witness", "hub")
    append(made)
    text = note.parse(made.checkpoint()).text
    line = str(note.cosign(text, name="hub/witness", key=ring.witness, time=5))
    with pytest.raises(BadSignature):
        made.add_cosignature(line)
    append(made)
    made.checkpoint()
    assert made.add_cosignature(line, witness=ring.public().witness) == 2
    assert line not in made.checkpoint()
    assert line in made.note_for(2)
    joined = {"name": "hub", "keys": ring.public().to_json()}
    made.append("institution-joined", joined)
    assert made.add_cosignature(line) == 2
    false = str(note.cosign("x\n", name="hub/witness", key=ring.witness, time=5))
    with pytest.raises(BadSignature):
        made.add_cosignature(false)


def test_a_log_of_another_party_or_a_second_log_is_refused(
    made: log.Log, ring: keys.KeyRing, tmp_path: Path
) -> None:
    with pytest.raises(AuditError, match="exists already"):
        log.Log.create(made.folder, keys=ring)
    with pytest.raises(AuditError, match="not that of"):
        log.Log.open(made.folder, keys=keys.create(tmp_path / "beta", "beta"))
    with pytest.raises(AuditError, match="create the log first"):
        log.Log.open(tmp_path / "nowhere", keys=ring)


def test_new_keys_of_the_same_name_do_not_open_a_log(made: log.Log, tmp_path: Path) -> None:
    made.checkpoint()
    with pytest.raises(AuditError):
        log.Log.open(made.folder, keys=keys.create(tmp_path / "again", "alpha"))


def test_a_journal_of_a_newer_version_is_refused(made: log.Log, ring: keys.KeyRing) -> None:
    made.close()
    with sqlite3.connect(made.folder / log.JOURNAL) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(AuditError) as caught:
        log.Log.open(made.folder, keys=ring)
    assert caught.value.code == "newer-format"


def test_the_journal_forbids_edits_and_deletions(made: log.Log) -> None:
    made.checkpoint()
    db = sqlite3.connect(made.folder / log.JOURNAL)
    for table, change in (("entries", "run = 'x'"), ("checkpoints", "note = 'x'")):
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(f"UPDATE {table} SET {change}")
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(f"DELETE FROM {table}")
    db.close()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("UPDATE entries SET body = CAST(body || x'20' AS BLOB) WHERE seq = 1", "log-edited"),
        ("UPDATE entries SET body = 'text' WHERE seq = 1", "log-damaged"),
        ("DELETE FROM entries WHERE seq = 3", "log-rolled-back"),
        ("DELETE FROM entries WHERE seq = 1", "log-damaged"),
    ],
)
def test_a_journal_edited_behind_our_back_does_not_open(
    made: log.Log, ring: keys.KeyRing, damage: str, code: str
) -> None:
    append(made, 3)
    made.checkpoint()
    made.close()
    db = sqlite3.connect(made.folder / log.JOURNAL)
    for trigger in ("entries_stay", "entries_remain"):
        db.execute(f"DROP TRIGGER {trigger}")
    db.execute(damage)
    db.commit()
    db.close()
    with pytest.raises(LogDamaged) as caught:
        log.Log.open(made.folder, keys=ring)
    assert caught.value.code == code


def test_a_restored_old_journal_does_not_open(made: log.Log, ring: keys.KeyRing) -> None:
    append(made, 2)
    made.checkpoint()
    made.close()
    path = made.folder / log.JOURNAL
    shutil.copy(path, path.with_suffix(".old"))
    again = log.Log.open(made.folder, keys=ring)
    append(again, 2)
    again.checkpoint()
    again.close()
    shutil.copy(path.with_suffix(".old"), path)
    with pytest.raises(LogDamaged) as caught:
        log.Log.open(made.folder, keys=ring)
    assert caught.value.code == "log-rolled-back"


@pytest.mark.parametrize("damage", [b"", b"x" * 4096])
def test_a_file_that_is_no_journal_is_an_audit_error(
    made: log.Log, ring: keys.KeyRing, damage: bytes
) -> None:
    made.close()
    for path in made.folder.glob(f"{log.JOURNAL}*"):
        path.unlink()
    (made.folder / log.JOURNAL).write_bytes(damage)
    with pytest.raises(AuditError):
        log.Log.open(made.folder, keys=ring)


def test_lost_tiles_are_written_again_on_opening(made: log.Log, ring: keys.KeyRing) -> None:
    append(made, 3)
    made.checkpoint()
    wanted = {t.path: (made.folder / t.path).read_bytes() for t in tiles.needed(4)}
    made.close()
    shutil.rmtree(made.folder / "tile")
    log.Log.open(made.folder, keys=ring)
    assert {path: (made.folder / path).read_bytes() for path in wanted} == wanted


def test_two_processes_leave_no_gap_and_no_fork(made: log.Log, tmp_path: Path) -> None:
    outputs = [tmp_path / str(number) for number in range(2)]
    running = [writer(tmp_path, 60, output) for output in outputs]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    receipts = [acknowledged(output.read_text()) for output in outputs]
    assert not set(receipts[0]) & set(receipts[1])
    assert made.size == 121
    assert [e.event.seq for e in made.entries()] == list(range(121))


def test_no_acknowledged_entry_is_lost_to_kill(made: log.Log, tmp_path: Path) -> None:
    made.close()
    receipts: dict[int, str] = {}
    kills = 0
    for turn in range(5):
        outputs = [tmp_path / f"{turn}-{number}" for number in range(2)]
        running = [writer(tmp_path, 100_000, output) for output in outputs]
        while not all(output.stat().st_size for output in outputs):
            assert all(process.poll() is None for process in running)
            time.sleep(0.005)
        time.sleep(0.01 + 0.02 * turn)
        for process, output in zip(running, outputs, strict=True):
            process.send_signal(signal.SIGKILL)
            kills += process.wait(timeout=30) == -signal.SIGKILL
            receipts |= acknowledged(output.read_text())
    opened = log.Log.open(tmp_path / "log", keys=keys.load(tmp_path / "keys"))
    assert kills == 10
    assert len(receipts) >= 10
    for index, leaf in receipts.items():
        assert merkle.leaf_hash(opened.entry(index)).hex() == leaf
    assert [e.event.seq for e in opened.entries()] == list(range(opened.size))
    opened.checkpoint()
