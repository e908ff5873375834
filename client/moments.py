"""When something may be seen from outside: at few moments, so that its time says little of records.

An answer's arrival, and the times that log entries carry, would otherwise say how long records were
read and trained.
"""

from __future__ import annotations

import math
import time
from typing import Final

_FIRST_S: Final = 1 / 64
_AN_OCTAVE: Final = 8


def moment(elapsed_s: float) -> float:
    """The next moment: each is an eighth of an octave after the last.

    Guarantees: not before `elapsed_s` and less than a tenth later, or the first moment; at most
        256 different ones within two days, so that which one it is says less than a byte.
    """
    steps = math.ceil(_AN_OCTAVE * math.log2(max(elapsed_s, _FIRST_S) / _FIRST_S))
    return float(_FIRST_S * 2.0 ** (steps / _AN_OCTAVE))


def wait(began: float) -> None:
    """Sleep to the next moment, counted from `began`, a time of the monotonic clock."""
    elapsed = time.monotonic() - began
    time.sleep(max(0.0, moment(elapsed) - elapsed))
