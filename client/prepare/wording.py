"""One text at a time: markup, letters, control characters, fixed lines, and its language."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

from client import clean
from configs.prepare import CleanTable

_KEPT: Final = "\n\t"
# Invisible characters that mean nothing between letters; joiners stay, some scripts need them.
_INVISIBLE: Final = re.compile("[\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]")
_SPACES: Final = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u3000]+")
_GAPS: Final = re.compile(r"\n{3,}")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_WORD: Final = re.compile(r"[^\W\d_]+")
# Little words that a language cannot do without and its neighbours do not share.
_LITTLE: Final = {
    "en": "the of and is are was with for this that have has you not what how my it your from",
    "de": "der die das und ist nicht ein eine mit für auf ich sie wird bei von dem den sich",
    "fr": "le les des est une dans pour avec vous pas sur qui je nous ce cette au sont",
    "es": "el los las una por con para está del usted pero como más muy hay su lo",
    "it": "il gli che di una per con non è sono della nel questo anche del più ho",
    "pt": "os uma não com para você em do da dos das está mais por ao foi seu",
    "nl": "het een van niet met voor zijn op de dat ik ook aan bij naar wordt heeft",
}  # fmt: skip
_BY_WORD: Final = {language: frozenset(words.split()) for language, words in _LITTLE.items()}
_ENOUGH: Final = 3


def cleaned(text: str, table: CleanTable) -> str:
    """A text as the table wants it; Unicode is composed (NFC).

    Raises:
        Quarantined: mojibake; letters were lost to a wrong code page.
    """
    if table.markup:
        text = clean.clean(text).text
    if table.controls:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
        text = "".join(c for c in text if c in _KEPT or unicodedata.category(c) != "Cc")
    lines = text.split("\n")
    if table.controls:
        lines = [_SPACES.sub(" ", line).strip() for line in lines]
    if table.boilerplate:
        fixed = {same(line) for line in table.boilerplate}
        lines = [line for line in lines if same(line) not in fixed]
    text = "\n".join(lines)
    return _GAPS.sub("\n\n", text).strip() if table.controls else text


def without(text: str, lines: frozenset[str]) -> str:
    """A text without the lines that, after `same`, are among `lines`."""
    return "\n".join(line for line in text.split("\n") if same(line) not in lines).strip()


def same(line: str) -> str:
    """A line without what tells two printings of it apart: case, spaces, digits."""
    return re.sub(r"\d", "0", " ".join(line.split()).casefold())


def language(texts: Sequence[str]) -> str:
    """The language of texts taken together: a code, or "" where that is too little to tell.

    By the share of Chinese characters, else by little words; letters of another script are "other".
    """
    text = " ".join(texts)
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return ""
    if len(_HAN.findall(text)) >= 0.3 * len(letters):
        return "zh"
    latin = sum(1 for c in letters if c < "\u0250" or "\u1e00" <= c <= "\u1eff")
    if latin < 0.5 * len(letters):
        return "other"
    words = [word.casefold() for word in _WORD.findall(text)]
    hits = Counter({k: sum(word in known for word in words) for k, known in _BY_WORD.items()})
    (best, most), (_, next_most) = hits.most_common(2)
    return best if most >= _ENOUGH and most > next_most else ""
