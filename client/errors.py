"""What can go wrong at an institution, each with the exit code of the command that meets it."""

from __future__ import annotations


class ClientError(Exception):
    """One sentence for the operator: what is wrong, where, and what to do.

    Attributes:
        code: short identifier for logs and `--json`; never holds record text.
        exit_code: 2 wrong usage or configuration, 3 refused, 4 verification failed,
            5 a peer or service is unreachable, 1 unforeseen.
    """

    def __init__(self, sentence: str, *, code: str = "client", exit_code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code
        self.exit_code = exit_code
