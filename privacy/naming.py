"""Rules that find English names by their company: titles, roles, and the words around them.

The language model knows names by sight; these rules know them by place, and find further mentions
of a name that is known already, in any language. For Chinese see `privacy.naming_zh`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import regex

from privacy import medical, names, search
from privacy.spans import Hit
from privacy.vocabulary import is_ordinary

TITLES: Final = frozenset(
    {"mr", "mrs", "ms", "miss", "mx", "dr", "prof", "doctor", "professor", "nurse", "sister", "sir"}
    | {"madam", "judge", "officer", "rev", "sgt", "capt", "señor", "señora", "mme", "herr", "frau"}
)

# A Chinese character beside a Latin word is no part of it.
_START: Final = r"(?<![^\W\p{Han}])"
_END: Final = r"(?![^\W\p{Han}])"
_NAME: Final = (
    r"(?:(?:(?:Mc|Mac|O['’]|D['’]|van |von |de |del |der |den |di |da |la |bin |al-)*"
    r"\p{Lu}[\p{Latin}'’]+(?:-\p{Lu}\p{Latin}+)?)|[A-Z]\.)"
)
_FULL: Final = rf"{_NAME}(?: {_NAME}){{0,3}}"
_TITLED: Final = regex.compile(
    rf"{_START}(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Doctor|Professor|Nurse|Sister|Sir|Madam|Judge|Officer|"
    rf"Rev|Sgt|Capt|Señora?|Mme|Herr|Frau)\.? ?(?P<v>{_FULL})"
)
_CALLED: Final = regex.compile(
    rf"{_START}(?:[Nn]amed?|[Nn]ame is|[Nn]ame:|[Cc]alled|[Pp]atient(?: name)?(?: is)?|[Pp]t\.?|"
    r"[Cc]ustomer|[Cc]lient|[Mm]ember|[Cc]aller|[Ff]amily of|[Dd]aughter|[Ss]on|[Ww]ife|[Hh]usband|"
    r"[Mm]other|[Ff]ather|[Ss]ister|[Bb]rother|[Pp]artner|[Ss]pouse|[Gg]uardian|[Nn]ext of kin|"
    r"[Ss]igned(?: by)?|[Ss]incerely|[Rr]egards|[Tt]hank you|[Tt]hanks|[Dd]ear|[Hh]ello|[Hh]i|"
    r"[Ii] am|[Ii]['’]m|[Tt]his is|[Cc]ontact|[Aa]ttn|[Rr]e|[Cc]ardholder|[Bb]eneficiary|[Pp]ayee|"
    r"[Cc]hat with|[Nn]ote for|[Rr]efer(?:s|red)|[Pp]hysician|[Ss]urgeon|[Uu]ser|[Cc]/[Oo])"
    rf"[,:]? (?P<v>{_FULL})"
)
_CARE: Final = regex.compile(
    rf"{_START}(?:[Ss]een|[Aa]dmitted|[Tt]reated|[Ee]valuated|[Dd]iagnosed|[Oo]perated|"
    r"[Hh]ospitali[sz]ed|[Rr]eferred|[Tt]ransferred|[Pp]resent(?:ed|ing|s)|[Vv]isit(?:ed|ing|s)?|[Oo]bserved|[Ff]ollowed|"
    r"[Cc]onsult\w*|[Ss]urgery|[Rr]eviewed|[Mm]anaged|[Ll]ives|[Ll]iving|"
    r"[Rr]esid\w+|[Ff]rom|[Aa]ppointment|[Aa]ppt|[Cc]are|[Cc]linic)"
    r"(?: \w+){0,2}? (?:at|in|to|from|@)(?: the| our)? "
    r"(?P<v>[A-Z][\w'’-]{2,}(?: (?:&|of|and(?= [A-Z])|[A-Z][\w'’.-]+))*)"
)
_LOCAL: Final = regex.compile(
    rf"{_START}(?P<v>(?:(?:St\.? )?[A-Z]\p{{L}}{{2,}}(?:['’]s)?(?: [A-Z]\p{{Ll}}+)?|"
    r"\d{1,3}(?:st|nd|rd|th) (?:[Aa]venue|[Ss]treet|[Aa]ve\.?|[Ss]t\.?)) "
    rf"(?:facility|clinic|hospital|office|campus|branch|site|location|practice)){_END}"
)
_PAIR: Final = regex.compile(
    rf"{_START}(?<![.-])\p{{Lu}}\p{{Ll}}+ (?:[A-Z]\.? )?"
    rf"(?:\p{{Lu}}\p{{Latin}}+(?:-\p{{Lu}}\p{{Latin}}+)?|[A-Z]\.){_END}"
)
_INITIAL: Final = regex.compile(rf"{_START}(?<![.-])[A-Z]\p{{Ll}}{{2,}} [A-Z]\.(?=[\s,;:)?!'’]|$)")
_POSSESSIVE: Final = regex.compile(r"['’]s?$")


def english(text: str, *, strict: bool) -> Iterator[Hit]:
    """Yield names found by English titles, roles, and well-known given names."""
    for match in search.matches(_TITLED, text):
        # The title goes with the name: "Dr. Iyer" is one person's name in full.
        yield _hit(text, match.start(), match.end(), 0.8)
    for rule in (_CALLED, _PAIR, _INITIAL):
        for match in search.matches(rule, text):
            start, end = match.span("v" if rule is _CALLED else 0)
            first = text[start:end].split()[0].lower()
            known = first in names.FEMALE or first in names.MALE
            if rule is _PAIR and not (known or (strict and not is_ordinary(first))):
                continue
            if not strict and medical.is_medical(text[start:end], text[end : end + 20]):
                continue
            if rule is _CALLED and not known:
                surface = text[start:end]
                if medical.is_medical(first) or (not strict and medical.is_term(surface)):
                    continue
            yield _hit(text, start, end, 0.65)


def places(text: str) -> Iterator[Hit]:
    """Yield institutions and towns that stand where one is seen, treated, or lives."""
    for rule in (_CARE, _LOCAL):
        for match in search.matches(rule, text):
            start, end = match.span("v")
            surface = text[start:end].rstrip(".'’-")
            words = surface.split()
            # "in January" is a date, "in ER" a ward; a ward's name is medical.
            if medical.is_medical(words[0]) or words[0].lower() in names.MONTHS:
                continue
            yield Hit(start, start + len(surface), "ORGANIZATION", 0.45)


def known_names(text: str, hits: Iterable[Hit], keep: bool) -> dict[str, str]:
    """Return the surfaces, with their types, that make further mentions known.

    A full name makes its parts known too: after "Maria Lopez", a bare "Lopez" is a person.

    Args:
        text: the detection copy.
        hits: what was found in it.
        keep: whether medical words are left alone.
    """
    found: dict[str, str] = {}
    for hit in hits:
        surface = text[hit.start : hit.end]
        if hit.type not in {"AGE", "DATE_TIME"}:
            found.setdefault(surface, hit.type)
        if hit.type != "PERSON":
            continue
        for part in regex.split(r"[\s.]+", surface):
            medicine = keep and medical.is_medical(part)
            if len(part) >= 3 and part[0].isupper() and part.lower() not in TITLES and not medicine:
                found.setdefault(part, hit.type)
        if len(surface) == 3 and surface[0] in names.ZH_SURNAMES:
            found.setdefault(surface[1:], hit.type)
    return found


def repeats(text: str, known: Mapping[str, str]) -> Iterator[Hit]:
    """Yield every mention in `text` of the known surfaces (surface -> type)."""
    folded = fold(text)
    for surface, kind in known.items():
        for start in mentions(text, folded, surface):
            yield Hit(start, start + len(surface), kind, 0.4, "repeat")


def fold(text: str) -> str:
    """Return `text` in lower case, of the same length."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def mentions(text: str, folded: str, surface: str) -> Iterator[int]:
    """Yield where `surface` stands in `text` as a word of its own.

    A single word that is no known given name must match in case, or be all capitals: the name
    "Salter" is not the word "salter". Anything longer matches in any case.

    Args:
        text: where to look.
        folded: `fold(text)`.
        surface: what to look for.
    """
    lower = fold(surface)
    if sum(c.isalnum() for c in surface) < 2 or lower not in folded:
        return
    exact = surface.isalpha() and surface.isascii()
    exact = exact and not (lower in names.FEMALE or lower in names.MALE)
    at = folded.find(lower)
    while at >= 0:
        end = at + len(lower)
        inside = (_word(text, at - 1) and _word(text, at)) or (
            _word(text, end) and _word(text, end - 1)
        )
        if not inside and (not exact or text[at:end] in {surface, surface.upper()}):
            yield at
        at = folded.find(lower, at + 1)


def _word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and text[at].isascii() and text[at].isalnum()


def _hit(text: str, start: int, end: int, score: float) -> Hit:
    surface = _POSSESSIVE.sub("", text[start:end])
    return Hit(start, start + len(surface), "PERSON", score)
