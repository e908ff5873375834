"""The SuperLink: Flower's own classes behind two ports of ours.

Flower serves its fleet, control and runtime interfaces on one port and guards only the first.
Here the public port answers `/v1/fleet/*` and `/health` and nothing else, over TLS and to
enrolled node keys; control and runtime live on a loopback port behind a bearer token and the
runtime secret.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import uvicorn
from flwr.common.constant import (
    HEARTBEAT_DEFAULT_INTERVAL,
    ISOLATION_MODE_PROCESS,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    TRANSPORT_TYPE_GRPC_RERE,
)
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import NodeStatus
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from server import metrics, pki, relief, renewal
from server.errors import ServerError
from server.store import Folder
from server.strangers import Strangers
from server.traffic import Traffic

log = logging.getLogger("privity.link")

Asgi = Callable[[Any, Any, Any], Any]

BODY_LIMIT_BYTES = 16 * 1024 * 1024
_PUBLIC = "/v1/fleet/"
_SYNC_SECONDS = 1.0
_SAVE_SECONDS = 5.0
# How long the node list may be out of step with the enrolled keys before nobody is served.
_BLIND_SECONDS = 30.0
# Who ends waits this long for requests under way: a client that hangs must not hold it up.
_LEAVE_SECONDS = 5
_HANG_SECONDS = 20.0
# Sites are enrolled by their operator and the coordinator's, never by a node itself.
_CLOSED = frozenset({"/v1/fleet/register-node", "/v1/fleet/unregister-node"})


class TokenAuthn(NoOpControlAuthnPlugin):
    """Flower's control interface for the holder of one bearer token, and nobody else."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token.encode()

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Compare in constant time; no token or a wrong one means no."""
        given = [value for _, value in metadata]
        if len(given) != 1:
            return False, None
        token = given[0] if isinstance(given[0], bytes) else given[0].encode()
        if not hmac.compare_digest(token, self._token):
            return False, None
        return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


def fleet_only(app: Asgi) -> Asgi:
    """Wrap `app` so that only the fleet interface and health exist, with bounded bodies."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        allowed = path == "/health" or (path.startswith(_PUBLIC) and path not in _CLOSED)
        if not allowed:
            await _answer(send, 404)
            return
        lengths = [value for key, value in scope["headers"] if key == b"content-length"]
        if path != "/health" and not (
            len(lengths) == 1 and lengths[0].isdigit() and int(lengths[0]) <= BODY_LIMIT_BYTES
        ):
            await _answer(send, 413)
            return
        await app(scope, receive, send)

    return guarded


