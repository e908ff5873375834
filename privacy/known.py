"""What a record's own columns say: its names and numbers are looked for in its text.

The strongest recogniser there is: whoever holds the record knows whose it is. A name is found in
any order of its parts, in capitals, cut to an initial, or with a slip of the pen; a number with any
separators and with one wrong digit. Which column means what is read off the column's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import regex

from privacy import names, search
from privacy.naming import TITLES, fold, mentions
from privacy.normalise import has_han, is_han, normalise
from privacy.spans import Hit

_KINDS: Final = (
    ("EMAIL_ADDRESS", r"e-?mail|邮箱|邮件"),
    ("PHONE_NUMBER", r"phone|mobile|cell|fax|(?:^|[^a-z])tel(?:[^a-z]|ephone|$)|电话|手机|"
     r"联系方式"),
    ("DATE_TIME", r"birth|(?:^|[^a-z])dob(?:[^a-z]|$)|date|生日|出生|日期"),
    ("ADDRESS", r"address|street|(?:^|[^a-z])zip|post(?:al)?.?code|住址|地址|籍贯|邮编"),
    ("LOCATION", r"city|town|village|county|城市|市区"),
    ("IBAN_CODE", r"iban"),
    ("CREDIT_CARD", r"card.?(?:number|no)|(?:credit|debit|bank).?card|银行卡|卡号"),
    ("NATIONAL_ID", r"ssn|national|social.?security|passport|身份证|证件|护照|军官证"),
    ("ORGANIZATION", r"employer|company|hospital|school|clinic|organi[sz]ation|单位|公司|医院|"
     r"学校"),
    ("RECORD_NUMBER", r"(?:^|[^a-z])ids?(?:[^a-z]|$)|mrn|number|(?:^|[^a-z])no(?:[^a-z]|$)|code|"
     r"account|acct|policy|claim|record|plate|user|login|编号|号码|账号|账户|病历|住院|保单|工号|号$"),
    ("PERSON", r"name|patient|doctor|physician|nurse|surgeon|provider|relative|kin|mother|father|"
     r"spouse|wife|husband|guardian|contact|person|holder|customer|client|employee|alias|"
     r"姓名|名字|患者|病人|医生|医师|护士|联系人|家属|配偶|父亲|母亲|监护|持卡人|户主|客户|经办"),
)  # fmt: skip
_COMPILED: Final = tuple((kind, regex.compile(words)) for kind, words in _KINDS)
_WORD: Final = regex.compile(r"[\p{Latin}][\p{Latin}'’-]*")
_PARTS: Final = regex.compile(r"[\s,.;/]+")
_MIN_DIGITS: Final = 4
# Below these lengths a slip of the pen makes another word or another number.
_MIN_FUZZY_LETTERS: Final = 5
_MIN_FUZZY_DIGITS: Final = 8
_SEPARATOR: Final = r"[\s().,/\\_\-·:]{0,3}"


def kind_of(column: str, value: str) -> str | None:
    """Return the type of a column's values, or None if its name tells nothing about a person.

    A "…name" whose value has no letters, or a number column whose value has no digits, is not what
    it says; such a value is a record number if it holds digits and else is left out.
    """
    name = regex.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).casefold()
    for kind, words in _COMPILED:
        if words.search(name):
            digits = any(c.isdigit() for c in value)
            if kind in {"PERSON", "ORGANIZATION", "LOCATION"}:
                return kind if any(c.isalpha() for c in value) else "RECORD_NUMBER"
            return kind if digits or kind in {"EMAIL_ADDRESS", "ADDRESS"} else None
    return None


def find(text: str, columns: Mapping[str, str]) -> Iterator[Hit]:
    """Yield every place where a known value of the record stands in its text.

    Args:
        text: the detection copy.
        columns: name of the column -> value; values of any other type than text are the caller's
            to write as text. Columns that say nothing about a person are ignored.

    Raises:
        TimeoutError: the text is so odd that the search takes longer than the limit.
    """
    folded = fold(text)
    for column, raw in columns.items():
        value = normalise(raw).text.strip()
        kind = kind_of(column, value)
        if kind is None or not value:
            continue
        if kind == "PERSON":
            yield from _person(text, folded, value)
        else:
            yield from _exactly(text, folded, value, kind)
            digits = sum(c.isdigit() for c in value)
            if digits >= _MIN_DIGITS and kind not in {"ADDRESS", "ORGANIZATION", "LOCATION"}:
                yield from _number(text, value, kind)


def _exactly(text: str, folded: str, value: str, kind: str) -> Iterator[Hit]:
    if sum(c.isalnum() for c in value) < 2:
        return
    for start in mentions(text, folded, value):
        yield Hit(start, start + len(value), kind, 0.95, "column")
    if any(c.isspace() for c in value):
        words = [regex.escape(word) for word in value.split()]
        spread = regex.compile(r"(?<!\w)" + r"[\s,]+".join(words) + r"(?!\w)", regex.IGNORECASE)
        for match in search.matches(spread, text):
            yield Hit(match.start(), match.end(), kind, 0.95, "column")


def _person(text: str, folded: str, value: str) -> Iterator[Hit]:
    if has_han(value):
        yield from _chinese(text, value)
    yield from _exactly(text, folded, value, "PERSON")
    parts = {
        part.casefold()
        for part in _PARTS.split(value)
        if len(part) >= 2 and not has_han(part) and part.casefold() not in TITLES
    }
    if not parts:
        return
    for match in search.matches(_WORD, text):
        word = regex.sub(r"['’]s?$", "", match.group())
        lower = word.casefold()
        # A name that is also a word ("may", "will") counts only where it is written as a name.
        written = word[0].isupper() or (lower in parts and len(lower) >= _MIN_FUZZY_LETTERS)
        if written and (lower in parts or _slip(lower, parts)):
            yield Hit(match.start(), match.start() + len(word), "PERSON", 0.9, "column")


def _slip(word: str, parts: set[str]) -> bool:
    if len(word) < _MIN_FUZZY_LETTERS or word in names.FEMALE or word in names.MALE:
        return False
    return any(len(part) >= _MIN_FUZZY_LETTERS and near(word, part) for part in parts)


def near(one: str, two: str) -> bool:
    """Say whether two strings are one insertion, deletion, change, or swap of neighbours apart."""
    if abs(len(one) - len(two)) > 1:
        return False
    if len(one) > len(two):
        one, two = two, one
    at = 0
    while at < len(one) and one[at] == two[at]:
        at += 1
    if len(one) < len(two):
        return one[at:] == two[at + 1 :]
    swapped = one[at + 1 : at + 2] + one[at : at + 1]
    return one[at + 1 :] == two[at + 1 :] or (
        swapped == two[at : at + 2] and one[at + 2 :] == two[at + 2 :]
    )


def _chinese(text: str, value: str) -> Iterator[Hit]:
    name = "".join(c for c in value if is_han(c))
    cut = 2 if name[:2] in names.ZH_DOUBLE_SURNAMES else 1
    for surface in {name, name[cut:] if len(name) - cut >= 2 else name}:
        at = text.find(surface) if len(surface) >= 2 else -1
        while at >= 0:
            yield Hit(at, at + len(surface), "PERSON", 0.95, "column")
            at = text.find(surface, at + 1)
    # Spaced or broken over a line; half hidden; with one character mistaken for another.
    loose = [regex.escape(c) for c in name]
    gap = r"[\s·•]{0,3}"
    forms = [gap.join(loose), regex.escape(name[:cut]) + r"[某xX*]{1,2}"]
    forms += [rf"(?:老|小|阿){regex.escape(name[:cut])}(?![\u4e00-\u9fff])"]
    if len(name) >= 3:
        forms += [gap.join((*loose[:i], r"[\u4e00-\u9fff]", *loose[i + 1 :]))
                  for i in range(cut, len(name))]  # fmt: skip
    for match in search.matches(regex.compile("|".join(forms)), text):
        yield Hit(match.start(), match.end(), "PERSON", 0.85, "column")


def _number(text: str, value: str, kind: str) -> Iterator[Hit]:
    packed = [c.casefold() for c in value if c.isascii() and c.isalnum()]
    if len(packed) < _MIN_DIGITS:
        return
    pattern = _SEPARATOR.join(packed)
    fuzzy = sum(c.isdigit() for c in packed) >= _MIN_FUZZY_DIGITS
    # One digit wrong, missing, or too many.
    whole = rf"(?:{pattern}){{e<=1}}" if fuzzy else f"(?:{pattern})"
    compiled = regex.compile(rf"(?<![a-z\d]){whole}(?![a-z\d])", regex.IGNORECASE | regex.ASCII)
    for match in search.matches(compiled, text):
        start, end = match.span()
        while start < end and not text[start].isalnum():
            start += 1
        while end > start and not text[end - 1].isalnum():
            end -= 1
        if start < end:
            yield Hit(start, end, kind, 0.95, "column")
