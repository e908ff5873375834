"""A third party's time over a checkpoint: RFC 3161 tokens. Needs the extra `timestamp`.

A token says that a time-stamping authority saw the checkpoint's bytes at its time, whatever the
log's own clock says. `openssl ts -verify` reads the same file. The authority learns one digest.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit.errors import AuditError, BadSignature

_PATIENCE_S = 30.0
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stamp:
    """A verified token: the authority's time and its serial number."""

    time: datetime
    serial: int


def request(data: bytes) -> bytes:
    """Return a DER time-stamp request over some bytes (SHA-512, with a nonce)."""
    built = _library().TimestampRequestBuilder().data(data).cert_request(cert_request=True).build()
    return bytes(built.as_bytes())


def ask(url: str, data: bytes) -> bytes:
    """Ask an authority by HTTP and return its reply; nothing in it is verified yet.

    Raises:
        AuditError: exit code 5, it cannot be reached; exit code 2, the URL is not http(s).
    """
    if not url.startswith(("https://", "http://")):
        raise AuditError(
            "an authority's URL begins with https:// or http://", code="bad-option", exit_code=2
        )
    asked = urllib.request.Request(  # noqa: S310 - the scheme was checked; the reply is signed
        url, data=request(data), headers={"Content-Type": "application/timestamp-query"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=_PATIENCE_S) as reply:  # noqa: S310
            return bytes(reply.read(_MOST_BYTES))
    except (OSError, ValueError) as error:
        raise AuditError(
            f"the time-stamping authority cannot be reached ({type(error).__name__}); check the "
            "URL and the network",
            code="unreachable",
            exit_code=5,
        ) from None


def check(reply: bytes, data: bytes, roots: Path) -> Stamp:
    """Check that a reply stamps exactly these bytes, under a root that the verifier trusts.

    Args:
        reply: the DER reply, as `ask` and `openssl ts -reply` give it.
        data: what was stamped, such as the file `checkpoint`.
        roots: PEM file of trusted root certificates.

    Raises:
        AuditError: exit code 2; the roots cannot be read.
        BadSignature: the reply is none, or is of other bytes, or leads to no trusted root.
    """
    library = _library()
    from cryptography import x509

    try:
        trusted = x509.load_pem_x509_certificates(roots.read_bytes())
    except (OSError, ValueError):
        raise AuditError(
            f"{roots} holds no PEM certificates; check the path", code="no-file", exit_code=2
        ) from None
    builder = library.VerifierBuilder()
    for certificate in trusted:
        builder = builder.add_root_certificate(certificate)
    try:
        stamp = library.decode_timestamp_response(reply)
        builder.build().verify_message(stamp, data)
        moment = stamp.tst_info.gen_time
        serial = int(stamp.tst_info.serial_number)
    except (library.VerificationError, ValueError) as error:
        raise BadSignature(
            f"the time-stamp does not hold for these bytes ({type(error).__name__})",
            code="bad-timestamp",
        ) from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Stamp(aware, serial)


def _library() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise AuditError(
            "time-stamps need the extra timestamp; run pip install 'privity[timestamp]'",
            code="no-rfc3161",
            exit_code=2,
        ) from None
    return rfc3161_client
