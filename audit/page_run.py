"""Bind the officer's page to an address and answer until it is stopped."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

import uvicorn

from audit import page
from audit.errors import AuditError
from audit.page_access import Access
from audit.page_shelf import Book
from audit.signoff import Officer


def run(
    books: tuple[Book, ...],
    *,
    host: str,
    port: int,
    names: Sequence[str] = (),
    header: str = "",
    officer: Officer | None = None,
    tell: Callable[[str], None],
) -> None:
    """Answer until the process is stopped.

    Args:
        books: the bundles.
        host: the address to listen on.
        port: its port; 0 for any free one.
        names: more values of `Host` to answer, such as a reverse proxy's name.
        header: the reverse proxy's header that names who asks; empty for log-in by link.
        officer: who signs off.
        tell: gets the link, once the port is open.

    Raises:
        AuditError: the address cannot be used (exit code 5), or a proxy's header is to be believed
            on an address that others than a proxy of this machine reach (exit code 2).
    """
    if header and not is_loopback(host):
        raise AuditError(
            f"whoever reaches {host} could write the header {header} too; let the proxy run on "
            "this machine and leave --host on loopback",
            code="open-header",
            exit_code=2,
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise AuditError(
            f"{host} port {port} cannot be used ({error.strerror}); choose another with --port",
            code="port",
            exit_code=5,
        ) from None
    bound = listener.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    address = f"{shown}:{bound}"
    hosts = {address, *names}
    if is_loopback(host):
        hosts |= {f"127.0.0.1:{bound}", f"localhost:{bound}", f"[::1]:{bound}"}
    access = Access(frozenset(hosts), header=header)
    app = page.create(books, access, officer=officer)
    if not is_loopback(host):
        tell(f"warning: {host} may be reached from other machines, without TLS; put a proxy before")
    if header:
        tell(f"the page is on http://{address}, for whom the proxy names in {header}")
    else:
        tell(f"log in once, within 15 minutes: http://{address}/login?token={access.link()}")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False
    )
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
