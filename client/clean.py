"""A text without markup and with its letters repaired, and the way back to what was written.

Tags go (with scripts, styles and comments), character references become characters, and UTF-8 that
was once read in a wrong code page is put right where that is certain (ftfy); where it is not, the
text is held back. Words that an optical reader got wrong stay as they are.
"""

from __future__ import annotations

import html
import re
import warnings
from dataclasses import dataclass, field
from typing import Final

from privacy.errors import Quarantined

_TAGS: Final = (
    "html|head|body|title|meta|link|style|script|div|p|br|hr|span|font|b|i|u|s|em|strong|small|sub|"
    "sup|a|img|ul|ol|li|dl|dt|dd|table|thead|tbody|tfoot|tr|td|th|caption|col|colgroup|h[1-6]|pre|"
    "code|blockquote|center|section|article|header|footer|main|nav|form|input|label|button|select|"
    "option|textarea|iframe|object|embed|svg|video|audio|content|paragraph|list|item|text|linkHtml"
)
_BLOCKS: Final = frozenset(
    {
        "p", "div", "br", "hr", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr", "h1", "h2", "h3",
        "h4", "h5", "h6", "pre", "blockquote", "section", "article", "header", "footer", "body",
        "title", "paragraph", "item", "list", "caption",
    }
)  # fmt: skip
_MARKUP: Final = re.compile(
    r"(?P<comment><!--)|<!\[CDATA\[|\]\]>|<!DOCTYPE[^<>]{0,1000}>|<\?xml[^<>]{0,1000}\?>"
    r"|<(?P<hidden>script|style)\b[^<>]{0,4000}>"
    rf"|</?(?P<tag>{_TAGS})(?=[\s/>])[^<>]{{0,20000}}>"
    r"|&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});",
    re.IGNORECASE,
)
_REFERENCE: Final = "&"
_WORD: Final = re.compile(r"[^ \t\r\n]+")
# Letters that almost only a wrong code page puts side by side.
_SUSPECT: Final = re.compile(
    r"[\u0080-\u009f]|[ÂÃâåäæçèé][\u0080-\u00bf\u2010-\u203a\u20ac\u0192\u02c6\u0160\u0152\u017d]"
)
_LOST: Final = re.compile(r"[\u0080-\u0084\u0086-\u009f]")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text to be read.

    Attributes:
        text: without markup, letters repaired.
        offsets: for each character of `text` and its end, where it stands in the original; None if
            nothing was changed.
    """

    text: str = field(repr=False)
    offsets: tuple[int, ...] | None = field(repr=False)

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Where [start, end) of `text`, end > start, stands in the original."""
        if self.offsets is None:
            return start, end
        first, last = self.offsets[start], self.offsets[end - 1]
        # Several characters can come from one place, such as a repaired word.
        after = next((o for o in self.offsets[end:] if o > last), self.offsets[-1])
        return first, after


def clean(text: str) -> Cleaned:
    """Strip markup and repair letters.

    Guarantees: a text without either is returned as it is.

    Raises:
        Quarantined: mojibake; letters were lost to a wrong code page and can't be told for sure.
    """
    if not _MARKUP.search(text) and not _SUSPECT.search(text):
        return Cleaned(text, None)
    plain, offsets = _repair(*_strip(text))
    if _SUSPECT.search(plain) and _bad(plain):
        raise Quarantined("mojibake")
    if plain == text:
        return Cleaned(text, None)
    return Cleaned(plain, tuple(offsets))


def _bad(text: str) -> bool:
    from ftfy import badness

    return _LOST.search(text) is not None or bool(badness.is_bad(text))


def _strip(text: str) -> tuple[str, list[int]]:
    out: list[str] = []
    offsets: list[int] = []
    folded = text.lower() if len(text.lower()) == len(text) else text
    at = 0

    def copy(start: int, end: int) -> None:
        out.append(text[start:end])
        offsets.extend(range(start, end))

    # What is hidden reaches to its close; where there is none, it is no markup (and the search for
    # it is not made again, so that open ends cost no time).
    unclosed: set[str] = set()
    begin = 0
    while match := _MARKUP.search(text, begin):
        begin = match.end()
        if (
            close := "-->"
            if match["comment"]
            else f"</{match['hidden']}"
            if match["hidden"]
            else ""
        ):
            end = -1 if close in unclosed else folded.find(close.lower(), begin)
            if end < 0:
                unclosed.add(close)
                continue
            begin = end + len(close) if match["comment"] else text.find(">", end) + 1 or len(text)
        copy(at, match.start())
        at = begin
        written = ""
        if match.group()[0] == _REFERENCE:
            written = html.unescape(match.group()).replace("\xa0", " ")
        elif match["tag"] is not None:
            tag = match["tag"].lower()
            written = "\n" if tag in _BLOCKS else " " if tag in {"td", "th"} else ""
        out.append(written)
        offsets.extend([match.start()] * len(written))
    copy(at, len(text))
    offsets.append(len(text))
    return "".join(out), offsets


def _repair(text: str, offsets: list[int]) -> tuple[str, list[int]]:
    """Mend word by word, so that each one still knows where it came from."""
    if not _SUSPECT.search(text):
        return text, offsets
    import ftfy

    out: list[str] = []
    places: list[int] = []
    at = 0
    for match in _WORD.finditer(text):
        out.append(text[at : match.start()])
        places += offsets[at : match.start()]
        at = match.end()
        word = match.group()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mended = ftfy.fix_encoding(word) if _SUSPECT.search(word) else word
        out.append(mended)
        same = mended == word
        places += offsets[match.start() : at] if same else [offsets[match.start()]] * len(mended)
    out.append(text[at:])
    places += offsets[at:]
    return "".join(out), places
