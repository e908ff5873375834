"""Whom every Python process of a test speaks to: an audit hook in each, written to one file."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from pathlib import Path

# Native code is not seen; what of ours opens sockets is Python.
_HOOK = """
import json, os, sys

def _told(event, arguments, _path=os.environ.get("PRIVITY_TEST_SOCKETS")):
    if _path and event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
    elif _path and event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments[0]
    else:
        return
    line = json.dumps([event, repr(address), address if isinstance(address, str) else
                       address[0] if isinstance(address, tuple) else None, sys.argv[:3]])
    try:
        place = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError:
        return  # the trainer, which sees no such file and has no network
    os.write(place, line.encode() + b"\\n")
    os.close(place)

sys.addaudithook(_told)
"""


def environment(place: Path, given: Mapping[str, str]) -> dict[str, str]:
    """`given`, changed so that processes write every address to `place`/sockets."""
    (place / "hook").mkdir(parents=True)
    (place / "hook" / "sitecustomize.py").write_text(_HOOK)
    paths = [str(place / "hook"), *filter(None, [given.get("PYTHONPATH")])]
    return {
        **given,
        "PYTHONPATH": os.pathsep.join(paths),
        "PRIVITY_TEST_SOCKETS": str(place / "sockets"),
    }


def spoken(place: Path) -> list[tuple[str, str, bool]]:
    """Event, address, and whether it is of this machine, of every call so far."""
    path = place / "sockets"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(event, shown, _own(host)) for event, shown, host, _ in map(json.loads, lines)]


def _own(host: str | None) -> bool:
    if host is None or host.startswith("/") or host in ("", "localhost"):
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
