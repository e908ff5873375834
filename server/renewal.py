"""Renewal without a new kit: the coordinator's certificate, and a site's node key."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit import canonical, note
from configs import files
from server import pki
from server.errors import ServerError
from server.pki import Pair
from server.store import Folder

DOMAIN = b"privity/renewal/1\n"


def certificate(folder: Folder) -> int:
    """Make a new server certificate under the same authority; a running SuperLink takes it over.

    Returns:
        Days that it is valid.
    """
    tls = folder.tls
    ca = Pair((tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes())
    made = pki.server(folder.settings.host, ca)
    files.replace(tls / "server.key", made.key, mode=files.PRIVATE)
    files.replace(tls / "server.pem", made.certificate)
    return pki.days_left(made.certificate)


def admit(folder: Folder, name: str, request: Path) -> None:
    """Admit a site's next node key beside the one that it has.

    Raises:
        ServerError: no such site, or the request is not one that this site signed for the node key
            that it has now.
    """
    site = folder.enrolled().get(name)
    if site is None:
        raise ServerError(
            f"no site named {name!r} is enrolled; see privity server status", code="unknown-site"
        )
    refused = ServerError(
        f"{request} is not a renewal that {name} signed for its present node key; ask the site to "
        "run privity client renew again",
        code="bad-renewal",
        exit_code=4,
    )
    try:
        values: dict[str, Any] = json.loads(request.read_bytes())
        signature = base64.b64decode(values.pop("signature"), validate=True)
        line = str(values["node_key"])
        if set(values) != {"format", "name", "node_key", "old_node_key"} or values["format"] != 1:
            raise ValueError
        keys = folder.mirror_of(site).keys()  # a site that rotated them since has said so
        public = Ed25519PublicKey.from_public_bytes(note.parse_key(keys.event).public)
        public.verify(signature, DOMAIN + canonical.encode(values))
    except OSError:
        raise ServerError(f"{request} cannot be read; check the path", code="no-file") from None
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature):
        raise refused from None
    key = pki.node_key(line)
    if key is None or (values["name"], values["old_node_key"]) != (name, site.node_key):
        raise refused
    lines = {key for other in folder.known().values() for key in (other.node_key, other.next_key)}
    if key in map(pki.node_key, lines - {site.next_key}):
        raise ServerError(
            f"the node key in {request} is or was another's; run privity client renew again",
            code="key-taken",
            exit_code=3,
        )
    digest = canonical.digest(line.encode())
    folder.log().append("institution-renewed", {"name": name, "node_key_digest": digest})
    _write(folder, name, site.node_key, line)


def finish(folder: Folder, connected: Iterable[str]) -> list[str]:
    """Let go of the old key of every site whose next key is among those that have connected.

    Args:
        folder: the coordinator.
        connected: OpenSSH lines of node keys.

    Returns:
        The sites whose renewal is over.
    """
    lines = set(connected)
    done = []
    for name, site in folder.enrolled().items():
        if site.next_key and site.next_key in lines:
            _write(folder, name, site.next_key, "")
            done.append(name)
    return done


def _write(folder: Folder, name: str, node_key: str, next_key: str) -> None:
    place = folder.path / "enrolled" / f"{name}.json"
    values = json.loads(place.read_bytes())
    values["node_key"] = node_key
    values.pop("next_node_key", None)
    if next_key:
        values["next_node_key"] = next_key
    files.replace(place, json.dumps(values, indent=2).encode() + b"\n")
