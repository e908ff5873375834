"""The one source of randomness for noise, sampling and note choice: AES-256-CTR keyed by the OS.

There is no seed anywhere in this file, and that is its point: torch's CPU generator keeps 32 bits
of its seed, so whoever tries them all can subtract the noise from an update.
"""

from __future__ import annotations

import math
import os
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy.errors import PlanInvalid

_DRAWS = 4  # Gaussians per output, see `Csprng.normal`


class Csprng:
    """A stream of unpredictable numbers, one per process; the key is never stored or shown.

    Guarantees: two instances never share a stream, nor do a process and its forks; an instance
    cannot be copied or pickled; no argument and no global generator influences what it returns.
    """

    __slots__ = ("_owner", "_stream")

    def __init__(self) -> None:
        self._rekey()

    def _rekey(self) -> None:
        self._owner = os.getpid()
        key = algorithms.AES(os.urandom(32))
        self._stream = Cipher(key, modes.CTR(os.urandom(16))).encryptor()

    def _words(self, count: int) -> npt.NDArray[np.uint64]:
        if self._owner != os.getpid():
            # A fork inherits the stream; drawing from it would repeat the parent's noise.
            self._rekey()
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """Draw `count` uniforms, shape (count,), strictly between 0 and 1.

        52 bits and a half step: with 53 bits the largest value would round to 1.
        """
        steps = (self._words(count) >> np.uint64(12)).astype(np.float64)
        steps += 0.5
        steps *= 2.0**-52
        return steps

    def normal(self, shape: tuple[int, ...], std: float) -> npt.NDArray[np.float64]:
        """Draw independent N(0, std**2), float64, of the given shape.

        Every output is half the sum of four Box-Muller draws that share no uniform with any other
        output, so that its low-order bits do not tell the true value apart from the noise
        (Holohan & Braghin, "Secure random sampling in differential privacy", 2021, section 5.1).

        Raises:
            PlanInvalid: `std` is negative or not finite.
        """
        if not 0.0 <= std < math.inf:
            raise PlanInvalid(f"the noise scale is {std}; give a finite number of at least 0")
        count = math.prod(shape)
        # In place: at 184,320 parameters the allocations cost as much as the logarithms.
        radius = self.uniform(_DRAWS * count)
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle = self.uniform(_DRAWS * count)
        angle *= 2.0 * math.pi
        np.cos(angle, out=angle)
        radius *= angle
        total: npt.NDArray[np.float64] = radius.reshape(_DRAWS, count).sum(axis=0)
        total *= std / math.sqrt(_DRAWS)
        return total.reshape(shape)

    def choice(self, count: int) -> int:
        """Draw one integer from 0 to `count` - 1, each with the same probability.

        Raises:
            PlanInvalid: `count` is below 1 or over 2**63.
        """
        if not 1 <= count <= 2**63:
            raise PlanInvalid(f"cannot choose one of {count}; give at least one")
        limit = 2**64 - 2**64 % count  # words at or over it would favour small results
        while True:
            word = int(self._words(1)[0])
            if word < limit:
                return word % count

    def poisson_sample(self, count: int, rate: float) -> npt.NDArray[np.int64]:
        """Draw the indices, ascending, of a sample that holds each of `count` with chance `rate`.

        Raises:
            PlanInvalid: `rate` is not within (0, 1] or `count` is negative.
        """
        if not (0.0 < rate <= 1.0 and count >= 0):
            raise PlanInvalid(f"cannot sample {count} at rate {rate}; the rate lies within (0, 1]")
        return np.flatnonzero(self.uniform(count) < rate).astype(np.int64)

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Csprng cannot be copied or pickled: two copies would repeat the noise")
