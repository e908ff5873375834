"""A time-stamp over a checkpoint holds for its bytes under a trusted root, for nothing else."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit import bundle as bundles
from audit import keys, log, stamping, timestamp
from audit.cli import app
from audit.errors import AuditError

pytest.importorskip("rfc3161_client")
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
DATA = b"hub/log\n5\nroot\n"
CONFIG = """
[req]
distinguished_name = dn
[dn]
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[tsa]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[tsa_config]
serial = {folder}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[ts]
default_tsa = tsa_config
"""


class Authority:
    """A time-stamping authority made of openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "conf").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01\n")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self.run("req", "-x509", *key, "-keyout", "root.key", "-out", "root.pem", "-subj",
                 "/CN=Root", "-extensions", "root", "-config", "conf", "-days", "3")  # fmt: skip
        self.run("req", *key, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=TSA",
                 "-config", "conf")  # fmt: skip
        self.run("x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key",
                 "-CAcreateserial", "-out", "tsa.pem", "-extfile", "conf", "-extensions", "tsa",
                 "-days", "2")  # fmt: skip

    def run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

    def stamp(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        self.run("ts", "-reply", "-config", "conf", "-section", "tsa_config", "-queryfile",
                 "query", "-signer", "tsa.pem", "-inkey", "tsa.key", "-out", "reply")  # fmt: skip
        return (self.folder / "reply").read_bytes()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "one")


def test_a_stamp_holds_for_its_bytes_and_its_root_only(
    authority: Authority, tmp_path: Path
) -> None:
    reply = authority.stamp(timestamp.request(DATA))
    root = authority.folder / "root.pem"
    found = timestamp.check(reply, DATA, root)
    assert abs(found.time - datetime.now(UTC)) < timedelta(minutes=10)
    other = Authority(tmp_path / "other")
    for wrong, data, trusted in (
        (reply, DATA + b" ", root),
        (reply, DATA, other.folder / "root.pem"),
        (reply[:-9] + bytes([reply[-9] ^ 1]) + reply[-8:], DATA, root),
        (reply[:50], DATA, root),
        (b"", DATA, root),
    ):
        with pytest.raises(AuditError) as error:
            timestamp.check(wrong, data, trusted)
        assert error.value.code == "bad-timestamp"
    with pytest.raises(AuditError, match="no PEM"):
        timestamp.check(reply, DATA, tmp_path / "absent")
    # The same file convinces openssl.
    (authority.folder / "data").write_bytes(DATA)
    (authority.folder / "reply").write_bytes(reply)
    authority.run("ts", "-verify", "-data", "data", "-in", "reply", "-CAfile", "root.pem")


def test_an_authority_that_cannot_be_reached_is_named() -> None:
    for url, code in (("http://127.0.0.1:1/", "unreachable"), ("file:///etc", "bad-option")):
        with pytest.raises(AuditError) as error:
            timestamp.ask(url, DATA)
        assert error.value.code == code


