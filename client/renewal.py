"""A new node key for an institution, without a new kit: asked for, admitted, then used.

The key that authenticates the SuperNode is born here like the first one. The coordinator admits
the new key beside the old one when the institution's event key, which it knows, has signed for it;
the old one goes when the new one has connected.
"""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from audit import canonical
from client.errors import ClientError
from client.folder import Folder
from configs import files

# A node key has no date of its own; it is renewed as often as the coordinator's certificate.
KEY_DAYS = 397
WARN_DAYS = 30
DOMAIN = b"privity/renewal/1\n"


def request(folder: Folder) -> Path:
    """Make the next node key, or take the one that waits, and write what asks to admit it.

    Returns:
        The file to send to the coordinator; nothing in it is secret.
    """
    place = pending(folder)
    if not place.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        files.replace(place, pem, mode=files.PRIVATE)
    body: dict[str, Any] = {
        "format": 1,
        "name": folder.settings.name,
        "node_key": _line(_load(place)),
        "old_node_key": _line(folder.node_key()),
    }
    signature = folder.keys().event.sign(DOMAIN + canonical.encode(body))
    document = body | {"signature": base64.b64encode(signature).decode("ascii")}
    target = folder.path / "renew.json"
    files.replace(target, json.dumps(document, indent=2).encode() + b"\n")
    return target


def pending(folder: Folder) -> Path:
    """Where the next node key waits until the coordinator admits it."""
    return folder.path / "keys" / "node.key.next"


def next_key(folder: Folder) -> ec.EllipticCurvePrivateKey | None:
    """The next node key, if one waits."""
    place = pending(folder)
    return _load(place) if place.exists() else None


def adopt(folder: Folder) -> None:
    """Use the next node key from now on; the coordinator has admitted it."""
    line = _line(_load(pending(folder)))
    os.replace(pending(folder), folder.path / "keys" / "node.key")
    files.sync(folder.path / "keys")
    folder.log().append("node-key-renewed", {"node_key_digest": canonical.digest(line.encode())})
    (folder.path / "renew.json").unlink(missing_ok=True)


def key_days(folder: Folder) -> int:
    """Days until the node key is due, by the times in the institution's log."""
    log = folder.log()
    born = next(iter(log.entries("log-started"))).event.time
    for entry in log.entries("node-key-renewed"):
        born = entry.event.time
    return KEY_DAYS - (datetime.now(UTC) - born).days


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError):
        raise ClientError(
            f"{path} is damaged; delete it and run privity client renew", code="node-key"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ClientError(f"{path} is not an elliptic curve key; delete it", code="node-key")
    return key


def _line(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
