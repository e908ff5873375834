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


def _fields(kind: Any, data: bytes) -> Any:
    """A message of Protocol Buffers as fields, of which none is left out.

    Numbers take as many bytes as they need, and so do the lengths before them: fields are compared
    instead of bytes.
    """
    message = kind.FromString(data)
    message.DiscardUnknownFields()
    assert message.ByteSize() == len(data), "a field that is not known here"
    return _plain(MessageToDict(message))


def _object(content: bytes) -> Any:
    """An object of Flower's: its type, how many others it holds, and its fields or its length."""
    head, _, body = content.partition(b"\0")
    kind, children, length = head.decode().split(" ")
    assert int(length) == len(body)
    shown = _fields(message_pb2.Message, body) if kind == "Message" else len(body)
    return [kind, len(children), shown]


def _plain(value: Any, key: str = "") -> Any:
    """A body's fields with every opaque one replaced by a mark."""
    if isinstance(value, dict):
        return {name: _plain(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, key) for item in value]
    if key == "objectContent":
        return _object(base64.b64decode(value))
    return "#" if key in _OPAQUE else value


def _described(line: str) -> tuple[str, str]:
    """The kind of one request, and all of it that is not opaque, as text."""
    path, headers, text = json.loads(line)
    kind, body = path.rpartition("/")[2], base64.b64decode(text)
    facts: Any = body.hex()
    shown = {name: "#" if name in _SIGNED else text for name, text in headers.items()}
    if kind in _BODIES:
        facts = _fields(_BODIES[kind], body)
        assert int(shown.pop("content-length")) == len(body)
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
        data = body.SerializeToString()
        headers |= {"content-length": str(len(data))}
        return json.dumps([path, headers, base64.b64encode(data).decode()])

    def push(body: bytes, head: str = "Array ", **headers: str) -> str:
        content = f"{head} {len(body)}".encode() + b"\0" + body
        asked = message_pb2.PushObjectRequest(object_id="a" * 64, object_content=content)
        return line("/v1/fleet/push-object", asked, **headers)

    def answer(node: int, group: str = "plan") -> str:
        facts = message_pb2.Metadata(src_node_id=node, group_id=group, message_type="t" * 97)
        return push(message_pb2.Message(metadata=facts).SerializeToString(), f"Message {'b' * 64}")

    plain = [push(b"12345678")]
    assert sent(plain) == sent([push(b"87654321")])
    others = ([push(b"123456789")], plain * 2, [push(b"12345678", x="1")],
              [push(b"12345678", f"Array {'b' * 64}")])  # fmt: skip
    for other in others:
        assert sent(plain) != sent(other)
    short, long = answer(2), answer(2**64 - 1)  # of one byte and ten, and its length of one and two
    assert len(short) < len(long)
    assert sent([short]) == sent([long]) != sent([answer(2**64 - 1, "plot")])
    for timed in (0.0, 0.5):
        body = fleet_pb2.PushMessagesRequest(clientapp_runtime_list=[timed])
        timing = line("/v1/fleet/push-messages", body)
        assert ("0.5" in sent([timing])[0][0]) == (timed > 0)
