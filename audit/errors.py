"""What can be wrong with evidence: one base, a short code each, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence


class AuditError(Exception):
    """Evidence is missing, malformed or contradicts itself.

    `code` is a short kebab-case id that may cross the border; `str(error)` is one sentence that
    says what is wrong, where, and what to do. `exit_code` is what a command ends with.
    """

    code: str = "audit"
    exit_code: int = 4

    def __init__(self, sentence: str, *, code: str | None = None, exit_code: int | None = None):
        super().__init__(sentence)
        if code is not None:
            self.code = code
        if exit_code is not None:
            self.exit_code = exit_code


def unreadable(what: object, error: OSError) -> AuditError:
    """What to raise about a file that somebody named and that cannot be read (exit code 2)."""
    return AuditError(
        f"{what} cannot be read ({error.strerror}); check the path", code="unreadable", exit_code=2
    )


class Malformed(AuditError):
    """Bytes that do not have the form which their specification asks for."""

    code = "malformed"


class BadSignature(AuditError):
    """A required signature is absent or does not verify."""

    code = "bad-signature"


class EventInvalid(AuditError):
    """An event of an unknown kind, or with an unknown, missing or ill-typed field."""

    code = "event-invalid"


class LogDamaged(AuditError):
    """A log's journal contradicts what the log has already signed."""

    code = "log-damaged"


class StaleRequest(AuditError):
    """A witness was asked to extend a size other than the one it cosigned last.

    `size` is that last size (0 for none): build the request again from it
    (c2sp.org/tlog-witness, the 409 answer).
    """

    code = "stale-request"

    def __init__(self, sentence: str, *, size: int):
        super().__init__(sentence)
        self.size = size


class InconsistentLog(AuditError):
    """Two signed checkpoints of one log cannot both be true: it was forked or rolled back.

    `older` and `newer` are the two signed notes and `proof` the hashes that were offered. Keep
    them: together they show a third party what the log did.
    """

    code = "log-forked"

    def __init__(
        self, sentence: str, *, older: str, newer: str, proof: Sequence[bytes] = (), code: str
    ):
        super().__init__(sentence, code=code)
        self.older, self.newer, self.proof = older, newer, tuple(proof)
