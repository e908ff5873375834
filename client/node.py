"""The SuperNode: Flower's own loop, composed with the gate and a runner of our own.

The node's key, the connection and the gate live in this process; records never do. The runner is
a child process that takes tasks over loopback.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import uvicorn
from flwr.common.constant import ISOLATION_MODE_PROCESS
from flwr.supercore import heartbeat
from flwr.supercore.retry import exponential, http_retry
from flwr.supernode import start_client_internal as loop
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from client import alarms, cell, connect, identity, metrics
from client.errors import ClientError
from client.folder import Folder
from client.gate import GatedFactory, GatedNodeState
from client.transport import Transport
from configs import files
from privacy import flower

log = logging.getLogger("privity.node")

_SLEEP_CAP_SECONDS = 0.2
_IDLE_CAP_SECONDS = 2.0
# Flower's shorter waits are for this process's own runner, and ask nobody else.
_OWN_WAIT_SECONDS = 1.0
_OWN_CAP_SECONDS = 0.05
_ACTIVE_SECONDS = 60.0
# Flower waits up to 20 s between two tries; a site should be back sooner than that.
_RETRY_SECONDS = 4.0
# Who tells the whole group to end reaches the runner first; the node is given so long to follow.
_TOGETHER_SECONDS = 10.0


class _ShortSleeps:
    """The `time` module with capped sleeps, for the loop whose 3 s waits are fixed in its code.

    A node that has just had a message asks often, so that rounds follow each other; an idle one
    asks seldom, so that a hundred of them do not keep the coordinator busy.
    """

    def __init__(self, state: GatedNodeState) -> None:
        self._state = state

    def sleep(self, seconds: float) -> None:
        idle = time.monotonic() - self._state.active_at > _ACTIVE_SECONDS
        if seconds < _OWN_WAIT_SECONDS:
            cap = _OWN_CAP_SECONDS
        else:
            cap = _IDLE_CAP_SECONDS if idle else _SLEEP_CAP_SECONDS
        time.sleep(min(seconds, cap))

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _soon(max_delay: float) -> Iterator[float]:
    """How long a heartbeat that did not arrive waits for its next try: less than Flower lets it."""
    return exponential(max_delay=int(min(max_delay, _RETRY_SECONDS)))


def run(folder: Folder, *, report: Callable[[str], None]) -> None:
    """Run SuperNode, gate and runner until SIGINT or SIGTERM.

    Raises:
        ClientError: not invited, the coordinator is unreachable (5), is not who the invitation
            names (4), does not know this node (3), the folder is in use (3), or the trainer cannot
            be cut off from the network and must be (3).
    """
    invitation = folder.invitation()
    traffic = Transport()
    traffic.watch()
    http_retry.MAX_RETRY_DELAY = _RETRY_SECONDS
    heartbeat.exponential = _soon
    flower.hasten()
    with folder.lock():
        cell.check(folder)
        try:
            connect.wait_for(folder, invitation, report=report)
        except ClientError as fault:
            alarms.note(folder, fault)
            raise
        state = GatedFactory(folder)
        secret = folder.runtime / "superexec.secret"
        secret.unlink(missing_ok=True)
        files.create_secret(secret)
        server, port = _runtime(folder, state, files.read_secret(secret))
        address = f"127.0.0.1:{port}"
        stop_metrics = metrics.serve(folder, traffic)
        runner = _Runner(folder, address)  # first: it takes seconds to be ready
        try:
            identity.release_predecessor(folder, invitation, folder.node_key())
            identity.try_next_key(folder, invitation)
            private = folder.node_key()
            loop.time = _ShortSleeps(state.state())
            report(f"reached {invitation.coordinator}, joining")
            loop.start_client_internal(
                state_factory=state,
                server_address=invitation.coordinator,
                node_config={},
                root_certificates=invitation.authority,
                insecure=False,
                authentication_keys=(private, private.public_key()),
                isolation=ISOLATION_MODE_PROCESS,
                runtime_api_address=address,
                superexec_auth_secret=files.read_secret(secret),
                runtime_dependency_install=False,
            )
        except SystemExit as ended:
            # Who left by itself took back what the coordinator holds of it. Who was stopped while
            # joining may be held there without knowing: the mark lets its successor release it.
            if ended.code in (0, None) and state.state().joined:
                identity.forget(folder)
            if runner.lost:
                raise ClientError(
                    "the runner stopped, so no answer can be given; read its last lines above and "
                    "start the client again",
                    code="runner-stopped",
                    exit_code=1,
                ) from None
            if ended.code not in (0, None) or traffic.refused:
                raise ClientError(
                    f"{invitation.coordinator} did not take this node: its key is not enrolled or "
                    "was revoked, or another client with the same identity is connected; ask the "
                    "coordinator, and stop the other client",
                    code="not-admitted",
                    exit_code=3,
                ) from None
        except httpx.HTTPError:
            raise ClientError(
                f"{invitation.coordinator} answered what this node cannot work with; read the last "
                "lines above, ask the coordinator, and start the client again",
                code="connection-lost",
                exit_code=5,
            ) from None
        finally:
            stop_metrics()
            server.should_exit = True
            runner.stop()


def _runtime(folder: Folder, state: NodeStateFactory, secret: bytes) -> tuple[uvicorn.Server, int]:
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", folder.settings.runtime.port))
    except OSError:
        raise ClientError(
            f"127.0.0.1:{folder.settings.runtime.port} is taken; change runtime.port in site.toml",
            code="port-taken",
            exit_code=5,
        ) from None
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(state_factory=state, superexec_auth_secret=secret),
            log_config=None,
            log_level="warning",
            access_log=False,
            ws="none",
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],), name="runtime", daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.02)
    return server, listener.getsockname()[1]


class _Runner:
    """The child process that takes tasks, and a watch over it."""

    def __init__(self, folder: Folder, address: str) -> None:
        command = [sys.executable, "-m", "client.runner", str(folder.path), address]
        self._child = subprocess.Popen(command)
        self._stopping = threading.Event()
        self.lost = False
        threading.Thread(target=self._watch, name="runner-watch", daemon=True).start()

    def _watch(self) -> None:
        # A runner that ended by itself would leave tasks unanswered; end with it, loudly. Told to
        # end, it ends with 0, and that may be the end of both: then `stop` is called soon.
        together = self._child.wait() == 0
        if not self._stopping.wait(_TOGETHER_SECONDS if together else 0):
            self.lost = True
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        """End the child, gently first."""
        self._stopping.set()
        self._child.terminate()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
