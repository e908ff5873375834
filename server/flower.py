"""The coordinator's side of a Flower run: start it, take its task, send and collect messages.

No app is executed: this process takes the run's ServerApp task itself, with the runtime secret,
and speaks to the nodes through Flower's own grid.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
from flwr.app import Message as FlowerMessage
from flwr.common.constant import HEARTBEAT_PATIENCE, SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import ListNodesRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import NodeStatus, TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import http_retry, make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.superexec.run_superexec import _SUPEREXEC_AUTH_METHODS
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from configs import flower_app
from privacy import flower
from privacy.errors import EgressDenied
from privacy.wire import FAILURES, Message
from server.errors import ServerError
from server.node import private_address
from server.store import Folder
from server.turn import Reply

_ACQUIRE_SECONDS = 30.0
# Flower gives up on a task after about a minute of silence; waiting longer would gain nothing.
_OUTAGE_SECONDS = 60.0
# Flower waits up to 20 s between two tries of that minute.
_RETRY_SECONDS = 4.0
_POLL_SECONDS = 0.1
# A task that ended a moment ago may still be answered.
_LOOK_AGAIN_SECONDS = 1.0
_AT_ONCE = 4


class _Bearer:
    """Adds the control token to each call."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def intercept(self, context: Any, call_next: Any) -> Any:
        context.request.headers["authorization"] = self._header
        return call_next(context)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One outstanding answer: of which site and kind, and since when its node was connected."""

    site: str
    kind: str
    activated: str


class Session:
    """One Flower run, held by this process. Use as a context manager."""

    def __init__(self, grid: HttpGrid, heartbeat: HeartbeatSender) -> None:
        self._grid = grid
        self._heartbeat = heartbeat
        self._waiting: dict[str, _Asked] = {}
        self._looked = 0.0

    @classmethod
    def open(cls, folder: Folder) -> Session:
        """Start a Flower run on the SuperLink of `folder` and take its task.

        Raises:
            ServerError: the SuperLink is not running (exit code 5), or refuses the token (4).
        """
        address = private_address(folder)
        flower.hasten()
        control = ControlHttpClient.from_server_address(
            address, True, None, [RuntimeVersionHttpInterceptor("flwr-cli"),
                                  _Bearer(folder.control_token())]
        )  # fmt: skip
        try:
            started = control.StartRun(
                StartRunRequest(fab=Fab(hash_str=flower_app.digest(), content=flower_app.content()))
            )
        except httpx.TransportError:
            raise ServerError(
                f"the coordinator is not running on {address}; run: privity server start "
                f"{folder.path}",
                code="not-running",
                exit_code=5,
            ) from None
        except httpx.HTTPStatusError as fault:
            raise ServerError(
                f"the SuperLink on {address} refused the run (HTTP {fault.response.status_code}); "
                "is it the one of this folder?",
                code="refused",
                exit_code=4,
            ) from None
        token = _take_task(folder, address, started.run_id)
        grid = HttpGrid(runtime_api_address=address, insecure=True, token=token)
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(grid._runtime_client))
        heartbeat.start()
        given = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = given.task_id
        TaskIdentity.run_id = given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        grid.set_run(run_from_proto(given.run))
        grid._retry_invoker.max_time = _OUTAGE_SECONDS
        http_retry.MAX_RETRY_DELAY = _RETRY_SECONDS
        return cls(grid, heartbeat)

    def online(self) -> dict[str, int]:
        """Node identifiers of the sites that are connected now, by name."""
        return {name: node.node_id for name, node in self._connected().items()}

    def _connected(self) -> dict[str, Any]:
        """Flower's facts of the connected nodes, by their sites' names."""
        with _reachable():
            nodes = list(self._grid.get_nodes())
        return {node.name: node for node in nodes if node.status == NodeStatus.ONLINE}

    def send(self, messages: Mapping[str, Message], *, group: str, ttl_s: float) -> None:
        """Queue one message a site; sites that are not connected are left out."""
        online = self._connected()
        for site, message in messages.items():
            if site not in online:
                continue
            kind, node = flower.TYPES[message.kind], online[site]
            sent = FlowerMessage(
                flower.to_records(message), node.node_id, kind, ttl=ttl_s, group_id=group
            )
            with _reachable():
                (identifier,) = self._grid.push_messages([sent])
            if identifier is not None:
                self._waiting[identifier] = _Asked(
                    site, flower.ANSWERS[kind], node.last_activated_at
                )

    @property
    def waiting(self) -> frozenset[str]:
        """Sites whose answer is outstanding."""
        return frozenset(asked.site for asked in self._waiting.values())

    def forget(self) -> None:
        """Stop waiting for outstanding answers; late ones are never read."""
        self._waiting.clear()

    def receive(self) -> list[Reply]:
        """Some answers that have arrived; waits a moment when there are none.

        Guarantees: at most `_AT_ONCE` updates are in memory, however many sites there are.
        """
        waiting = list(self._waiting)
        for first in range(0, len(waiting), _AT_ONCE):
            with _reachable():
                arrived = self._grid.pull_messages(waiting[first : first + _AT_ONCE])
            replies = []
            for message in arrived:
                asked = self._waiting.pop(message.metadata.reply_to_message_id, None)
                if asked is not None:
                    replies.append(_read(message, asked.site, asked.kind))
            if replies:
                return replies
        if replies := self._gone():
            return replies
        # Looking at many sites takes many calls, so one looks less often.
        time.sleep(_POLL_SECONDS * max(1.0, len(waiting) / _AT_ONCE / 2))
        return []

    def _gone(self) -> list[Reply]:
        """Sites whose client is a new one since they were asked: the old one took it along.

        Flower gives a request out once and does not say so. Asking again spends nothing: whoever
        has an answer stored gives it again.
        """
        if not self._waiting or time.monotonic() < self._looked + _LOOK_AGAIN_SECONDS:
            return []
        online, self._looked = self._connected(), time.monotonic()
        gone = [
            identifier
            for identifier, asked in self._waiting.items()
            if asked.site in online and online[asked.site].last_activated_at != asked.activated
        ]
        return [Reply(self._waiting.pop(identifier).site, None, "no-answer") for identifier in gone]

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = SubStatus.COMPLETED if kind is None else SubStatus.FAILED
        self._grid._retry_invoker.max_tries = 1
        given_up = kind is KeyboardInterrupt and self._is_given_up()
        # First the heartbeat: one for a task that has ended is refused, and Flower then interrupts
        # the process that sent it.
        if self._heartbeat.is_running:
            self._heartbeat.stop()
        try:
            self._grid._runtime_client.PushTaskOutput(
                PushTaskOutputRequest(sub_status=status, details="")
            )
        except httpx.HTTPError:
            # The SuperLink ends a task without heartbeat by itself.
            pass
        finally:
            self._grid.close()
        if given_up:
            raise _lost() from None

    def _is_given_up(self) -> bool:
        """Whether the SuperLink gave our task up, or is gone: Flower then interrupts this process.

        A person's Ctrl-C while all is well is none of that.
        """
        with _deaf():  # Flower interrupts again at each call that is refused
            for pause in (0.0, _LOOK_AGAIN_SECONDS):
                time.sleep(pause)
                try:
                    list(self._grid.get_nodes())
                except httpx.HTTPError:
                    return True
        return False


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore interrupts for a moment, where this thread may say so."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread, which no interrupt reaches
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True, slots=True)
class Seen:
    """One node as the SuperLink sees it: connected or not, and when it was heard last (epoch)."""

    online: bool
    heartbeat: float


def nodes(folder: Folder) -> dict[str, Seen] | None:
    """Every node by its site's name, or None when no SuperLink answers here."""
    control = ControlHttpClient.from_server_address(
        private_address(folder),
        True,
        None,
        [RuntimeVersionHttpInterceptor("flwr-cli"), _Bearer(folder.control_token())],
    )
    try:
        found = control.ListNodes(ListNodesRequest()).nodes_info
    except httpx.HTTPError:
        return None
    finally:
        control.close()
    seen: dict[str, Seen] = {}
    for node in found:
        lease = HEARTBEAT_PATIENCE * node.heartbeat_interval
        heard = node.online_until - lease if node.online_until else 0.0
        online = node.status == NodeStatus.ONLINE
        # A site that renewed its key has had several nodes; the one that is heard counts.
        if node.name not in seen or (online, heard) > (seen[node.name].online, 0.0):
            seen[node.name] = Seen(online, heard)
    return seen


