"""Keys are locked at rest, rotate inside the log, and count for nothing once they are revoked."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from audit import bundle as bundles
from audit import custody, dsse, hsm, keys, note, passphrase, rotation, vault
from audit.cli import app
from audit.errors import AuditError
from audit.log import Log
from audit.signoff import Officer

SECRET = b"correct horse battery"
RAN = {"bundle_digest": "sha256:" + "0" * 64, "verdict": "ok"}


@pytest.fixture
def party(tmp_path: Path) -> Path:
    ring = keys.create(tmp_path / "keys", "site")
    Log.create(tmp_path / "log", keys=ring).close()
    return tmp_path


def code(call: Any) -> str:
    with pytest.raises(AuditError) as error:
        call()
    return error.value.code


def test_a_locked_key_opens_with_its_passphrase_and_with_openssl(tmp_path: Path) -> None:
    ring = keys.create(tmp_path / "keys", "site", passphrase=SECRET)
    path = tmp_path / "keys" / "log.pem"
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.load(tmp_path / "keys", passphrase=SECRET).public() == ring.public()
    assert code(lambda: keys.load(tmp_path / "keys", passphrase=b"wrong horse")) == (
        "wrong-passphrase"
    )
    if shutil.which("openssl"):
        (tmp_path / "pass").write_bytes(SECRET)
        done = subprocess.run(
            ["openssl", "pkey", "-in", str(path), "-passin", f"file:{tmp_path / 'pass'}",
             "-pubout", "-outform", "DER"],
            capture_output=True, check=True,
        )  # fmt: skip
        assert done.stdout.endswith(note.parse_key(ring.public().log).public)
        shown = subprocess.run(
            ["openssl", "asn1parse", "-in", str(path)], capture_output=True, check=True
        )
        assert b":scrypt" in shown.stdout
        assert b":4000" in shown.stdout


def test_each_role_has_its_own_key_and_salt(tmp_path: Path) -> None:
    ring = keys.create(tmp_path / "keys", "site", passphrase=SECRET)
    public = ring.public()
    assert len({note.parse_key(key).public for key in (public.log, public.event, public.witness)})
    files = {(tmp_path / "keys" / f"{role}.pem").read_bytes()[60:120] for role in keys.ROLES}
    assert len(files) == 3


def test_a_short_passphrase_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    assert code(lambda: vault.seal(key, b"x" * 11)) == "weak-passphrase"
    assert vault.unseal(vault.seal(key, b"x" * 12), b"x" * 12) is not None


def test_the_passphrase_comes_from_a_file_that_only_its_owner_reads(
    party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(AuditError, match="nobody to ask"):  # and the keys are not locked
        custody.lock(party)
    file = party / "secret"
    file.write_bytes(SECRET + b"\nsecond line\n")
    monkeypatch.setenv(passphrase.VARIABLE, str(file))
    file.chmod(0o644)
    assert code(lambda: custody.lock(party)) == "keys-exposed"
    file.chmod(0o600)
    assert custody.lock(party) == 3
    assert custody.lock(party) == 0
    assert keys.load(party / "keys").name == "site"
    monkeypatch.delenv(passphrase.VARIABLE)
    assert code(lambda: keys.load(party / "keys")) == "keys-locked"
    monkeypatch.setenv(passphrase.VARIABLE, str(party / "absent"))
    assert code(lambda: keys.load(party / "keys")) == "no-passphrase"
    file.write_bytes(b"\n")
    monkeypatch.setenv(passphrase.VARIABLE, str(file))
    assert code(lambda: keys.load(party / "keys")) == "no-passphrase"


def test_new_keys_are_locked_when_the_environment_names_a_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret").chmod(0o600)
    monkeypatch.setenv(passphrase.VARIABLE, str(tmp_path / "secret"))
    keys.create(tmp_path / "keys", "site")
    assert vault.is_sealed((tmp_path / "keys" / "event.pem").read_bytes())


def test_after_a_rotation_the_new_keys_sign_and_the_old_ones_append_nothing(party: Path) -> None:
    old = keys.load(party / "keys")
    running = Log.open(party / "log", keys=old)
    receipt = custody.rotate(party, reason="scheduled")
    assert receipt is not None
    new = keys.load(party / "keys")
    assert new.public() != old.public()
    assert code(lambda: running.append("verifier-run", RAN)) == "retired-key"
    assert code(running.checkpoint) == "retired-key"
    assert code(lambda: Log.open(party / "log", keys=old)) == "retired-key"
    opened = Log.open(party / "log", keys=new)
    opened.append("verifier-run", RAN)
    last = dsse.parse(opened.entry(2))
    dsse.check(last, note.parse_key(new.public().event).public)
    signed = opened.checkpoint()
    note.open_checkpoint(signed, key=note.parse_key(new.public().log), origin="site/log")
    assert code(lambda: opened.note_for(1)) == "retired-key"
    assert sorted(path.name for path in (party / "keys").iterdir()) == [
        "event.pem", "log.pem", "public.json", "witness.pem",
    ]  # fmt: skip


@pytest.mark.parametrize("steps", range(7))
def test_a_rotation_that_was_interrupted_anywhere_is_finished(
    party: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    left = [steps]

    def crash(real: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return real(*given, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash(Path.replace))
        patch.setattr(Log, "rotate", crash(Log.rotate))
        try:
            custody.rotate(party, reason="scheduled")
        except Crash:
            custody_again = True
        else:
            custody_again = False
    if custody_again:
        custody.rotate(party, reason="scheduled")
    ring = keys.load(party / "keys")
    opened = Log.open(party / "log", keys=ring)
    opened.append("verifier-run", RAN)
    kinds = [entry.event.kind for entry in opened.entries()]
    assert kinds == ["log-started", "key-rotated", "verifier-run"]
    assert not (party / "keys" / "next").exists()


def test_locked_keys_stay_locked_when_they_are_rotated(party: Path) -> None:
    custody.lock(party, passphrase=SECRET)
    custody.rotate(party, reason="scheduled", passphrase=SECRET)
    assert vault.is_sealed((party / "keys" / "log.pem").read_bytes())
    assert keys.load(party / "keys", passphrase=SECRET).name == "site"


def test_a_hand_over_needs_both_log_keys_and_new_keys(tmp_path: Path) -> None:
    old, new, thief = (keys.create(tmp_path / str(n), "site") for n in range(3))

    def event(ring: keys.KeyRing, text: str, index: int = 4) -> Any:
        fields = {"keys": ring.public().to_json(), "note": text}
        return SimpleNamespace(origin="site/log", seq=index, fields=fields)

    good = rotation.handover("site/log", 4, old, new)
    assert rotation.follow(event(new, good), old.public()).keys == new.public()
    lines = good.splitlines(keepends=True)
    for wrong in (
        rotation.handover("site/log", 4, thief, new),
        rotation.handover("other/log", 4, old, new),
        rotation.handover("site/log", 5, old, new),
        "".join(lines[:-1]),
        "".join(lines[:-2] + lines[-1:]),
        rotation.handover("site/log", 4, old, thief),
    ):
        with pytest.raises(AuditError):
            rotation.follow(event(new, wrong), old.public())
    half = keys.KeyRing("site", new.log, old.event, new.witness)
    kept = rotation.handover("site/log", 4, old, half)
    assert code(lambda: rotation.follow(event(half, kept), old.public())) == "bad-rotation"
    other = keys.create(tmp_path / "other", "other")
    assert code(
        lambda: Log.create(tmp_path / "log", keys=old).rotate(other, reason="scheduled")
    ) == "wrong-keys"  # fmt: skip


def test_expired_keys_append_nothing_but_a_rotation(tmp_path: Path) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    ring = keys.create(tmp_path / "keys", "site")
    end = now[0] + timedelta(days=1)
    opened = Log.create(tmp_path / "log", keys=ring, expires=end, now=lambda: now[0])
    opened.append("verifier-run", RAN)
    now[0] = end + timedelta(seconds=1)
    assert code(lambda: opened.append("verifier-run", RAN)) == "expired-key"
    opened.rotate(keys.create(tmp_path / "new", "site"), reason="scheduled")
    opened.append("verifier-run", RAN)
    assert opened.size == 4


def test_a_clock_that_goes_back_is_logged(tmp_path: Path) -> None:
    now = [datetime(2026, 1, 2, tzinfo=UTC)]
    ring = keys.create(tmp_path / "keys", "site")
    opened = Log.create(tmp_path / "log", keys=ring, now=lambda: now[0])
    now[0] -= timedelta(milliseconds=900)
    opened.append("verifier-run", RAN)
    now[0] -= timedelta(hours=5)
    assert opened.append("verifier-run", RAN).index == 3
    again = Log.open(tmp_path / "log", keys=ring, now=lambda: now[0] - timedelta(hours=5))
    again.append("verifier-run", RAN)
    kinds = [entry.event.kind for entry in again.entries()]
    assert kinds == ["log-started", "verifier-run", *(["clock-anomaly", "verifier-run"] * 2)]


def test_the_commands_rotate_revoke_and_lock(party: Path) -> None:
    run = CliRunner(env={passphrase.VARIABLE: str(party / "secret")})
    (party / "secret").write_bytes(SECRET)
    (party / "secret").chmod(0o600)
    assert "no key of" in str(run.invoke(app, ["revoke", str(party)]).exception)
    assert "3 keys locked" in run.invoke(app, ["lock", str(party)]).stdout
    assert "entry 1" in run.invoke(app, ["rotate", str(party)]).stdout
    wrong = run.invoke(app, ["rotate", str(party), "--module", "x"])
    assert "together" in str(wrong.exception)
    assert "give a size" in str(run.invoke(app, ["revoke", str(party), "--size", "9"]).exception)
    assert "entry 2" in run.invoke(app, ["revoke", str(party)]).stdout


SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hsm.Token]:
    pytest.importorskip("pkcs11")
    if not SOFTHSM.exists() or not shutil.which("softhsm2-util"):
        pytest.skip("needs SoftHSM")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    old = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(folder / "conf")
    pin = SECRET.decode()
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "privity", "--pin", pin,
         "--so-pin", pin],
        check=True, capture_output=True,
    )  # fmt: skip
    yield hsm.Token(str(SOFTHSM), "privity", "site")
    if old is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = old


def test_keys_in_a_token_sign_a_log_and_rotate(party: Path, token: hsm.Token) -> None:
    custody.rotate(party, reason="scheduled", token=token, passphrase=SECRET)
    assert sorted(path.name for path in (party / "keys").iterdir()) == [
        "pkcs11.json", "public.json",
    ]  # fmt: skip
    ring = keys.load(party / "keys", passphrase=SECRET)
    opened = Log.open(party / "log", keys=ring)
    opened.append("verifier-run", RAN)
    note.open_checkpoint(
        opened.checkpoint(), key=note.parse_key(ring.public().log), origin="site/log"
    )
    dsse.check(dsse.parse(opened.entry(2)), note.parse_key(ring.public().event).public)
    opened.close()
    custody.rotate(party, reason="scheduled", passphrase=SECRET)
    assert hsm.read(party / "keys" / hsm.FILE).prefix == "site-2"
    again = Log.open(party / "log", keys=keys.load(party / "keys", passphrase=SECRET))
    again.append("verifier-run", RAN)
    missing = hsm.Token(token.module, "absent", "site")
    assert code(lambda: hsm.load(missing, "log", SECRET)) == "token"
    absent = hsm.Token(token.module, token.token, "nobody")
    assert code(lambda: hsm.load(absent, "log", SECRET)) == "token"
    assert code(lambda: hsm.generate(token, "log", SECRET)) == "keys-exist"


def test_an_officer_signs_off_with_keys_in_a_token(
    copied: Path, tmp_path: Path, token: hsm.Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "pin"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    monkeypatch.setenv(passphrase.VARIABLE, str(secret))
    words = ["officer", str(tmp_path / "desk"), "--name", "office", "--module", token.module]
    done = CliRunner().invoke(app, [*words, "--token", token.token, "--prefix", "desk"])
    assert "officer office, fingerprint" in done.stdout, done.exception
    held = sorted(path.name for path in (tmp_path / "desk" / "keys").iterdir())
    assert held == ["pkcs11.json", "public.json"]
    bundle = bundles.read(copied)
    signed = Officer.open(tmp_path / "desk").sign(
        bundle, log="alpha", first=0, last=2, decision="reviewed", holds=True, problems=0
    )
    assert signed.fits
