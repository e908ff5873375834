"""Which English words are ordinary ones: a list of base forms, and the ways to inflect them.

What is not ordinary and written like a name is one, more often than not; only the strict profile
goes as far as that. The lists hold no proper names (`words_en.txt`, `words_medical.txt`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

FILES: Final = ("words_en.txt", "words_medical.txt")
_ENDINGS: Final = (
    ("ies", "y"), ("ied", "y"), ("ier", "y"), ("iest", "y"), ("ily", "y"), ("es", ""), ("s", ""),
    ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"), ("ly", ""), ("ly", "le"), ("er", ""),
    ("er", "e"), ("ers", ""), ("ers", "e"), ("est", ""), ("est", "e"), ("ness", ""), ("less", ""),
    ("ful", ""), ("able", ""), ("ally", ""), ("ically", "ic"),
)  # fmt: skip
_BEFORE: Final = (
    "un",
    "non",
    "re",
    "pre",
    "post",
    "over",
    "under",
    "anti",
    "multi",
    "sub",
    "inter",
)


@cache
def _words(name: str) -> frozenset[str]:
    lines = Path(__file__).with_name(name).read_text(encoding="ascii").splitlines()
    return frozenset(" ".join(line for line in lines if not line.startswith("#")).split())


@lru_cache(maxsize=1 << 16)
def is_ordinary(word: str) -> bool:
    """Say whether `word`, in any case, is an English word or a medical one, inflected or not."""
    lower = word.casefold()
    if "-" in lower:
        return all(is_ordinary(part) for part in lower.split("-") if len(part) > 2)
    return any(form in _words(name) for form in _forms(lower) for name in FILES)


@lru_cache(maxsize=1 << 14)
def is_medical_word(word: str) -> bool:
    """Say whether `word` is in the medical list, inflected or not."""
    return any(form in _words(FILES[1]) for form in _forms(word.casefold()))


def _forms(word: str) -> Iterator[str]:
    yield word
    yield from _bases(word)
    for start in _BEFORE:
        if word.startswith(start) and len(word) - len(start) >= 4:
            rest = word[len(start) :]
            yield rest
            yield from _bases(rest)


def _bases(word: str) -> Iterator[str]:
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            base = word[: -len(ending)] + instead
            yield base
            if len(base) >= 4 and base[-1] == base[-2]:
                yield base[:-1]  # "stopped", "planning"
