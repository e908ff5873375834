"""Tools that are not ours accept what we publish, and reject what was tampered with."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit import keys, log, merkle, note, signing, witness_url
from audit.errors import AuditError

HERE = Path(__file__).parent
GOCODE = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb")
SPKI = bytes.fromhex("302a300506032b6570032100")


def run(*command: object, **more: Any) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **more)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
needs_go = pytest.mark.skipif(
    not (shutil.which("go") and GOCODE.exists()), reason="needs golang and golang-x-mod-dev"
)


@needs_openssl
def test_openssl_verifies_signatures_cosignatures_and_envelopes(
    sample: Any, tmp_path: Path
) -> None:
    def verify(public: bytes, message: bytes, signature: bytes) -> bool:
        (tmp_path / "key").write_bytes(SPKI + public)
        (tmp_path / "message").write_bytes(message)
        (tmp_path / "signature").write_bytes(signature)
        done = run(
            "openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER",
            "-inkey", tmp_path / "key", "-in", tmp_path / "message",
            "-sigfile", tmp_path / "signature",
        )  # fmt: skip
        return done.returncode == 0

    signed = note.parse((sample.folder / "checkpoint").read_bytes())
    own, *seen = signed.signatures
    text = signed.text.encode()
    key = note.parse_key(sample.log.keys.log).public
    assert verify(key, text, own.blob)
    assert not verify(key, text.replace(b"300", b"301"), own.blob)
    assert len(seen) == 2
    for line, other in zip(seen, sample.witnesses, strict=True):
        at = int.from_bytes(line.blob[:8], "big")
        message = f"cosignature/v1\ntime {at}\n".encode() + text
        public = note.parse_key(other.public().witness).public
        assert verify(public, message, line.blob[8:])
        assert not verify(public, message.replace(b"300", b"301"), line.blob[8:])
    envelope = json.loads(sample.log.entry(7))
    payload = base64.b64decode(envelope["payload"])
    pae = b"DSSEv1 %d %b %d %b" % (
        len(envelope["payloadType"]), envelope["payloadType"].encode(), len(payload), payload,
    )  # fmt: skip
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    event = note.parse_key(sample.log.keys.event).public
    assert verify(event, pae, signature)
    assert not verify(event, pae.replace(b"verdict", b"Verdict"), signature)


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("go")
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode",
           "GOCACHE": str(place / "cache"), "GOFLAGS": ""}  # fmt: skip
    done = run("go", "build", "-o", place / "verify", HERE / "verify.go", env=env)
    assert done.returncode == 0, done.stderr
    return place / "verify"


@needs_go
def test_go_verifies_every_entry_signature_and_proof(sample: Any, go: Path, tmp_path: Path) -> None:
    vkeys = [sample.log.keys.log, *(other.public().witness for other in sample.witnesses)]
    assert run(go, sample.folder, *vkeys).stdout == "OK 300 entries, 3 signatures\n"
    stranger = keys.create(tmp_path / "stranger", "clinic").public()
    assert "FAIL: checkpoint" in run(go, sample.folder, stranger.log).stdout
    for number, (name, place, said) in enumerate(
        [
            ("tile/entries/000", 5000, "FAIL: entry"),
            ("tile/entries/001.p/44", -100, "FAIL: entry 299"),
            ("tile/0/000", 40, "FAIL: entry 1 "),
            ("checkpoint", 20, "FAIL"),
            ("checkpoint", -10, "FAIL: checkpoint"),
        ]
    ):
        twin = sample.twin(tmp_path / str(number))
        flip(twin / name, place)
        done = run(go, twin, *vkeys)
        assert done.returncode == 1
        assert said in done.stdout


def test_sigstore_verifies_checkpoint_and_inclusion(
    sample: Any, tools: Path, tmp_path: Path
) -> None:
    key = note.parse_key(sample.log.keys.log)
    size = sample.log.size
    given = {
        "name": key.name, "id": key.id.hex(), "public": key.public.hex(),
        "checkpoint": (sample.folder / "checkpoint").read_text(encoding="utf-8"),
        "index": 123, "size": size,
        "proof": [item.hex() for item in sample.log.inclusion(123, size)],
        "entry": base64.b64encode(sample.log.entry(123)).decode(),
    }  # fmt: skip

    def judge(**changes: Any) -> str:
        (tmp_path / "in.json").write_text(json.dumps({**given, **changes}))
        modules = tools / "npm" / "node_modules"
        return run("node", HERE / "sigstore.js", modules, tmp_path / "in.json").stdout.strip()

    assert judge() == "OK"
    failed = "FAIL: TLOG_INCLUSION_PROOF_ERROR"
    assert judge(entry=base64.b64encode(sample.log.entry(124)).decode()) == failed
    assert judge(index=124) == failed
    assert judge(proof=given["proof"][:-1]) == failed
    assert judge(checkpoint=given["checkpoint"].replace("\n300\n", "\n299\n")) == failed


def test_scitt_cose_verifies_inclusion_and_consistency(sample: Any, tools: Path) -> None:
    size = sample.log.size

    def ask(call: str) -> str:
        python = tools / "cose" / "bin" / "python"
        return run(python, "-c", f"import scitt_cose as s; print({call})").stdout.strip()

    def inclusion(entry: bytes, index: int) -> str:
        proof = [item.hex() for item in sample.log.inclusion(123, size)]
        root = sample.log.root(size).hex()
        return ask(f"s.verify_inclusion({entry.hex()!r}, {index}, {size}, {proof}, {root!r})")

    assert inclusion(sample.log.entry(123), 123) == "True"
    assert inclusion(sample.log.entry(122), 123) == "False"
    assert inclusion(sample.log.entry(123), 122) == "False"
    proof = [item.hex() for item in sample.log.consistency(70, size)]

    def consistency(old: bytes, new: bytes) -> str:
        return ask(f"s.verify_consistency({old.hex()!r}, {new.hex()!r}, 70, {size}, {proof})")

    old, new = sample.log.root(70), sample.log.root(size)
    assert consistency(old, new) == "True"
    assert consistency(merkle.leaf_hash(old), new) == "False"
    assert consistency(old, merkle.leaf_hash(new)) == "False"


def test_model_signing_verifies_a_release_folder(tools: Path, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    for name in ("adapter_model.safetensors", "README.md"):
        (folder / name).write_bytes(name.encode() * 100)
    public = signing.create_key(tmp_path / "release.pem")
    signing.sign_folder(folder, tmp_path / "release.pem")
    signature = folder / signing.SIGNATURE_FILE

    def verify(place: Path) -> int:
        return run(
            tools / "oms" / "bin" / "model_signing", "verify", "key", place,
            "--signature", place / signature.name, "--public_key", public,
            "--ignore-paths", place / signature.name,
        ).returncode  # fmt: skip

    assert verify(folder) == 0
    assert verify(Path(shutil.copytree(folder, tmp_path / "copy"))) == 0
    for number, damage in enumerate(("changed", "added", "removed")):
        twin = tmp_path / str(number)
        shutil.copytree(folder, twin)
        if damage == "changed":
            flip(twin / "README.md", 5)
        elif damage == "added":
            (twin / "more.txt").write_text("x")
        else:
            (twin / "README.md").unlink()
        assert verify(twin) != 0, damage


@pytest.fixture
def foreign_witness(tools: Path, sample: Any, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """aics-witness on this machine: its URL, its key and its configuration."""
    program, config = tools / "aics" / "bin" / "aics-witness", tmp_path / "witness.json"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    made = run(program, "init", "-c", config, "--name", "other.example/w1", "--listen", listen)
    assert made.returncode == 0, made.stderr
    vkey = next(word for word in made.stdout.split() if word.count("+") >= 2)
    keys_of = sample.log.keys
    known = run(
        program, "add-log", "-c", config, "--origin", sample.log.origin, "--vkey", keys_of.log
    )
    assert known.returncode == 0, known.stderr
    with (tmp_path / "witness.log").open("w") as said:
        serving = subprocess.Popen([program, "serve", "-c", config], stdout=said, stderr=said)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(listen.split(":")[1]))) == 0:
                    break
            time.sleep(0.1)
        yield f"http://{listen}", vkey, config
    finally:
        serving.kill()
        serving.wait()


def test_a_witness_that_is_not_ours_cosigns_and_refuses_a_fork(
    sample: Any, foreign_witness: tuple[str, str, Path], tools: Path, tmp_path: Path
) -> None:
    url, vkey, config = foreign_witness
    assert witness_url.ask(sample.log, url, vkey).size == sample.log.size
    note.check_signed(note.parse(sample.log.checkpoint()), note.parse_key(vkey))
    sample_size = sample.log.size
    fork = log.Log.create(tmp_path / "fork", keys=sample.keys)
    for _ in range(sample_size + 5):
        fork.append("verifier-run", {"bundle_digest": "sha256:" + "f" * 64, "verdict": "ok"})
    with pytest.raises(AuditError, match="does not extend") as error:
        witness_url.ask(fork, url, vkey)
    assert error.value.code == "witness-refused"
    kept = run(tools / "aics" / "bin" / "aics-witness", "evidence", "-c", config).stdout
    assert sample.log.origin in kept


def test_every_tool_of_make_interop_was_there(tools: Path) -> None:
    assert shutil.which("node")
    assert {"npm", "cose", "oms", "aics"} <= {path.name for path in tools.iterdir()}
