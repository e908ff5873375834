"""How often each caller may ask: a bucket of requests that fills evenly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Limits:
    """A bucket for each caller; it holds a minute's worth and fills all the time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, per_minute: int) -> int:
        """Take one request out of a caller's bucket.

        Returns:
            0 if there was one, else the seconds until there is.
        """
        now = self._clock()
        left, since = self._buckets.get(name, (float(per_minute), now))
        left = min(float(per_minute), left + (now - since) * per_minute / 60)
        if left >= 1:
            self._buckets[name] = (left - 1, now)
            return 0
        self._buckets[name] = (left, now)
        return max(1, math.ceil((1 - left) * 60 / per_minute))
