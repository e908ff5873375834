"""Ask a witness by URL to cosign a log's newest checkpoint (c2sp.org/tlog-witness).

Any witness that speaks that protocol will do; it learns the log's origin, size and root, nothing of
the entries. Called by whoever runs the log, never in the way of an append.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from audit import note, witness
from audit.canonical import JSON
from audit.errors import AuditError, BadSignature, Malformed
from audit.log import Log

_PATIENCE_S = 30.0
_MOST_BYTES = 1 << 16
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_REFUSED = {
    403: "it does not trust this log's key",
    404: "it does not know this log",
    400: "it calls the request malformed",
    422: "it says that the log does not extend what it cosigned before",
}


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The size that was cosigned, the witness's name, and its time in POSIX seconds."""

    size: int
    witness: str
    time: int


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given: object, **named: object) -> None:
        return None


def ask(log: Log, url: str, key: str, *, old_size: int = 0) -> Cosigned:
    """Ask for a cosignature of the newest checkpoint and keep it in the log.

    Args:
        log: the log.
        url: the witness's submission prefix, `https://...` or `http://` on this machine.
        key: the witness's vkey; a line by any other key is ignored.
        old_size: the size that the witness cosigned last, if it is known; a wrong one costs a
            second request.

    Guarantees: nothing is kept that the key does not verify over exactly this checkpoint. A refusal
    as inconsistent is logged (`witness-refused`) before the error.

    Raises:
        AuditError: the witness is unreachable (exit code 5), refuses, or answers nonsense.
    """
    trusted = note.parse_key(key)
    if trusted.algorithm != note.COSIGNATURE_V1:
        raise Malformed("the key is not that of a witness", code="bad-key")
    size = old_size
    for _ in range(3):  # another process may be asking at the same time
        body = witness.request(log, size)
        status, answer = _post(_address(url), body)
        known = _SIZE.fullmatch(answer)
        if status == 409 and known and int(known[1]) != size:
            size = int(known[1])
            if size > log.size:
                _refused(log, "log-rolled-back")
                raise AuditError(
                    f"the witness {trusted.name} cosigned size {size} and the log has {log.size}; "
                    "it was rolled back, restore the newest journal",
                    code="log-rolled-back",
                )
            continue
        if status == 200:
            return _keep(log, answer, body, trusted)
        if status in (409, 422):
            _refused(log, "inconsistent")
        why = _REFUSED.get(status, f"it answers with status {status}")
        raise AuditError(
            f"the witness {trusted.name} does not cosign: {why}", code="witness-refused"
        )
    raise AuditError(
        f"the witness {trusted.name} names another size each time; try again later",
        code="witness-refused",
    )


def _keep(log: Log, answer: bytes, body: bytes, trusted: note.VerifierKey) -> Cosigned:
    text = note.parse(witness.parse_request(body).checkpoint).text
    try:
        lines = answer.decode("utf-8").splitlines(keepends=True)
    except UnicodeError:
        lines = []
    for line in lines:
        try:
            time = note.check_signature(text, note.parse_signature(line), trusted)
        except AuditError:
            continue
        size = log.add_cosignature(line, witness=str(trusted))
        return Cosigned(size, trusted.name, time or 0)
    raise BadSignature(
        f"the answer of the witness {trusted.name} holds no cosignature by its key",
        code="not-signed",
    )


def _refused(log: Log, reason: str) -> None:
    fields: dict[str, JSON] = {"origin": log.origin, "reason": reason}
    log.append("witness-refused", fields)


def _address(url: str) -> str:
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise AuditError(
            "a witness's URL begins with https://, or http:// on this machine",
            code="bad-option",
            exit_code=2,
        )
    return f"{url.rstrip('/')}/add-checkpoint"


def _post(address: str, body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        address, data=body, headers={"Content-Type": "text/plain; charset=utf-8"}, method="POST"
    )
    opener = urllib.request.build_opener(_NoRedirect())
    try:
        with opener.open(request, timeout=_PATIENCE_S) as answer:
            return int(answer.status), bytes(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code), bytes(error.read(_MOST_BYTES))
    except (OSError, ValueError) as error:
        raise AuditError(
            f"the witness cannot be reached ({type(error).__name__}); check URL and network",
            code="unreachable",
            exit_code=5,
        ) from None
