"""Words that no dictionary has, with the numbers and capitals around them: the strict profile only.

A language model knows the names it was trained on; there is no end to the others. Here it is the
other way round: a word that is written like a name and is no ordinary word is taken for one, and
the run of capitals and numbers it stands in goes with it. That costs words which are nobody's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import regex

from privacy import medical, names, search
from privacy.spans import Hit
from privacy.vocabulary import is_ordinary


def _split(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TOKEN: Final = regex.compile(
    r"(?V1)\p{Han}+|[[\p{L}\p{M}]--\p{Han}]+(?:['’´`.-][[\p{L}\p{M}]--\p{Han}]+)*|"
    r"\d[\d[\p{L}--\p{Han}]]*(?:[-/]\d[\d[\p{L}--\p{Han}]]*)*|[^\s\p{L}\d]"
)
_HAN: Final = regex.compile(r"\p{Han}")
_JOINTS: Final = _split(
    """
    de la le du des di da do del della van von der den of and & the y e i und et en al el bin zu
    sur upon
    """
)
_ROOMS: Final = _split(
    """
    apt apartment suite ste unit floor box po psc apo fpo street st str road rd avenue ave drive
    dr lane ln court ct way place square boulevard blvd terrace close crescent highway route
    corner ul al os pl rue via calle rua strasse gate u rkp plaza avda ap ae aa nan block
    building house parkway pkwy circle
    """
)
_NEVER: Final = _split(
    """
    i a an the my your his her our their this that these those it he she we you they is are was
    were be been do does did have has had can could will would shall should may might must not
    no yes and or but if when where who what how why which while because since as at by for from
    in into of on to up with about after before please thanks thank hi hello hey dear re id mr
    mrs ms dr prof miss mx sir madam am pm ok bot user agent patient pt so then there here also
    just now ssn iban mrn dob ip url tv usa ceo cfo phd md rn
    """
)
_NO_NUMBER: Final = regex.compile(
    r"\s?(?:%|mg|mcg|ml|kg|cm|mm|years?|days?|weeks?|months?|times?)\b"
)


@dataclass(slots=True)
class _Token:
    start: int
    end: int
    text: str
    seed: bool = False
    soft: bool = False


def find(text: str) -> Iterator[Hit]:
    """Yield runs around words that are no ordinary ones, as people, places, or addresses.

    Raises:
        TimeoutError: the text is so odd that its words cannot be told apart in time.
    """
    tokens = [_Token(m.start(), m.end(), m.group()) for m in search.matches(_TOKEN, text)]
    shouted = _shouted(text)
    whispered = text.islower()
    for at, token in enumerate(tokens):
        first = (
            at == 0
            or tokens[at - 1].text in {".", "!", "?", ":", '"', "“", "\n"}
            or ("\n" in text[tokens[at - 1].end : token.start])
        )
        _judge(token, first=first, shouted=shouted, whispered=whispered)
    for at, token in enumerate(tokens):
        # "frank" beside a name that no list has is a name too.
        if token.text.isalpha() and (len(token.text) == 1 or _is_name(token.text.casefold())):
            token.soft = token.soft or any(
                0 <= to < len(tokens) and tokens[to].seed and tokens[to].text[0].islower()
                for to in (at - 1, at + 1, at + 2)
            )
    at = 0
    while at < len(tokens):
        if not tokens[at].seed:
            at += 1
            continue
        left, last = _spread(text, tokens, at)
        start, end = tokens[left].start, tokens[last].end
        yield Hit(
            start,
            end,
            _kind(text[max(0, start - 20) : start], tokens[left : last + 1]),
            0.3,
            "unknown-word",
        )
        at = last + 1


def _judge(token: _Token, *, first: bool, shouted: bool, whispered: bool) -> None:
    word, lower = token.text, token.text.casefold().rstrip(".")
    if word[0].isdigit():
        token.soft = True
        return
    if not word[0].isalpha() or _HAN.search(word) or lower in _NEVER:
        return
    capital = word[0].isupper()
    given = _is_name(lower)
    stem = regex.sub(r"['’´`]s?$", "", lower)
    ordinary = stem.isascii() and (is_ordinary(stem) or medical.is_medical(stem))
    short = word.isupper() and len(word) <= 4 and word.isascii()
    if capital and not shouted:
        token.seed = (not ordinary and not short and len(word) >= 2) or given
        token.soft = not first or short or lower in _ROOMS
    elif shouted or whispered or not word.isascii():
        token.seed = len(word) >= 3 and (not ordinary or (given and not is_ordinary(stem)))
    else:
        token.seed = len(word) >= 4 and not ordinary
    token.soft = token.soft or lower in _ROOMS


def _is_name(lower: str) -> bool:
    return lower in names.FEMALE or lower in names.MALE or lower in names.COMMON_SURNAMES


def _spread(text: str, tokens: list[_Token], at: int) -> tuple[int, int]:
    """Return the first and last token of the run that token `at` stands in."""
    last = at
    address = False
    while (after := _next(text, tokens, last, address, 1)) is not None:
        address = address or tokens[after].text[0].isdigit()
        last = after
    first = at
    while (before := _next(text, tokens, first, address, -1)) is not None:
        address = address or tokens[before].text[0].isdigit()
        first = before
    while address and (after := _next(text, tokens, last, address, 1)) is not None:
        last = after
    return first, last


def _next(text: str, tokens: list[_Token], at: int, address: bool, step: int) -> int | None:
    """Return the next token of a run, over joints, and in an address over commas and lines."""
    to = at + step
    joints = 0
    while 0 <= to < len(tokens):
        left, right = (to - step, to) if step > 0 else (to, to - step)
        gap = text[tokens[left].end : tokens[right].start]
        if len(gap) > (12 if address else 1) or ("\n" in gap and not address):
            return None
        token = tokens[to]
        if token.seed or (token.soft and not _measured(text, token)):
            return to
        over = {",", "-", "#", "\\", ">", "(", ")"} if address else {"-", "'", "’", "&"}
        if token.text == ".":
            # A full stop ends the run unless it is one of an abbreviation or a house number.
            if to == 0 or len(tokens[to - 1].text) > 4 or tokens[to - 1].end != token.start:
                return None
            if len(tokens[to - 1].text) > 3 and tokens[to - 1].text[0].isdigit():
                return None
        elif token.text not in over and token.text.casefold() not in _JOINTS:
            return None
        joints += 1
        if joints > 3:
            return None
        to += step
    return None


def _measured(text: str, token: _Token) -> bool:
    return token.text[0].isdigit() and _NO_NUMBER.match(text, token.end) is not None


def _kind(before: str, run: list[_Token]) -> str:
    if any(token.text[0].isdigit() or token.text.casefold() in _ROOMS for token in run):
        return "ADDRESS"
    if run[-1].text.casefold().rstrip(".") in names.COMPANY_WORDS:
        return "ORGANIZATION"
    if regex.search(r"(?:in|from|to|near|of|visit(?:ed|ing)?)\s$", before):
        return "LOCATION"
    return "PERSON"


def _shouted(text: str) -> bool:
    """Say whether a text is written in capitals, so that they mean nothing."""
    return sum(map(str.isupper, text)) > 2 * sum(map(str.islower, text))
