"""Patterns of days and of ages."""

from __future__ import annotations

from typing import Final

from privacy.names import MONTHS
from privacy.patterns_row import Pattern

_MONTH: Final = "(?:" + "|".join(f"{m[:3]}(?:{m[3:]})?" for m in MONTHS) + r"|sept)\.?"
_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR: Final = r"(?:1[89]|20)\d\d"

DATES: Final[tuple[Pattern, ...]] = (
    # Days. Years, ages below ninety, and spans of time stay.
    Pattern(
        "DATE_TIME", "iso",
        r"(?<![\d-])" + _YEAR + r"[-/.](?:0?[1-9]|1[0-2])[-/.](?:3[01]|[12]\d|0?[1-9])(?!\d|-\d)"
        r"(?:[ t][0-2]?\d:[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?(?:z|[+-]\d\d:?\d\d)?(?!\d))?",
        0.85,
    ),
    Pattern(
        "DATE_TIME", "slashed",
        r"(?<![\w/.-])(?:3[01]|[12]\d|0?[1-9])[/.-](?:3[01]|[12]\d|0?[1-9])[/.-](?:" + _YEAR +
        r"|\d\d)(?![\w/-]|\.\d)",
        0.8,
    ),
    Pattern(
        "DATE_TIME", "month-day",
        r"(?<!\w)" + _MONTH + r" ?" + _DAY + r"(?!\w)(?:,? ?(?:of )?" + _YEAR +
        r"(?!\d)| ['’]\d\d(?!\d))?",
        0.8,
    ),
    Pattern(
        "DATE_TIME", "day-month",
        r"(?<![\w.])" + _DAY + r"[ -]?(?:of )?" + _MONTH + r"(?!\w)(?:,?[ -]?" + _YEAR +
        r"(?!\d))?",
        0.8,
    ),
    Pattern(
        "DATE_TIME", "month-year",
        r"(?<!\w)" + _MONTH + r",? ?(?:of )?(?:" + _YEAR + r")(?!\d)",
        0.7,
    ),
    Pattern(
        "DATE_TIME", "month-slash",
        r"(?<![\w/.-])(?:0?[1-9]|1[0-2])/(?:3[01]|[12]\d|0?[1-9])(?![\w/%-]|\.\d)(?=\s*(?:$|"
        r"[,;.)?]|for|at|with|visit|appt|after|and))",
        0.4,
    ),
    Pattern(
        "DATE_TIME", "zh",
        r"(?:(?:1[89]|20)?\d\d年)?(?:0?[1-9]|1[0-2])月(?:3[01]|[12]\d|0?[1-9])[日号]",
        0.85, needs="han",
    ),
    Pattern(
        "DATE_TIME", "zh-month",
        r"(?:1[89]|20)\d\d年(?:1[0-2]|0?[1-9])月(?!\d)",
        0.75, needs="han",
    ),
    Pattern(
        "DATE_TIME", "zh-words",
        r"二[〇零○][〇零○一二三四五六七八九]{2}年[一二三四五六七八九十]{1,2}月"
        r"(?:[一二三四五六七八九十]{1,3}[日号])?",
        0.8, needs="han",
    ),
    Pattern(
        "PHONE_NUMBER", "phone-strict",
        r"(?<![\w$€£¥.,-])\(?\+?\d(?:[\s().\-/]{0,2}\d){6,14}(?![\w%])",
        0.3, None, "strict",
    ),
    Pattern(
        "ADDRESS", "room-strict",
        r"(?<!\w)(?:(?:apt|apartment|suite|ste|unit|box|room|psc|floor|flat)\.? ?#?\d{1,6}[a-z]?|"
        r"(?:[adf]po),? a[aep],? \d{5}(?:-\d{4})?)(?!\w)",
        0.4, None, "strict",
    ),
    Pattern(
        "ADDRESS", "corner-strict",
        r"(?<!\w)the corner of [^\n.;?!]{3,40}? and (?:[^\s.,;?!]+ ?){1,3}",
        0.4, None, "strict", "",
    ),
    Pattern(
        "DATE_TIME", "last-month",
        r"(?<!\w)last (?:(?:mon|tues|wednes|thurs|fri|satur|sun)day|" + _MONTH + r")(?!\w)",
        0.5, needs="",
    ),
    Pattern(
        "DATE_TIME", "relative-strict",
        r"(?<!\w)(?:last|next|this past) (?:week|month|year|spring|summer|fall|autumn|winter|"
        r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|" + _MONTH + r")(?!\w)",
        0.4, None, "strict", "",
    ),
    Pattern(
        "AGE", "clue-strict",
        r"(?<!\w)(?:turn(?:ed|ing|s)?|age(?:d)?(?: of)?|be|am)(?: about| only| just)? "
        r"(?P<v>\d{1,3})(?=[.,;!?]|\s|$)(?!\s?(?:%|mg|ml|kg|cm|days?|weeks?|hours?|times))",
        0.4, None, "strict",
    ),
    Pattern(
        "DATE_TIME", "year-strict",
        r"(?<![\w.-])" + _YEAR + r"(?![\w-]|\.\d)",
        0.35, None, "strict",
    ),
    Pattern(
        "AGE", "old",
        r"(?<![\w.])(?P<v>9\d|1[0-2]\d)(?=[ -]?(?:years?|yrs?|y/?o|岁|周岁))",
        0.8,
    ),
    Pattern("AGE", "old-clue", r"(?:\bage[ds]?|年龄)[\s:]{0,2}(?P<v>9\d|1[0-2]\d)(?!\d)", 0.8),
    Pattern(
        "AGE", "any-strict",
        r"(?<![\w.])(?P<v>\d{1,3})(?=[ -]?(?:years?[ -]old|yrs?[ -]old|y/?o(?!\w)|岁|周岁))",
        0.5, None, "strict",
    ),
)  # fmt: skip
