"""Reaching the coordinator, and being sure that it is the invited one."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from cryptography import x509

from client.errors import ClientError
from client.folder import Folder, Invitation

_AHEAD_SECONDS = 6.0
_BEHIND_SECONDS = 300.0


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
        ClientError: unreachable (5), its certificate does not verify (4), or the clocks differ (3).
    """
    context = ssl.create_default_context(cadata=invitation.authority.decode("ascii"))
    date = ""
    try:
        with httpx.Client(verify=context, timeout=10.0, trust_env=False) as client:
            answer = client.get(f"https://{invitation.coordinator}/health")
            status, date = answer.status_code, answer.headers.get("date", "")
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
    check_clock(date, datetime.now(UTC))


def check_clock(date: str, now: datetime) -> None:
    """Check this machine's clock against the HTTP date of the coordinator's answer.

    Flower refuses a node whose clock is over 5 s ahead or over 5 minutes behind, without saying
    why; a second more is left for the date, which has whole seconds.

    Raises:
        ClientError: the clock is wrong (exit code 3).
    """
    try:
        ahead = (now - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return  # no date, nothing to compare with
    if not -_BEHIND_SECONDS < ahead < _AHEAD_SECONDS:
        way = "ahead of" if ahead > 0 else "behind"
        raise ClientError(
            f"this machine's clock is {abs(ahead):.0f} s {way} the coordinator's; set the one that "
            "is wrong, best by NTP",
            code="wrong-clock",
            exit_code=3,
        )


def certificate_days(invitation: Invitation) -> tuple[int, int]:
    """Days until the coordinator's certificate ends, and until its authority's does.

    Raises:
        ClientError: unreachable (5), or the certificate does not verify (4).
    """
    authority = x509.load_pem_x509_certificate(invitation.authority).not_valid_after_utc
    context = ssl.create_default_context(cadata=invitation.authority.decode("ascii"))
    host, _, port = invitation.coordinator.rpartition(":")
    host = host.strip("[]")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10.0) as plain,
            context.wrap_socket(plain, server_hostname=host) as channel,
        ):
            shown = channel.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError:
        raise ClientError(
            f"{invitation.coordinator} shows a certificate that does not verify; ask the "
            "coordinator for privity server renew, or for a new invitation",
            code="certificate",
            exit_code=4,
        ) from None
    except OSError:
        raise ClientError(
            f"the coordinator at {invitation.coordinator} does not answer; its certificate was not "
            "checked",
            code="unreachable",
            exit_code=5,
        ) from None
    server = x509.load_der_x509_certificate(shown or b"").not_valid_after_utc
    now = datetime.now(UTC)
    return (server - now).days, (authority - now).days
