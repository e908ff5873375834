"""Strangers at the coordinator's door: turned away, told nothing, and written down."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from server.strangers import Strangers
from tests.flow.machine import Machine


@pytest.mark.flow
def test_no_token_no_key_and_a_strangers_key_reach_nothing_and_are_recorded(
    machine: Machine, live: Any
) -> None:
    folder = live.coordinator
    context = ssl.create_default_context(cafile=str(folder.tls / "ca.pem"))
    public, control = f"https://127.0.0.1:{live.port}", f"http://127.0.0.1:{live.control}"
    bodies = []
    with httpx.Client(verify=context, trust_env=False) as stranger:
        # Only the authority's certificate: the other interfaces are not to be found ...
        for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/v1/agent/x"):
            answer = stranger.post(public + path, content=b"")
            assert answer.status_code == 404, path
            bodies.append(answer.content)
        # ... a node that signs nothing is none ...
        head = {"content-type": "application/protobuf"}
        answer = stranger.post(f"{public}/v1/fleet/pull-messages", content=b"", headers=head)
        assert 400 <= answer.status_code < 500
        # ... and on the coordinator's own machine a token is wanted.
        for token in ({}, {"Authorization": "Bearer " + "0" * 64}):
            answer = stranger.post(
                f"{control}/v1/control/start-run", content=b"", headers=head | token
            )
            assert answer.status_code == 401
            bodies.append(answer.content)
    assert all(len(body) < 300 for body in bodies)
    # A stranger's own node key, with everything else of a site's in order.
    other = ec.generate_private_key(ec.SECP384R1())
    key = live.root / "clinic-b" / "keys" / "node.key"
    key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    said = machine.command("client", "run", live.root / "clinic-b", code=3)
    assert "not enrolled" in said
    seen = [e.event.fields["interface"] for e in folder.log().entries("access-refused")]
    assert sorted(seen) == ["control", "fleet", "other", "runtime"]  # once each, not for each try
    status = json.loads(machine.command("server", "status", folder.path, "--json"))
    assert not any(site["connected"] for site in status["sites"])


def _knock(app: Any, path: str) -> list[int]:
    answered: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    asyncio.run(app({"type": "http", "path": path, "headers": []}, None, send))
    return answered


def _answers(status: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})

    return app


@pytest.mark.parametrize(
    ("status", "closed", "noted"),
    [(200, True, 0), (401, True, 1), (403, False, 1), (404, True, 1), (404, False, 0)],
)
def test_a_refusal_is_written_down_once_however_often_somebody_knocks(
    tmp_path: Path, status: int, closed: bool, noted: int
) -> None:
    from server import store

    folder = store.create(tmp_path / "c", name="hub", host="h", port=8443, control_port=8444)
    watched = Strangers(folder.log).watch(_answers(status), closed=closed)
    for _ in range(50):
        assert _knock(watched, "/v1/fleet/pull-messages") == [status]
    assert len(list(folder.log().entries("access-refused"))) == noted


def test_a_log_that_cannot_be_written_still_turns_strangers_away() -> None:
    def broken() -> Any:
        raise OSError

    assert _knock(Strangers(broken).watch(_answers(401), closed=True), "/x") == [401]