def test_the_command_keeps_a_stamp_that_openssl_verifies(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = keys.create(tmp_path / "hub" / "keys", "hub")
    log.Log.create(tmp_path / "hub" / "log", keys=ring).close()
    monkeypatch.setattr(
        timestamp, "ask", lambda url, data: authority.stamp(timestamp.request(data))
    )
    words = ["stamp", str(tmp_path / "hub"), "--url", "https://tsa.example/", "--roots"]
    done = CliRunner().invoke(app, [*words, str(authority.folder / "root.pem")])
    assert "stamped at 20" in done.stdout, done.exception
    place = tmp_path / "hub" / "log" / "stamps"
    authority.run("ts", "-verify", "-data", str(place / "1.checkpoint"), "-in",
                  str(place / "1.tsr"), "-CAfile", "root.pem")  # fmt: skip


@pytest.fixture(scope="module")
def stamped(federate: Any, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose coordinator stamped its log during the run, and somebody the bundle."""
    place = tmp_path_factory.mktemp("stamped")
    played = federate(place, rounds=1)
    hub = played.coordinator
    play_round = played.play_round

    def play(turn: int, adapter: str) -> Any:
        output = play_round(turn, adapter)
        size, signed = stamping.newest(hub.folder, bundled=False)
        reply = authority.stamp(timestamp.request(signed))
        stamping.keep(hub.folder, size, signed, reply, bundled=False)
        return output

    played.play_round = play
    bundle = played.play().bundle()
    ask, timestamp.ask = timestamp.ask, lambda url, data: authority.stamp(timestamp.request(data))
    words = ["stamp", str(bundle), "--url", "https://tsa.example/", "--roots"]
    done = CliRunner().invoke(app, [*words, str(authority.folder / "root.pem")])
    timestamp.ask = ask
    assert "stamped at 20" in done.stdout, done.exception
    return bundle


def test_a_bundle_says_when_an_authority_saw_its_logs(
    stamped: Path, authority: Authority, judge: Any
) -> None:
    found = judge(stamped, tsa_roots=authority.folder / "root.pem")
    assert found.ok, found.faults
    assert [stamp.name for stamp in found.stamps] == ["hub", "hub"]
    first, last = found.stamps
    assert first.size < last.size == found.signers[0].size
    year = str(datetime.now(UTC).year)
    assert all(stamp.time.startswith(year) for stamp in found.stamps)
    assert f"saw the first {last.size} entries of hub on {last.time}" in "\n".join(found.lines())
    unchecked = judge(stamped)
    assert unchecked.ok
    assert [stamp.time for stamp in unchecked.stamps] == [None, None]
    assert "was not checked; give --tsa-roots" in "\n".join(unchecked.lines())
    with pytest.raises(AuditError, match="no PEM"):
        judge(stamped, tsa_roots=stamped / "absent")


def test_a_stamp_of_something_else_is_found(
    stamped: Path, authority: Authority, judge: Any, relisted: Any, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    last = judge(stamped).stamps[-1].size
    early = min(judge(stamped).stamps, key=lambda stamp: stamp.size).size

    def with_change(change: Any, *, roots: Authority | None = authority) -> list[tuple[str, str]]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(stamped, copy)
        change(copy / "stamps" / "hub")
        relisted(copy)
        trusted = None if roots is None else roots.folder / "root.pem"
        found = judge(copy, tsa_roots=trusted)
        return [(fault.layer, fault.code) for fault in found.faults]

    def swap(place: Path) -> None:
        shutil.copyfile(place / f"{early}.tsr", place / f"{last}.tsr")

    def rename(place: Path) -> None:
        for ending in ("tsr", "checkpoint"):
            (place / f"{early}.{ending}").rename(place / f"{early + 1}.{ending}")

    def foreign(place: Path) -> None:
        shutil.copyfile(place.parents[1] / "sites/alpha/checkpoint", place / f"{last}.checkpoint")

    def alone(place: Path) -> None:
        (place / f"{last}.checkpoint").unlink()

    def stranger(place: Path) -> None:
        place.rename(place.with_name("nobody"))

    assert with_change(lambda place: None, roots=other) == [("bytes", "bad-timestamp")] * 2
    assert with_change(swap) == [("bytes", "bad-timestamp")]
    for change in (rename, foreign):
        for roots in (authority, None):
            assert with_change(change, roots=roots) == [("bytes", "stamp-differs")]
    assert ("bytes", "missing-file") in with_change(alone)
    assert ("bytes", "unexpected-file") in with_change(stranger)


def test_a_checkpoint_of_another_history_is_not_a_stamp_of_this_one(
    stamped: Path, federate: Any, judge: Any, tmp_path: Path
) -> None:
    """Signed by the log's own key, of a size that the log had, and still of another log."""
    played = federate(tmp_path, rounds=1)
    shutil.copytree(played.coordinator.log.folder, tmp_path / "fork")
    fork = log.Log.open(tmp_path / "fork", keys=played.coordinator.keys)
    fork.append("institution-revoked", {"name": "zq"})
    note_of_fork = fork.checkpoint().encode()
    fork.close()
    bundle = played.play().bundle()
    files = {"stamps/hub/2.checkpoint": note_of_fork, "stamps/hub/2.tsr": b"token"}
    bundles.add(bundle, files)
    found = judge(bundle)
    assert [(fault.code, fault.where) for fault in found.faults] == [
        ("stamp-differs", "stamps/hub/2.tsr")
    ]
    assert found.stamps == ()
