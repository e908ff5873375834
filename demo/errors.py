"""The one error of this package."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; the sentence says why and what to do.

    Attributes:
        exit_code: that of the command that failed, or 2 for wrong usage.
    """

    def __init__(self, sentence: str, *, exit_code: int = 2) -> None:
        super().__init__(sentence)
        self.code = "demo"
        self.exit_code = exit_code
