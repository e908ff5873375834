"""Which node this process is: so that a killed client is back in seconds, and a copy is not."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import httpx
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client import renewal
from client.folder import Folder, Invitation
from configs import files

log = logging.getLogger("privity.node")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def release_predecessor(folder: Folder, invitation: Invitation, private: Any) -> None:
    """Tell the coordinator that this folder's killed predecessor is gone, so that we may come back.

    Flower admits a node again only when the old one has been silent for a minute. Only the machine
    that saw its own predecessor die may shorten that: a copy of the folder elsewhere may not. What
    the predecessor had in hand is lost with it; a coordinator sees that the node is a new one.
    """
    path = folder.runtime / "node.json"
    boot = _boot()
    try:
        old = json.loads(path.read_bytes())
        mine = bool(boot) and old["boot"] == boot and not _alive(int(old["pid"]))
        node_id = int(old["node_id"])
    except (OSError, ValueError, KeyError, TypeError):
        mine, node_id = False, 0
    if mine and node_id:
        try:
            with _fleet(invitation, private) as client:
                client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
        except (httpx.HTTPError, RuntimeError):
            log.warning("the coordinator did not release this node's last session")
        # From here on the mark is ours: whoever is killed before it knows its node again left one.
        remember(folder, node_id)


def try_next_key(folder: Folder, invitation: Invitation) -> None:
    """Use the next node key, if one waits and the coordinator admits it."""
    private = renewal.next_key(folder)
    if private is None:
        return
    public = public_key_to_bytes(private.public_key())
    try:
        with _fleet(invitation, private) as client:
            asked = ActivateNodeRequest(
                public_key=public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
            )
            client.DeactivateNode(DeactivateNodeRequest(node_id=client.ActivateNode(asked).node_id))
    except (httpx.HTTPError, RuntimeError):
        log.warning("the next node key is not admitted yet; this client goes on with the old one")
        return
    renewal.adopt(folder)
    log.warning("this client uses its next node key from now on")


def remember(folder: Folder, node_id: int) -> None:
    """Note which node this process is, for the case that it is killed."""
    mark = {"pid": os.getpid(), "boot": _boot(), "node_id": node_id}
    files.replace(folder.runtime / "node.json", json.dumps(mark).encode(), mode=files.PRIVATE)


def forget(folder: Folder) -> None:
    """Note that this process ended in order."""
    (folder.runtime / "node.json").unlink(missing_ok=True)


def _fleet(invitation: Invitation, private: Any) -> Any:
    """The coordinator's fleet interface, for the node with this key; to be closed."""
    return FleetHttpClient.from_server_address(
        invitation.coordinator,
        False,
        invitation.authority,
        interceptors=[
            RuntimeVersionHttpInterceptor("SuperNode"),
            NodeAuthHttpInterceptor(private, private.public_key()),
        ],
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
