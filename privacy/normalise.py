"""A copy of a text in which recognisers can't be fooled by how characters are written.

Full-width and circled digits become ASCII, invisible characters vanish, split accents are joined,
and look-alike letters of other scripts inside a Latin word become Latin. The copy is only for
detection; a map leads each of its characters back to the original.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

# Letters that print like a Latin one (Unicode TR 39 confusables, the common part).
_LOOKALIKE: Final = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406"
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456"
    "\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a7\u03bf",
    "ABEKMHOPCTXIaeopcyxiABEHIKMNOPTXo",
)
_STRANGE: Final = re.compile(r"[\u0370-\u04ff]")
_LATIN: Final = re.compile(r"[A-Za-z]")
_WORD: Final = re.compile(r"[^\W\d_]+")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Normalised:
    """The detection copy of a text and the way back.

    Attributes:
        text: the copy.
        starts: for each character of the copy, where its source begins in the original.
        ends: for each character of the copy, where its source ends in the original.
    """

    text: str = field(repr=False)
    starts: tuple[int, ...] | range = field(repr=False)
    ends: tuple[int, ...] | range = field(repr=False)

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Return the span [start, end) of the copy, end > start, as a span of the original."""
        return self.starts[start], self.ends[end - 1]


def normalise(text: str) -> Normalised:
    """Return the detection copy of `text`.

    Guarantees: ASCII text is returned as it is; the map is monotonic; an empty copy is possible
        if nothing in the text is visible.
    """
    if text.isascii():
        return Normalised(text, range(len(text)), range(1, len(text) + 1))
    simple = _one_for_one(text)
    if simple is not None:
        return Normalised(_fold_lookalikes(simple), range(len(text)), range(1, len(text) + 1))
    copy: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for at, character in enumerate(text):
        if character.isascii():
            written = character
        elif unicodedata.category(character) == "Cf":
            # Zero-width, bidirectional marks, soft hyphens: no reader sees them.
            continue
        elif unicodedata.combining(character) and copy:
            joined = unicodedata.normalize("NFC", copy[-1] + character)
            ends[-1] = at + 1
            if len(joined) == 1:
                copy[-1] = joined
            continue
        else:
            digit = unicodedata.digit(character, None)
            written = str(digit) if digit is not None else unicodedata.normalize("NFKC", character)
        for piece in written:
            copy.append(piece)
            starts.append(at)
            ends.append(at + 1)
    return Normalised(_fold_lookalikes("".join(copy)), tuple(starts), tuple(ends))


def _one_for_one(text: str) -> str | None:
    """Return the copy if each character has one of its own in it, the usual case, else None."""
    written = {}
    for character in set(text):
        if character.isascii():
            continue
        if unicodedata.category(character) == "Cf" or unicodedata.combining(character):
            return None
        digit = unicodedata.digit(character, None)
        plain = str(digit) if digit is not None else unicodedata.normalize("NFKC", character)
        if len(plain) != 1:
            return None
        if plain != character:
            written[ord(character)] = plain
    return text.translate(written) if written else text


def _fold_lookalikes(text: str) -> str:
    """Fold look-alikes in words that hold Latin letters; length stays the same."""
    if not _STRANGE.search(text):
        return text

    def fold(word: re.Match[str]) -> str:
        found = word.group()
        return found.translate(_LOOKALIKE) if _LATIN.search(found) else found

    return _WORD.sub(fold, text)


def has_han(text: str) -> bool:
    """Say whether any character is a Chinese one."""
    return _HAN.search(text) is not None


def is_han(character: str) -> bool:
    """Say whether one character is a Chinese one."""
    return _HAN.match(character) is not None


def known_script_share(text: str) -> float:
    """Return the share of the letters that are Latin or Han; 1.0 if there are no letters."""
    if text.isascii():
        return 1.0
    counts = Counter(text)
    letters = {character: n for character, n in counts.items() if character.isalpha()}
    if not letters:
        return 1.0
    known = sum(
        n
        for character, n in letters.items()
        if character.isascii() or is_han(character) or "LATIN" in unicodedata.name(character, "")
    )
    return known / sum(letters.values())
