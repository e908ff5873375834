"""One row of the tables of patterns, and the flags that all of them are written for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import regex

FLAGS: Final = int(
    regex.IGNORECASE | regex.MULTILINE | regex.DOTALL | regex.ASCII,
)  # 154: the value for Presidio's `global_regex_flags`


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern of one type.

    Attributes:
        type: the type of what it finds.
        name: unique short name.
        regex: the expression, for `FLAGS`.
        score: how sure a match is, above 0 and below 1.
        check: an optional checksum over the matched text.
        profile: "strict" if only the strict profile uses it.
        needs: what a text must hold for a match to be possible, to save time.
    """

    type: str
    name: str
    regex: str
    score: float
    check: Callable[[str], bool] | None = None
    profile: Literal["clinical", "strict"] = "clinical"
    needs: Literal["", "digit", "han"] = "digit"
