"""Every byte that two institutions' processes send in a run: the same, whatever their records are.

Two real clients, whose records have nothing in common, take part in one run over TLS. Each request
to the coordinator is kept as it goes into the channel: path, headers and body.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import pytest
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from google.protobuf.json_format import MessageToDict

from tests.flow.machine import Machine

# Runs a client that also writes down what it sends to the coordinator.
_TAPPED = """
import base64, json, sys
import httpx, privity
real = httpx.HTTPTransport.handle_request
def tapped(transport, request):
    if request.url.scheme == "https":
        with open(sys.argv[1], "a") as out:
            body = base64.b64encode(request.read()).decode()
            out.write(json.dumps([request.url.path, dict(request.headers), body]) + "\\n")
    return real(transport, request)
httpx.HTTPTransport.handle_request = tapped
raise SystemExit(privity.main(["client", "run", sys.argv[2]]))
"""
_BODIES: Mapping[str, Any] = {
    "activate-node": fleet_pb2.ActivateNodeRequest,
    "deactivate-node": fleet_pb2.DeactivateNodeRequest,
    "pull-messages": fleet_pb2.PullMessagesRequest,
    "push-messages": fleet_pb2.PushMessagesRequest,
    "push-object": message_pb2.PushObjectRequest,
    "pull-object": message_pb2.PullObjectRequest,
    "confirm-message-received": message_pb2.ConfirmMessageReceivedRequest,
    "get-fab": fab_pb2.GetFabRequest,
    "get-run": run_pb2.GetRunRequest,
    "send-node-heartbeat": heartbeat_pb2.SendNodeHeartbeatRequest,
}
# Identifiers that Flower draws or hashes, and when the answer was given out, which is at one of few
# moments.
_OPAQUE = frozenset(
    ("nodeId", "srcNodeId", "messageId", "replyToMessageId", "objectId", "sessionId",
     "messageObjectId", "publicKey", "createdAt", "ttl")
)  # fmt: skip
_SIGNED = {"flwr-public-key", "flwr-timestamp", "flwr-signature"}
# How often these come is a matter of time; each is the same, byte for byte, but for identifiers.
_ASKING = {"pull-messages", "pull-object", "send-node-heartbeat", "get-run"}


def _without(node: int, data: bytes) -> bytes:
    """The bytes without a node's number, which Flower draws and which is of any length.

    It stands there as a varint of Protocol Buffers or in digits.
    """
    groups = [node >> shift & 0x7F for shift in range(0, max(1, node.bit_length()), 7)]
    varint = bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
    return data.replace(varint, b"").replace(str(node).encode(), b"") if node else data


def _plain(value: Any, node: int, key: str = "") -> Any:
    """A body's fields with every opaque one replaced by a mark, and an object by its length."""
    if isinstance(value, dict):
        return {name: _plain(item, node, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, node, key) for item in value]
    if key == "objectContent":
        return len(_without(node, base64.b64decode(value)))
    return "#" if key in _OPAQUE else value


def _described(line: str) -> tuple[str, str]:
    """The kind of one request, and all of it that is not opaque, as text."""
    path, headers, text = json.loads(line)
    kind, body = path.rpartition("/")[2], base64.b64decode(text)
    facts: Any = body.hex()
    shown = {name: "#" if name in _SIGNED else text for name, text in headers.items()}
    if kind in _BODIES:
        fields = MessageToDict(_BODIES[kind].FromString(body))
        node = int(fields.get("node", fields).get("nodeId", 0))
        if node:
            assert int(headers["content-length"]) == len(body)
            shown["content-length"] = str(len(_without(node, body)))
        facts = _plain(fields, node)
    if kind in _ASKING or kind == "push-messages":  # of numbers in as many bytes as they need
        shown.pop("content-length")
    return kind, json.dumps([path, shown, facts], sort_keys=True)


def sent(lines: list[str]) -> tuple[list[str], set[str]]:
    """What an institution says, in order, and the different ways in which it asks.

    Flower hands the parts of one message over from several threads: they are compared sorted.
    """
    told = [_described(line) for line in lines]
    said = [(kind, text) for kind, text in told if kind not in _ASKING]
    ordered = [
        text for _, part in groupby(said, key=itemgetter(0)) for text in sorted(t for _, t in part)
    ]
    return ordered, {text for kind, text in told if kind in _ASKING}


def _records(count: int, text: str, persons: int) -> Iterator[str]:
    for n in range(count):
        record = {"instruction": f"{text} {n}", "response": "surgery", "unit_id": f"q{n % persons}"}
        yield json.dumps(record) + "\n"


@pytest.mark.flow
def test_two_institutions_send_the_same_but_noise_and_digests(machine: Machine, live: Any) -> None:
    taps = {}
    few, many = _records(3, "Cough", 3), _records(40, "Zqfracture of the left wrist", 9)
    for name, records in (("clinic-a", few), ("clinic-b", many)):
        live.sites[name].data.write_text("".join(records))
        taps[name] = machine.logs / f"{name}.tap"
        with (machine.logs / f"{name}.log").open("wb") as log:
            client = subprocess.Popen(
                [sys.executable, "-c", _TAPPED, str(taps[name]), str(live.root / name)],
                env=machine.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        machine.running.append(client)
    run_file = live.run_file(quorum=2)
    machine.command("server", "run", live.coordinator.path, "--run", run_file)
    for client in machine.running[-2:]:
        client.send_signal(signal.SIGTERM)
        client.wait(timeout=60)
    lines = {name: tap.read_text().splitlines() for name, tap in taps.items()}
    assert b"Zqfracture" not in b"".join(tap.read_bytes() for tap in taps.values())
    (said_a, asked_a), (said_b, asked_b) = (sent(lines[name]) for name in sorted(lines))
    assert said_a == said_b
    assert asked_a == asked_b
    pushed = [text for text in said_a if "/push-object" in text]
    assert len(pushed) >= 6, "a decision and two updates, each of several objects"
    assert {text.split('"', 2)[1].rpartition("/")[2] for text in said_a} <= {*_BODIES, "health"}


def test_the_comparison_can_fail() -> None:
    def line(path: str, body: Any, **headers: str) -> str:
        return json.dumps([path, headers, base64.b64encode(body.SerializeToString()).decode()])

    def push(content: bytes, **headers: str) -> str:
        body = message_pb2.PushObjectRequest(object_id="a" * 64, object_content=content)
        return line("/v1/fleet/push-object", body, **headers)

    plain = [push(b"12345678")]
    assert sent(plain) == sent([push(b"87654321")])
    for other in ([push(b"123456789")], plain * 2, [push(b"12345678", x="1")]):
        assert sent(plain) != sent(other)
    for timed in (0.0, 0.5):
        body = fleet_pb2.PushMessagesRequest(clientapp_runtime_list=[timed])
        timing = line("/v1/fleet/push-messages", body, **{"content-length": "9"})
        assert ("0.5" in sent([timing])[0][0]) == (timed > 0)
