"""What we use of Flower beyond its public interface, pinned: a new version must not surprise us."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.node import BODY_LIMIT_BYTES, TokenAuthn, fleet_only

ROOT = Path(__file__).parent.parent

# module, name, the parameters that we rely on (in order; "*" marks keyword-only ones)
CALLS = [
    ("flwr.supernode.start_client_internal", "start_client_internal",
     ["state_factory", "server_address", "node_config", "root_certificates", "insecure",
      "authentication_keys", "isolation", "runtime_api_address", "superexec_auth_secret",
      "runtime_dependency_install"]),
    ("flwr.supernode.main", "create_app", ["state_factory", "superexec_auth_secret"]),
    ("flwr.supernode.runtime.run_clientapp", "pull_task_input", ["client"]),
    ("flwr.supernode.runtime.run_clientapp", "push_message", ["client", "message", "context"]),
    ("flwr.supernode.runtime.run_clientapp", "push_task_output",
     ["client", "context", "sub_status", "details"]),
    ("flwr.supercore.inflatable.inflatable_object", "iterate_object_tree", ["tree"]),
    ("flwr.supercore.inflatable.inflatable_utils", "inflate_object_from_contents",
     ["object_id", "object_contents"]),
    ("flwr.supercore.heartbeat", "make_task_heartbeat_fn_http", ["client"]),
    ("flwr.supercore.retry", "make_simple_http_retry_invoker", []),
    ("flwr.supercore.primitives.asymmetric", "public_key_to_bytes", ["public_key"]),
    ("flwr.superlink.main", "create_app", ["config", "superlink_lifespan_class"]),
    ("flwr.common.serde", "run_from_proto", ["run_proto"]),
]  # fmt: skip
METHODS = [
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState", "get_messages_legacy",
     ["self", "run_ids", "is_reply", "limit"]),
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState", "delete_messages",
     ["self", "message_ids"]),
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState", "create_task",
     ["self", "task_type", "run_id"]),
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState", "store_message",
     ["self", "message"]),
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState", "set_node_id",
     ["self", "node_id"]),
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState",
     "get_message_processing_duration", ["self", "message_id"]),
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState",
     "_store_generated_message", ["self", "message"]),
    ("flwr.supernode.nodestate", "NodeStateFactory", "__init__", ["self", "objectstore_factory"]),
    ("flwr.supercore.runtime", "RuntimeHttpClient", "from_server_address",
     ["server_address", "insecure", "root_certificates", "interceptors"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient", "from_server_address",
     ["server_address", "insecure", "root_certificates"]),
    ("flwr.supercore.control", "ControlHttpClient", "from_server_address",
     ["server_address", "insecure", "root_certificates", "interceptors"]),
    ("flwr.superlink.auth_plugin", "NoOpControlAuthnPlugin", "validate_tokens_in_metadata",
     ["self", "metadata"]),
    ("flwr.superlink.grid", "HttpGrid", "push_messages", ["self", "messages"]),
    ("flwr.superlink.grid", "HttpGrid", "pull_messages", ["self", "message_ids"]),
    ("flwr.superlink.grid", "HttpGrid", "get_nodes", ["self"]),
    ("flwr.superlink.grid", "HttpGrid", "set_run", ["self", "run"]),
    ("flwr.supercore.object_store", "ObjectStore", "get_object_tree", ["self", "object_id"]),
    ("flwr.supercore.object_store", "ObjectStore", "delete", ["self", "object_id"]),
]  # fmt: skip


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("flwr") == "1.41.0"


@pytest.mark.parametrize(
    "file",
    ["client/node.py", "client/gate.py", "client/runner.py", "client/identity.py",
     "server/node.py", "server/flower.py", "privacy/flower.py"],
)  # fmt: skip
def test_every_name_that_a_door_imports_exists(file: str) -> None:
    text = (ROOT / file).read_text()
    imports = re.findall(r"^from (flwr[\w.]*) import (?:\(([^)]*)\)|(.+))$", text, re.M)
    assert imports
    for module, several, one in imports:
        for item in (several or one).split(","):
            name = item.split(" as ")[0].strip()
            if not name:
                continue
            loaded = importlib.import_module(module)
            if not hasattr(loaded, name):
                importlib.import_module(f"{module}.{name}")


def _has(call: Any, wanted: list[str]) -> None:
    given = list(inspect.signature(call).parameters)
    positions = [given.index(name) for name in wanted]
    assert positions == sorted(positions), given


@pytest.mark.parametrize(("module", "name", "parameters"), CALLS)
def test_functions_take_what_we_hand_them(module: str, name: str, parameters: list[str]) -> None:
    _has(getattr(importlib.import_module(module), name), parameters)


@pytest.mark.parametrize(("module", "kind", "name", "parameters"), METHODS)
def test_methods_take_what_we_hand_them(
    module: str, kind: str, name: str, parameters: list[str]
) -> None:
    _has(getattr(getattr(importlib.import_module(module), kind), name), parameters)


@pytest.mark.parametrize("name", ["pull_objects", "pull_and_inflate_object_from_tree"])
def test_who_waits_for_a_part_asks_again_soon(name: str) -> None:
    from flwr.supercore.inflatable import inflatable_utils

    from privacy import flower

    defaults = getattr(inflatable_utils, name).__kwdefaults__
    before = dict(defaults)
    assert before.keys() >= {"initial_backoff", "backoff_cap", "max_tries_per_object"}
    try:
        flower.hasten()
        assert defaults["initial_backoff"] < 0.1
        patience = defaults["backoff_cap"] * defaults["max_tries_per_object"]
        assert patience >= defaults["max_time"], "Flower's own limit is the one that ends it"
    finally:
        defaults.update(before)


def test_a_heartbeat_waits_for_its_next_try_through_a_name_that_can_be_replaced() -> None:
    from flwr.supercore import heartbeat

    from client import node

    source = inspect.getsource(heartbeat.HeartbeatSender)
    assert "lambda: exponential(max_delay=20)" in source
    waits = node._soon(max_delay=20)
    assert [next(waits) for _ in range(4)] == [1, 2, 4, 4]


def test_the_loop_waits_through_its_own_time_name() -> None:
    from flwr.supernode import start_client_internal as loop

    source = inspect.getsource(loop)
    assert "\nimport time\n" in source
    assert "time.sleep(" in source
    assert "from time import" not in source


def test_the_longest_pause_between_two_tries_is_a_name_that_is_read_late() -> None:
    from flwr.supercore.retry import http_retry

    source = inspect.getsource(http_retry.make_simple_http_retry_invoker)
    assert "lambda: exponential(max_delay=MAX_RETRY_DELAY)" in source
    assert '"certificate", "ssl", "tls"' in source


def test_the_loop_sends_what_the_gated_state_returns() -> None:
    from flwr.supernode import start_client_internal as loop

    source = inspect.getsource(loop._push_messages)
    assert "state.get_messages_legacy(is_reply=True)" in source
    assert "get_message_processing_duration" in source
    assert "object_store.get_object_tree(message.metadata.message_id)" in source
    assert loop.__dict__["_push_messages"] is loop._push_messages


def test_the_state_keeps_requests_until_they_are_answered() -> None:
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState, MessageEntry

    state = InMemoryNodeState(ObjectStoreFactory().store())
    assert state.msg_store == {}
    assert state.object_store is not None
    with state.lock_msg_store:
        pass
    assert list(MessageEntry.__dataclass_fields__) == ["message", "is_retrieved"]


def test_the_fields_of_the_superlinks_configuration_are_the_known_ones() -> None:
    from flwr.superlink.config_loader import SuperLinkLifespanConfig

    from server import node

    given = set(re.findall(r"^        (\w+)=", inspect.getsource(node.application), re.M))
    assert given == set(inspect.signature(SuperLinkLifespanConfig).parameters)


@pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")  # Flower's migrations
def test_a_node_that_came_back_is_told_by_when_it_was_activated(tmp_path: Path) -> None:
    from flwr.server.superlink.linkstate import LinkStateFactory
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager

    place = str(tmp_path / "link.sqlite")
    state = LinkStateFactory(place, NoOpFederationManager(), ObjectStoreFactory()).state()
    node = state.create_node("owner", "owner", b"key", 30.0, name="clinic-a")

    def since() -> str | None:
        (info,) = state.get_node_info(node_ids=[node])
        return info.last_activated_at

    assert state.activate_node(node, 30.0)
    first = since()
    assert state.acknowledge_node_heartbeat(node, 30.0)
    assert since() == first, "not by a heartbeat"
    assert not state.activate_node(node, 30.0), "a second client of the same key is refused"
    assert state.deactivate_node(node)
    assert state.activate_node(node, 30.0)
    assert since() != first


def test_the_private_grid_names_exist() -> None:
    from flwr.superlink.grid import HttpGrid

    source = inspect.getsource(HttpGrid)
    assert "_runtime_client" in source
    assert "_retry_invoker" in source
    assert callable(HttpGrid.close)


# -- the public port ------------------------------------------------------------------------------


async def _inner(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def _status(method: str, path: str, **more: Any) -> int:
    async def ask() -> int:
        transport = httpx.ASGITransport(app=fleet_only(_inner))
        async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
            return (await client.request(method, path, **more)).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/v1/control/start-run", "/v1/runtime/acquire-task",
     "/v1/fleet", "/v1/fleets/x", "/v1/fleet/register-node", "/v1/fleet/unregister-node",
     "/V1/fleet/pull-messages", "//v1/fleet/pull-messages", "/health/", "/v1/control/../fleet/x",
     "/v1/fleet/../control/start-run"],
)  # fmt: skip
def test_only_the_fleet_interface_exists_outside(path: str) -> None:
    if ".." in path:  # the client resolves dots, so it is asked as a proxy would pass it on
        assert _raw_status(path) in (404, 200 if path.startswith("/v1/fleet/") else 404)
        return
    assert _status("POST", path, content=b"x") == 404


def _raw_status(path: str) -> int:
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "path": path, "headers": [(b"content-length", b"0")]}
        await fleet_only(_inner)(scope, receive, send)

    asyncio.run(ask())
    return int(sent[0]["status"])


def test_the_routes_that_nodes_need_are_open_and_the_others_of_flower_are_not() -> None:
    from flwr.supernode import fleet_http_client

    used = set(re.findall(r'"(/v1/fleet/[\w-]+)"', inspect.getsource(fleet_http_client)))
    used = used or {"/v1/fleet/pull-messages"}
    for path in used - {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}:
        assert _status("POST", path, content=b"x") == 200
    assert _status("GET", "/health") == 200


@pytest.mark.parametrize(
    "headers",
    [[], [(b"content-length", str(BODY_LIMIT_BYTES + 1).encode())], [(b"content-length", b"-1")],
     [(b"content-length", b"1e3")], [(b"content-length", b"1"), (b"content-length", b"2")],
     [(b"transfer-encoding", b"chunked")]],
)  # fmt: skip
def test_a_body_without_a_bounded_length_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "path": "/v1/fleet/push-object", "headers": headers}
        await fleet_only(_inner)(scope, None, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 413


def test_a_body_at_the_limit_passes() -> None:
    assert _status("POST", "/v1/fleet/push-object", content=b"x" * 1000) == 200


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_nothing_but_http_reaches_flower_through_the_public_port(kind: str) -> None:
    async def inner(*_: Any) -> None:
        pytest.fail("the inner application was called")

    asyncio.run(fleet_only(inner)({"type": kind}, None, None))


@pytest.mark.parametrize(
    ("metadata", "admitted"),
    [
        ([("authorization", "right")], True),
        ([("authorization", b"right")], True),
        ([("authorization", "wrong")], False),
        ([("authorization", "")], False),
        ([], False),
        ([("authorization", "right"), ("authorization", "right")], False),
    ],
)
def test_only_the_holder_of_the_token_controls(metadata: Any, admitted: bool) -> None:
    valid, account = TokenAuthn("right").validate_tokens_in_metadata(metadata)
    assert valid is admitted
    assert (account is not None) is admitted