async def _answer(send: Any, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def application(folder: Folder) -> Any:
    """Flower's SuperLink application over this folder's database, token and runtime secret."""
    settings = folder.settings
    config = SuperLinkLifespanConfig(
        control_address=f"127.0.0.1:{settings.control_port}",
        health_server_address=None,
        host="127.0.0.1",
        port=settings.control_port,
        insecure=True,
        certificates=None,
        superexec_auth_secret=folder.runtime_secret(),
        authn_plugin=TokenAuthn(folder.control_token()),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(folder.link_database),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


def synchronise(state: Any, enrolled: Mapping[str, str]) -> None:
    """Make the SuperLink's node list the enrolled one: `enrolled` maps OpenSSH keys to names.

    Guarantees: afterwards exactly the enrolled keys may authenticate; a revoked node is refused
        from its next call on. A damaged key shuts out its own site alone.
    """
    wanted = {}
    for line, name in enrolled.items():
        key = pki.node_key(line)
        if key is None:
            _warn(name)
        else:
            wanted[key] = name
    known = {info.public_key: info for info in state.get_node_info(owner_aids=[NOOP_FLWR_AID])}
    for key, info in known.items():
        if key not in wanted and info.status != NodeStatus.UNREGISTERED:
            state.delete_node(owner_aid=NOOP_FLWR_AID, node_id=info.node_id)
    for key, name in wanted.items():
        # A key that was revoked once stays revoked: Flower never forgets it, and neither do we.
        if key not in known:
            state.create_node(
                owner_aid=NOOP_FLWR_AID,
                owner_name=NOOP_ACCOUNT_NAME,
                public_key=key,
                heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL,
                name=name,
            )


@functools.cache  # said once, not every second
def _warn(name: str) -> None:
    log.warning(
        "the enrolled node key of %s is damaged, so nobody can connect with it; revoke %s and "
        "enrol the site under a new name with new keys",
        name,
        name,
    )


def connected_keys(state: Any, lines: Iterable[str]) -> list[str]:
    """Those of the OpenSSH keys in `lines` whose node is connected."""
    infos = state.get_node_info(owner_aids=[NOOP_FLWR_AID], statuses=[NodeStatus.ONLINE])
    online = {info.public_key for info in infos}
    return [line for line in lines if pki.node_key(line) in online]


class _InStep:
    """What the SuperLink knows of nodes, kept as enrolment has it while both servers run.

    Attributes:
        blind: why the enrolled nodes could not be read for so long that nobody may be let in.
    """

    def __init__(
        self, folder: Folder, state: Any, traffic: Traffic, servers: tuple[Any, Any]
    ) -> None:
        self._folder, self._state, self._traffic, self._servers = folder, state, traffic, servers
        self._loaded, self._saved = _stamp(folder), 0.0
        self.blind: Exception | None = None
        synchronise(state, folder.node_keys())

    async def keep(self) -> None:
        """Look again and again until a server ends or nothing can be seen; then both end."""
        stepped = time.monotonic()
        while not any(server.should_exit for server in self._servers):
            await asyncio.sleep(_SYNC_SECONDS)
            try:
                self._look()
                stepped = time.monotonic()
            except Exception as fault:
                log.error("enrolled nodes could not be compared (%s)", type(fault).__name__)
                if time.monotonic() > stepped + _BLIND_SECONDS:
                    self.blind = fault  # nobody is let in whose key may be revoked
                    break
        for server in self._servers:
            server.should_exit = True

    def _look(self) -> None:
        self._loaded = _reload(self._folder, self._servers[0], self._loaded)
        keys = self._folder.node_keys()
        if len(set(keys.values())) < len(keys):  # some site renews its key
            renewal.finish(self._folder, connected_keys(self._state, keys))
            keys = self._folder.node_keys()
        synchronise(self._state, keys)
        if time.time() >= self._saved + _SAVE_SECONDS:
            self._saved = time.time()
            self._traffic.save(self._folder.traffic)


def serve(folder: Folder, *, ready: Callable[[], None]) -> None:
    """Run the SuperLink until SIGINT or SIGTERM.

    Raises:
        ServerError: a port is taken (exit code 5), with the setting to change.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    app, strangers = application(folder), Strangers(folder.log)
    settings = folder.settings
    traffic = Traffic(time.time())
    stop_metrics = metrics.serve(folder, traffic)
    public = _listen(settings.bind, settings.port, "port")
    private = _listen("127.0.0.1", settings.control_port, "control_port")
    common: dict[str, Any] = {
        "log_config": None,
        "log_level": "warning",
        "access_log": False,
        "workers": 1,
        "timeout_graceful_shutdown": _LEAVE_SECONDS,
        "ws": "none",
    }
    outer = uvicorn.Server(
        uvicorn.Config(
            strangers.watch(traffic.counting(fleet_only(app)), closed=True),
            lifespan="off",
            ssl_certfile=folder.tls / "server.pem",
            ssl_keyfile=str(folder.tls / "server.key"),
            h11_max_incomplete_event_size=64 * 1024,
            **common,
        )
    )
    inner = uvicorn.Server(uvicorn.Config(strangers.watch(app, closed=False), **common))

    async def main() -> None:
        state = app.state.linkstate_factory.state()
        relief.relieve(state)
        relief.one_at_a_time()
        step = _InStep(folder, state, traffic, (outer, inner))

        async def announce() -> None:
            while not (outer.started and inner.started):
                await asyncio.sleep(0.05)
            ready()

        tasks = [asyncio.create_task(step.keep()), asyncio.create_task(announce())]
        try:
            await asyncio.gather(inner.serve([private]), outer.serve([public]))
        finally:
            for task in tasks:
                task.cancel()
            stop_metrics()
            folder.traffic.unlink(missing_ok=True)
        if step.blind is not None:
            raise ServerError(
                f"the enrolled nodes in {folder.path} could not be read for {_BLIND_SECONDS:g} s "
                f"({type(step.blind).__name__}), so nobody may connect; see to the disk and the "
                "folder's permissions, then start again",
                code="enrolment-unreadable",
                exit_code=1,
            )

    threading.Thread(target=_end_in_time, args=(inner, outer), name="end", daemon=True).start()
    asyncio.run(main())


def _end_in_time(*servers: uvicorn.Server) -> None:
    """End the process soon after a server was told to end, whatever still hangs in it.

    Nothing is lost: the database is written through, as for a process that is killed.
    """
    while not any(server.should_exit for server in servers):
        time.sleep(_SYNC_SECONDS)
    time.sleep(_HANG_SECONDS)
    log.warning(
        "some requests or threads did not end within %g s; ended without them", _HANG_SECONDS
    )
    os._exit(0)


def _stamp(folder: Folder) -> int:
    return (folder.tls / "server.pem").stat().st_mtime_ns


def _reload(folder: Folder, server: uvicorn.Server, loaded: int) -> int:
    """Let new connections see a renewed certificate; returns the stamp of the one in use."""
    stamp = _stamp(folder)
    if stamp == loaded or server.config.ssl is None:
        return loaded
    try:
        server.config.ssl.load_cert_chain(folder.tls / "server.pem", folder.tls / "server.key")
    except (OSError, ssl.SSLError):
        return loaded  # the other half of the pair is being written
    return stamp


def _listen(host: str, port: int, setting: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise ServerError(
            f"{host}:{port} is taken or not ours; stop the other program or change '{setting}' in "
            "coordinator.toml",
            code="port-taken",
            exit_code=5,
        ) from None
    listener.listen(256)
    return listener


def private_address(folder: Folder) -> str:
    """Where control and runtime listen, for commands on the coordinator's own machine."""
    return f"127.0.0.1:{folder.settings.control_port}"
