"""Reaching the coordinator, and being sure that it is the invited one."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

import httpx

from client.errors import ClientError
from client.folder import Folder, Invitation


def wait_for(folder: Folder, invitation: Invitation, *, report: Callable[[str], None]) -> None:
    """Wait until the coordinator answers over TLS as the invitation says it must.

    Raises:
        ClientError: no answer within the site's `connect_timeout_s` (5), or a certificate that is
            not the invited coordinator's (4).
    """
    deadline = time.monotonic() + folder.settings.runtime.connect_timeout_s
    told = False
    while True:
        try:
            check_coordinator(invitation)
        except ClientError as fault:
            if fault.exit_code != 5 or not time.monotonic() < deadline:
                raise
            if not told:
                report(f"{fault}; trying again until it answers")
                told = True
            time.sleep(1.0)
        else:
            return


def check_coordinator(invitation: Invitation) -> None:
    """Reach the coordinator's public port once.

    Raises:
        ClientError: unreachable (5), or its certificate does not verify (4).
    """
    context = ssl.create_default_context(cadata=invitation.authority.decode("ascii"))
    try:
        with httpx.Client(verify=context, timeout=10.0, trust_env=False) as client:
            status = client.get(f"https://{invitation.coordinator}/health").status_code
    except httpx.ConnectError as fault:
        if "CERTIFICATE_VERIFY_FAILED" in str(fault):
            raise ClientError(
                f"{invitation.coordinator} shows a certificate that is not the invited "
                "coordinator's or is for another host; do not connect, ask for a new invitation",
                code="certificate",
                exit_code=4,
            ) from None
        status = 0
    except httpx.HTTPError:
        status = 0
    if status != 200:
        raise ClientError(
            f"the coordinator at {invitation.coordinator} does not answer; check address and "
            "network, or ask whether it runs",
            code="unreachable",
            exit_code=5,
        )
