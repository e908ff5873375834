"""Real SuperLink, real SuperNodes and runners, TLS and node authentication, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.flow import tracing
from tests.flow.machine import READY_SECONDS, Machine, free_port

pytestmark = pytest.mark.flow


def test_two_institutions_train_release_and_a_stranger_verifies(
    machine: Machine, live: Any
) -> None:
    for name in live.sites:
        machine.service(name, "client", "run", live.root / name)
    run_file = live.run_file(evaluation="held.jsonl", quorum=2)
    (live.root / "held.jsonl").write_text(
        "".join(
            json.dumps({"instruction": f"Which desk? note {n}", "response": word}) + "\n"
            for n, word in enumerate(["billing", "cardiology", "billing"])
        )
    )
    coordinator = live.coordinator.path
    trained = json.loads(machine.command("server", "run", coordinator, "--run", run_file, "--json"))
    assert trained["participants"] == sorted(live.sites)
    released = json.loads(
        machine.command("server", "release", coordinator, "triage", "--run", run_file, "--json")
    )
    assert released["witnesses"] == sorted(live.sites)
    assert released["evaluation"]["records"] == 3
    found = json.loads(machine.command("audit", "verify", released["bundle"], "--json"))
    assert found["ok"], found["faults"]
    for site in found["institutions"]:
        held = json.loads(machine.command("client", "budget", live.root / site["name"], "--json"))
        assert site["epsilon"] == pytest.approx(held["spent"], abs=1e-3)
        assert 0 < held["spent"] <= held["cap"] == 2.0
    # One changed byte of the release, and the bundle is refused with exit code 4.
    card = Path(released["bundle"]) / "release" / "README.md"
    card.write_bytes(card.read_bytes()[:-1] + b"!")
    assert "README.md" in machine.command("audit", "verify", released["bundle"], code=4)
    status = json.loads(machine.command("server", "status", coordinator, "--json"))
    assert [site["connected"] for site in status["sites"]] == [True, True]
    # Of all these processes nobody spoke to anything but this machine: no telemetry, no updates.
    told = tracing.spoken(machine.logs)
    assert len([event for event, _, _ in told if event == "socket.connect"]) > 20
    assert [(event, address) for event, address, own in told if not own] == []


def test_an_address_elsewhere_would_be_noticed(tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for act in (lambda: s.connect(('127.0.0.1', 9)), lambda: s.connect(('192.0.2.1', 9)),\n"
        "            lambda: socket.getaddrinfo('telemetry.invalid', 443)):\n"
        "    try:\n"
        "        act()\n"
        "    except OSError:\n"
        "        pass\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=tracing.environment(tmp_path, os.environ),
        check=True, timeout=120,
    )  # fmt: skip
    assert [own for _, _, own in tracing.spoken(tmp_path)] == [True, False, False]


def test_a_stranger_with_the_certificate_reaches_nothing_but_the_fleet(live: Any) -> None:
    context = ssl.create_default_context(cafile=str(live.coordinator.tls / "ca.pem"))
    with httpx.Client(verify=context, trust_env=False) as stranger:
        base = f"https://127.0.0.1:{live.port}"
        assert stranger.get(f"{base}/health").status_code == 200
        for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/openapi.json",
                     "/v1/fleet/register-node"):  # fmt: skip
            assert stranger.post(base + path, content=b"x").status_code == 404, path
        head = {"content-type": "application/protobuf"}
        answer = stranger.post(f"{base}/v1/fleet/pull-messages", content=b"", headers=head)
        assert answer.status_code in (400, 401, 415, 422)
        control = f"http://127.0.0.1:{live.control}"
        for path in ("/v1/control/start-run", "/v1/runtime/acquire-task"):
            answer = stranger.post(control + path, content=b"", headers=head)
            assert answer.status_code == 401, path


def test_a_node_that_is_not_enrolled_or_is_revoked_is_refused(machine: Machine, live: Any) -> None:
    machine.command("server", "revoke", live.coordinator.path, "clinic-b")
    time.sleep(2.5)
    said = machine.command("client", "run", live.root / "clinic-b", code=3)
    assert "not enrolled" in said
    assert "Traceback" not in said


def test_a_second_client_with_the_same_identity_is_refused(machine: Machine, live: Any) -> None:
    machine.service("clinic-a", "client", "run", live.root / "clinic-a")
    machine.wait_for("clinic-a", "joining")
    said = machine.command("client", "run", live.root / "clinic-a", code=3)
    assert "already" in said


def test_a_certificate_for_another_host_is_refused(machine: Machine, live: Any) -> None:
    invitation = live.root / "clinic-a" / "invitation.json"
    # 127.0.0.2 is the same machine and no name of the certificate.
    settings = live.coordinator.path / "coordinator.toml"
    assert 'host = "127.0.0.1"' in settings.read_text()
    port = free_port()
    relay = subprocess.Popen(
        [sys.executable, "-c", _RELAY, str(port), str(live.port)], stdin=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        invitation.write_text(
            invitation.read_text().replace(f"127.0.0.1:{live.port}", f"127.0.0.2:{port}")
        )
        said = machine.command("client", "run", live.root / "clinic-a", code=4)
        assert "certificate" in said
    finally:
        relay.kill()
        relay.wait()


def test_a_coordinator_that_is_told_to_end_does_not_wait_for_a_client_that_hangs(
    machine: Machine, live: Any
) -> None:
    context = ssl.create_default_context(cafile=str(live.coordinator.tls / "ca.pem"))
    (coordinator,) = machine.running
    with (
        socket.create_connection(("127.0.0.1", live.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as channel,
    ):
        # A request whose body never comes, and no word that it will not.
        channel.sendall(
            b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n"
            b"content-type: application/protobuf\r\n\r\nbegun"
        )
        time.sleep(2)
        coordinator.send_signal(signal.SIGTERM)
        coordinator.wait(timeout=45)


@pytest.mark.soak
def test_a_coordinator_that_cannot_read_who_is_enrolled_serves_nobody(
    machine: Machine, live: Any
) -> None:
    for path in live.coordinator.path.glob("enrolled/*.json"):
        path.write_text("no json")
    (coordinator,) = machine.running
    assert coordinator.wait(timeout=120) == 1, "it ends, rather than go on with an old list"
    assert "could not be read" in (machine.logs / "coordinator.log").read_text()


_RELAY = """
import socket, sys, threading
def pump(a, b):
    while data := a.recv(65536):
        b.sendall(data)
listener = socket.create_server(("127.0.0.2", int(sys.argv[1])))
while True:
    near, _ = listener.accept()
    far = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def test_a_killed_client_leaves_no_runner_and_comes_back(machine: Machine, live: Any) -> None:
    child = machine.service("clinic-a", "client", "run", live.root / "clinic-a")
    machine.wait_for("clinic-a", "joining")
    deadline = time.monotonic() + READY_SECONDS
    while not (live.root / "clinic-a" / "runtime" / "node.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    runners = psutil.Process(child.pid).children(recursive=True)
    assert runners
    child.kill()
    child.wait()
    gone, alive = psutil.wait_procs(runners, timeout=10)
    assert gone
    assert not alive
    began = time.monotonic()
    machine.service("again", "client", "run", live.root / "clinic-a")
    machine.wait_for("again", "joining")
    status: dict[str, Any] = {"sites": []}
    while not any(site["connected"] for site in status["sites"]):
        assert time.monotonic() - began < 40
        status = json.loads(machine.command("server", "status", live.coordinator.path, "--json"))
