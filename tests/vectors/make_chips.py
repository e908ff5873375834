"""Makes `audit/chips.f32`, the table that turns 16 random bits into one normal chip.

Entry i is the mean of a standard normal given that it falls into the i-th of 65,536 bins of equal
probability. Replacing a normal by its conditional mean can only lower the moment generating
function (Jensen), so a weighted sum of chips keeps the tail bound exp(-z**2 / 2) exactly.

Run it once as `python tests/vectors/make_chips.py OUT`. The product ships the file and its hash
and never computes it again: the last bit of a logarithm differs between mathematics libraries.
"""

from __future__ import annotations

import sys
from math import exp, pi, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

BINS = 65_536


def table() -> npt.NDArray[np.float32]:
    """The 65,536 chips in rising order, exactly antisymmetric about the middle."""
    normal = NormalDist()
    half = BINS // 2
    edges = [0.0, *(normal.inv_cdf(0.5 + i / BINS) for i in range(1, half))]
    density = [exp(-x * x / 2) / sqrt(2 * pi) for x in edges] + [0.0]
    upper = [BINS * (density[i] - density[i + 1]) for i in range(half)]
    return np.array([-x for x in reversed(upper)] + upper, dtype="<f4")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(table().tobytes())
