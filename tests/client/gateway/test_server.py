"""Over real sockets: words come as they are written, who goes is let go, who began is let end."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client import serving
from tests.client.serving_world import ASK, Fake, make_release

LONG = " ".join(f"word{number}" for number in range(200))


@contextmanager
def running(root: Path, engine: Fake, **more: Any) -> Iterator[tuple[str, Any]]:
    """Serve as `privity serve` does, in a thread, until the block ends."""
    release = make_release(root, "r1", root / "key")
    started = threading.Event()
    seen: dict[str, Any] = {}
    settings = serving.Serving.model_validate(more)

    def ready(name: str, address: str) -> None:
        seen["address"] = address
        started.set()

    serve = uvicorn.Server.run

    def run(server: uvicorn.Server, sockets: Any = None) -> None:
        seen["server"] = server
        serve(server, sockets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "_engine", lambda paths, settings, notary: engine)
        patch.setattr(uvicorn.Server, "run", run)
        thread = threading.Thread(
            target=lambda: serving.serve(
                [release], key=root / "key.pub", port=0, ready=ready, settings=settings
            )
        )
        thread.start()
        assert started.wait(120)
        until(lambda: "server" in seen and seen["server"].started)
        try:
            yield seen["address"], seen["server"]
        finally:
            seen["server"].should_exit = True
            thread.join(300)
            assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def test_words_come_while_the_answer_is_written(tmp_path: Path) -> None:
    engine = Fake(text=LONG)
    engine.pause = 0.01
    with running(tmp_path, engine) as (url, _), httpx.Client(trust_env=False) as http:
        asked = {**ASK, "stream": True}
        times = []
        with http.stream("POST", f"{url}/v1/chat/completions", json=asked) as answer:
            for line in answer.iter_lines():
                if '"content": "word' in line or '"content": " word' in line:
                    times.append(time.monotonic())
        assert len(times) == 200
        assert times[-1] - times[0] > 1  # of the two seconds that it takes


@pytest.mark.parametrize("stream", [True, False])
def test_whoever_hangs_up_is_not_answered_further(tmp_path: Path, stream: bool) -> None:
    engine = Fake(text=LONG)
    engine.pause = 0.05
    with running(tmp_path, engine) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps({**ASK, "stream": stream}).encode()
        with socket.create_connection((host, int(port))) as wire:
            wire.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: "
                f"application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            if stream:
                wire.recv(100)
            until(lambda: len(engine.calls) == 1)
        began = time.monotonic()
        until(lambda: engine.closed == 1)
        assert time.monotonic() - began < 5  # the answer would have taken ten
        page = httpx.get(f"{url}/metrics", trust_env=False).text
        assert 'privity_requests_total{model="r1",outcome="cancelled"} 1.0' in page


def test_an_answer_that_began_ends_before_the_service_stops(tmp_path: Path) -> None:
    said = " ".join(LONG.split(" ")[:40])
    engine = Fake(text=said)
    engine.pause = 0.01
    found: list[Any] = []
    with running(tmp_path, engine, drain_s=300) as (url, server):

        def ask() -> None:
            answer = httpx.post(
                f"{url}/v1/chat/completions", json=ASK, timeout=300, trust_env=False
            )
            found.append(answer.json()["choices"][0]["message"]["content"])

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: len(engine.calls) == 1)
        server.handle_exit(15, None)
        thread.join(300)
        assert found == [said]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", trust_env=False)


def test_with_a_certificate_it_speaks_tls_only(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "c.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "k.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = {"certificate": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")}
    with running(tmp_path, Fake(), tls=tls) as (url, _):
        assert url.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(tmp_path / "c.pem"))
        there = url.replace("127.0.0.1", "localhost")
        answer = httpx.post(
            f"{there}/v1/chat/completions", json=ASK, verify=trusted, trust_env=False
        )
        assert answer.status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/health", trust_env=False)
