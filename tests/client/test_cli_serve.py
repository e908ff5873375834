"""A release is served only if a key that did not come with it signed every byte of it."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import uvicorn

import client
import privity
from audit import keys, signing
from client import listen
from client.errors import ClientError
from tests.client.serving_world import Fake, make_release

Said = tuple[int, str, str]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "r1"
    folder.mkdir()
    (folder / "release.json").write_text('{"format": 1, "release": "r1"}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    signing.create_key(tmp_path / "release.pem")
    signing.sign_folder(folder, tmp_path / "release.pem")
    return folder


@pytest.fixture
def key(release: Path) -> Path:
    return release.with_name("release.pem.pub")


@pytest.fixture
def site(key: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    invitation = {
        "format": 1,
        "coordinator": "h:1",
        "authority": "",
        "keys": keys.create(tmp_path / "keys", "hub").public().to_json(),
        "origin": "o",
        "release_key": key.read_text(),
    }
    (folder / "invitation.json").write_text(json.dumps(invitation))
    return folder


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands for the engine; lists the releases that were loaded."""
    seen: list[Path] = []
    stub: Any = ModuleType("client.engine")

    def load(paths: list[Path], settings: Any, *, sampling: Any) -> Fake:
        del sampling
        seen.extend(paths)
        return Fake()

    stub.load = load
    monkeypatch.setitem(sys.modules, "client.engine", stub)
    monkeypatch.setattr(client, "engine", stub, raising=False)
    return seen


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets the real server run until it has answered one question, as Ctrl-C then ends it."""
    found: list[Any] = []
    serve = uvicorn.Server.run

    def run(self: uvicorn.Server, sockets: Any = None) -> None:
        thread = threading.Thread(target=serve, args=(self, sockets))
        thread.start()
        host, port = sockets[0].getsockname()[:2]
        try:
            found.append(httpx.get(f"http://{host}:{port}/health", trust_env=False).json())
        finally:
            self.should_exit = True
            thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return found


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*words: object) -> Said:
        code = privity.main(["serve", *(str(word) for word in words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def one_sentence(err: str) -> bool:
    return len(err.strip().splitlines()) == 1 and err.startswith("privity: ")


def test_a_signed_release_is_served_and_says_where(
    say: Any, release: Path, key: Path, loaded: list[Path], answers: list[Any]
) -> None:
    code, out, err = say(release, "--key", key, "--port", "0")
    assert (code, err) == (0, "")
    assert out.startswith("serving r1 on http://127.0.0.1:")
    assert answers == [{"status": "ok", "model": "r1"}]
    assert loaded == [release]


def test_the_key_may_come_from_an_institutions_invitation(
    say: Any, release: Path, site: Path, loaded: list[Path], answers: list[Any]
) -> None:
    code, _, err = say(release, "--dir", site, "--port", "0")
    assert (code, err) == (0, "")
    assert answers


def test_without_a_key_or_with_two_nothing_is_served(
    say: Any, release: Path, key: Path, site: Path, loaded: list[Path]
) -> None:
    for words in ((), ("--key", key, "--dir", site)):
        code, out, err = say(release, *words)
        assert (code, out) == (2, "")
        assert one_sentence(err)
        assert "--key" in err
        assert "--dir" in err
    assert loaded == []


def test_a_release_that_does_not_verify_is_refused_before_it_is_loaded(
    say: Any, release: Path, key: Path, site: Path, loaded: list[Path], tmp_path: Path
) -> None:
    signing.create_key(tmp_path / "other.pem")
    code, out, err = say(release, "--key", tmp_path / "other.pem.pub", "--port", "0")
    assert (code, out) == (4, "")
    assert one_sentence(err)
    (release / "adapter_model.safetensors").write_bytes(b"Weights")
    for words in (("--key", key), ("--dir", site)):
        code, out, err = say(release, *words, "--port", "0")
        assert (code, out) == (4, "")
        assert one_sentence(err)
    (release / "model.sig").unlink()
    assert say(release, "--key", key, "--port", "0")[0] == 4
    assert loaded == []


def test_what_is_missing_is_wrong_usage(
    say: Any, release: Path, key: Path, loaded: list[Path], tmp_path: Path
) -> None:
    for words in (
        (tmp_path / "none", "--key", key),
        (release, "--key", tmp_path / "none"),
        (release, "--dir", tmp_path / "none"),
        (release, "--key", key, "--host", "192.0.2.1"),
    ):
        code, out, err = say(*words, "--port", "0")
        assert (code, out) == (2, "")
        assert one_sentence(err.splitlines()[-1])
    assert loaded == []


def test_a_taken_port_is_said_before_anything_is_loaded(
    say: Any, release: Path, key: Path, loaded: list[Path]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, out, err = say(release, "--key", key, "--port", other.getsockname()[1])
    assert (code, out) == (5, "")
    assert one_sentence(err)
    assert "--port" in err
    assert loaded == []


def test_an_address_that_others_reach_is_warned_about(
    say: Any, release: Path, key: Path, loaded: list[Path], answers: list[Any]
) -> None:
    code, out, err = say(release, "--key", key, "--port", "0", "--host", "0.0.0.0")
    assert code == 0
    assert out.startswith("serving r1 on http://0.0.0.0:")
    assert err.startswith("warning: 0.0.0.0 ")


def test_further_releases_and_limits_come_from_the_settings(
    say: Any, release: Path, key: Path, loaded: list[Path], answers: list[Any], tmp_path: Path
) -> None:
    other = make_release(tmp_path, "r2", tmp_path / "release.pem")
    config = tmp_path / "serving.toml"
    config.write_text('releases = ["r2"]')
    code, _, err = say(release, "--key", key, "--port", "0", "--config", config)
    assert (code, err) == (0, "")
    assert loaded == [release, other]
    (other / "adapter_model.safetensors").write_bytes(b"Weights")
    assert say(release, "--key", key, "--port", "0", "--config", config)[0] == 4
    for text in ('releases = ["none"]', "rows = 3", '[tls]\ncertificate = "c.pem"'):
        config.write_text(text)
        code, _, err = say(release, "--key", key, "--port", "0", "--config", config)
        assert code == 2
        assert one_sentence(err)
    config.write_text('[access]\nkeys = "required"')
    code, _, err = say(release, "--key", key, "--port", "0", "--config", config)
    assert (code, one_sentence(err)) == (2, True)
    assert loaded == [release, other]


def test_an_upstream_answers_for_a_release_that_verifies(
    say: Any, release: Path, key: Path, loaded: list[Path], answers: list[Any]
) -> None:
    words = ("--key", key, "--port", "0", "--upstream")
    assert say(release, *words, "http://127.0.0.1:9/v1")[0] == 0
    assert answers == [{"status": "ok", "model": "r1"}]
    code, _, err = say(release, *words, "127.0.0.1:9")
    assert (code, one_sentence(err)) == (2, True)
    (release / "model.sig").unlink()
    assert say(release, *words, "http://127.0.0.1:9/v1")[0] == 4
    assert loaded == []


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("clinic.example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_only_loopback_counts_as_this_machine(host: str, only_here: bool) -> None:
    assert listen.is_loopback(host) is only_here


def test_a_port_that_is_taken_is_not_yet_open() -> None:
    with listen.bind("127.0.0.1", 0) as held:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(held.getsockname(), timeout=5)
        held.listen()
        socket.create_connection(held.getsockname(), timeout=5).close()
        with pytest.raises(ClientError) as caught:
            listen.bind("127.0.0.1", held.getsockname()[1])
    assert caught.value.exit_code == 5