@contextmanager
def _reachable() -> Iterator[None]:
    """Turn a lost SuperLink into a sentence with the way on."""
    try:
        yield
    except httpx.HTTPError:
        raise _lost() from None


def _lost() -> ServerError:
    return ServerError(
        "the SuperLink stopped answering or gave this command up; see that privity server start "
        "runs, then go on with privity server run --resume: nothing is spent twice",
        code="link-lost",
        exit_code=5,
    )


def _take_task(folder: Folder, address: str, run_id: int) -> str:
    client = RuntimeHttpClient.from_server_address(
        address,
        True,
        None,
        [
            RuntimeVersionHttpInterceptor("SuperExec"),
            SuperExecAuthHttpInterceptor(
                master_secret=folder.runtime_secret(), protected_methods=_SUPEREXEC_AUTH_METHODS
            ),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    deadline = time.monotonic() + _ACQUIRE_SECONDS
    try:
        while time.monotonic() < deadline:
            taken = client.AcquireTask(
                AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
            )
            # A task of an earlier run that was killed may still wait; it is dropped, and ends.
            if taken.HasField("task") and taken.token and taken.task.run_id == run_id:
                return str(taken.token)
            if not taken.HasField("task"):
                time.sleep(_POLL_SECONDS)
    finally:
        client.close()
    raise ServerError(
        "the SuperLink gave out no task for this run; restart it: privity server start",
        code="no-task",
        exit_code=5,
    )


def _read(message: FlowerMessage, site: str, kind: str) -> Reply:
    if message.has_error():
        return Reply(site, None, FAILURES.get(message.error.code, "no-answer"))
    try:
        return Reply(site, flower.from_records(message.content, kind=kind), None)
    except EgressDenied:
        return Reply(site, None, "malformed")
