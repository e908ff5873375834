"""Shift a written date by whole days and write it the way it was written."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Final

from privacy.names import MONTHS

_NAMED: Final = "|".join(f"{m[:3]}(?:{m[3:]})?" for m in MONTHS) + "|sept"
_ISO: Final = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_SLASHED: Final = re.compile(r"(\d{1,2})([-/.])(\d{1,2})([-/.])(\d{4}|\d\d)")
_SHORT: Final = re.compile(r"(\d{1,2})/(\d{1,2})")
_MONTH_DAY: Final = re.compile(
    rf"({_NAMED})(\.? ?)(\d{{1,2}})(st|nd|rd|th)?(?:(,? ?(?:of )?)(\d{{4}}))?", re.IGNORECASE
)
_DAY_MONTH: Final = re.compile(
    rf"(\d{{1,2}})(st|nd|rd|th)?([ -]?(?:of )?)({_NAMED})(\.?)(?:(,?[ -]?)(\d{{4}}))?",
    re.IGNORECASE,
)
_MONTH_YEAR: Final = re.compile(rf"({_NAMED})(\.?,? ?(?:of )?)(\d{{4}})", re.IGNORECASE)
_ZH: Final = re.compile(r"(?:(\d{4}|\d\d)年)?(\d{1,2})月(?:(\d{1,2})([日号]))?")

# A date without a year is read in this one, so that equal dates keep equal distances.
_NO_YEAR: Final = 2001


def shift(written: str, days: int) -> str | None:
    """Return the date `days` later, in the same form, or None if `written` is no date we know.

    Guarantees: two dates of the same form keep their distance exactly, wherever both have a day
        and a year. Month and year alone are moved as the fifteenth of the month.
    """
    for form, write in _FORMS:
        match = form.fullmatch(written.strip())
        if match:
            try:
                return write(match, timedelta(days=days))
            except (ValueError, OverflowError):
                return None
    return None


def _iso(m: re.Match[str], by: timedelta) -> str:
    day = date(int(m[1]), int(m[3]), int(m[4])) + by
    return f"{day.year:04d}{m[2]}{_like(day.month, m[3])}{m[2]}{_like(day.day, m[4])}"


def _slashed(m: re.Match[str], by: timedelta) -> str:
    first, second, year = int(m[1]), int(m[3]), _year(m[5])
    # Month first, unless that is impossible.
    day_first = first > 12
    month, number = (second, first) if day_first else (first, second)
    day = date(year, month, number) + by
    one, two = (day.day, day.month) if day_first else (day.month, day.day)
    return f"{_like(one, m[1])}{m[2]}{_like(two, m[3])}{m[4]}{_tail(day.year, m[5])}"


def _short(m: re.Match[str], by: timedelta) -> str:
    day = date(_NO_YEAR, int(m[1]), int(m[2])) + by
    return f"{_like(day.month, m[1])}/{_like(day.day, m[2])}"


def _month_day(m: re.Match[str], by: timedelta) -> str:
    day = date(int(m[6] or _NO_YEAR), _month(m[1]), int(m[3])) + by
    year = f"{m[5]}{day.year:04d}" if m[6] else ""
    return f"{_name(day.month, m[1])}{m[2]}{_like(day.day, m[3])}{_ordinal(day.day, m[4])}{year}"


def _day_month(m: re.Match[str], by: timedelta) -> str:
    day = date(int(m[7] or _NO_YEAR), _month(m[4]), int(m[1])) + by
    year = f"{m[6]}{day.year:04d}" if m[7] else ""
    number = f"{_like(day.day, m[1])}{_ordinal(day.day, m[2])}"
    return f"{number}{m[3]}{_name(day.month, m[4])}{m[5]}{year}"


def _month_year(m: re.Match[str], by: timedelta) -> str:
    day = date(int(m[3]), _month(m[1]), 15) + by
    return f"{_name(day.month, m[1])}{m[2]}{day.year:04d}"


def _zh(m: re.Match[str], by: timedelta) -> str:
    day = date(_year(m[1]) if m[1] else _NO_YEAR, int(m[2]), int(m[3] or 15)) + by
    year = f"{_tail(day.year, m[1])}年" if m[1] else ""
    number = f"{_like(day.day, m[3])}{m[4]}" if m[3] else ""
    return f"{year}{_like(day.month, m[2])}月{number}"


_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str], timedelta], str]], ...]] = (
    (_ISO, _iso),
    (_SLASHED, _slashed),
    (_SHORT, _short),
    (_MONTH_YEAR, _month_year),
    (_MONTH_DAY, _month_day),
    (_DAY_MONTH, _day_month),
    (_ZH, _zh),
)


def _like(number: int, written: str) -> str:
    """Pad with a zero if the original was padded."""
    return f"{number:02d}" if written.startswith("0") or len(written) == 2 else str(number)


def _year(written: str) -> int:
    year = int(written)
    return year if len(written) == 4 else year + (2000 if year <= 40 else 1900)


def _tail(year: int, written: str) -> str:
    return f"{year:04d}"[-len(written) :]


def _month(written: str) -> int:
    return next(i for i, m in enumerate(MONTHS, start=1) if m.startswith(written[:3].lower()))


def _name(month: int, written: str) -> str:
    whole = MONTHS[month - 1]
    # "May" is both short and long; take it for long.
    name = whole if len(written) > 4 or written.lower() in MONTHS else whole[:3]
    if written.isupper():
        return name.upper()
    return name.capitalize() if written[0].isupper() else name


def _ordinal(day: int, written: str | None) -> str:
    if not written:
        return ""
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
