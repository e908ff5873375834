"""Where a service of ours listens: taken before anything slow happens, and named if it is open."""

from __future__ import annotations

import errno
import ipaddress
import socket

from client.errors import ClientError


def bind(host: str, port: int) -> socket.socket:
    """Take a TCP port without listening yet, so that nobody connects to what is not ready.

    Args:
        host: a name or address of this machine.
        port: the port; 0 takes any free one.

    Raises:
        ClientError: the port is taken (5), or `host` is not an address of this machine (2).
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as fault:
        if fault.errno in (errno.EADDRINUSE, errno.EACCES):
            raise ClientError(
                f"port {port} on {host} is taken or not allowed; choose another with --port",
                code="port-taken",
                exit_code=5,
            ) from None
        raise ClientError(
            f"{host} is not an address of this machine; correct --host", code="bad-host"
        ) from None
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; False for any name but localhost."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
