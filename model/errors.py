"""What can go wrong with the language model, and the exit code of the command that meets it."""

from __future__ import annotations


class ModelError(Exception):
    """One sentence for the operator: what is wrong, where, and what to do.

    Attributes:
        code: short identifier for logs and `--json`; never holds record text.
        exit_code: 2 wrong usage or configuration, 4 the model's bytes are not the promised ones,
            5 the package index or the model hub cannot be reached, 1 unforeseen.
    """

    def __init__(self, sentence: str, *, code: str = "model", exit_code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code
        self.exit_code = exit_code
