"""The mutants: one change each to the product, and the tests that ought to notice it."""

from __future__ import annotations

from accounts import ACCOUNTS, BORDER
from mechanism import MECHANISM
from mutant import Mutant
from randomness import RANDOMNESS

MUTANTS: tuple[Mutant, ...] = (*RANDOMNESS, *MECHANISM, *ACCOUNTS, *BORDER)
