"""The patterns of direct identifiers, as data: one row a pattern, English and Chinese.

Written for ASCII character classes (`FLAGS`): to Unicode a Chinese character is a word character,
so that a plain word boundary never sees the number in "卡号4000...". A pattern that needs a clue
before the value names the value `v`; only the value is replaced. A checksum that holds raises the
score to 1; one that fails changes nothing, because a mistyped card number is still a card number.
The text is in its detection form (`privacy.normalise`), where full-width punctuation is ASCII.
"""

from __future__ import annotations

from typing import Final

from privacy.patterns_dates import DATES
from privacy.patterns_numbers import NUMBERS
from privacy.patterns_places import PLACES
from privacy.patterns_row import FLAGS, Pattern

__all__ = ["FLAGS", "PATTERNS", "Pattern"]

PATTERNS: Final[tuple[Pattern, ...]] = (*NUMBERS, *PLACES, *DATES)
