"""What this process says to the coordinator, counted, and judged where Flower gives up too early.

The SuperNode's process speaks to nobody but the coordinator, so that a hook in httpx sees exactly
that.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx


class Transport:
    """Bytes of bodies both ways, when the coordinator answered last, and whether it refuses us."""

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0
        self.heard = 0.0
        self.refused = False
        self._lock = threading.Lock()

    def watch(self) -> None:
        """Watch every request of this process from now on.

        Flower ends a node at any error whose text has "ssl" in it. A cut network or a proxy whose
        back end restarts makes such errors too; only a certificate that does not verify may end
        the node, so that the others lose their text here and are tried again.
        """
        real = httpx.HTTPTransport.handle_request

        def watched(transport: Any, request: httpx.Request) -> httpx.Response:
            try:
                response = real(transport, request)
            except httpx.TransportError as fault:
                if "CERTIFICATE_VERIFY_FAILED" in str(fault):
                    raise
                raise type(fault)("the connection was lost") from None
            self._note(request, response)
            return response

        setattr(httpx.HTTPTransport, "handle_request", watched)  # noqa: B010 - mypy forbids it

    def _note(self, request: httpx.Request, response: httpx.Response) -> None:
        with self._lock:
            self.sent += int(request.headers.get("content-length", 0))
            self.received += int(response.headers.get("content-length", 0))
            self.refused = response.status_code == httpx.codes.UNAUTHORIZED
            if response.status_code < httpx.codes.BAD_REQUEST:
                self.heard = time.time()
