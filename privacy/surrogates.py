"""Fictitious values in place of identifiers: constant for one person, unlinkable without the key.

Each person has a key of their own, derived from the institution's secret (HKDF-SHA-256, RFC 5869),
and each value is drawn by HMAC-SHA-256 (RFC 2104) under that key. So one patient's notes agree with
each other, two patients' notes say nothing about each other, and no table of pairs is kept. Numbers
keep their form and come from ranges that nobody is given.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeVar

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy import dates, names
from privacy.checksums import luhn
from privacy.naming import TITLES
from privacy.normalise import has_han, is_han

T = TypeVar("T")

MIN_SECRET_BYTES: Final = 16
_PEOPLE_IN_MEMORY: Final = 4096


class Surrogates:
    """The source of fictitious values of one institution."""

    def __init__(self, secret: bytes) -> None:
        """Take the institution's secret, at least `MIN_SECRET_BYTES` random bytes."""
        if not len(secret) >= MIN_SECRET_BYTES:
            raise ValueError(f"the surrogate secret needs at least {MIN_SECRET_BYTES} bytes")
        self._secret = bytes(secret)
        self.of = lru_cache(maxsize=_PEOPLE_IN_MEMORY)(self._of)

    def _of(self, person: str) -> Alias:
        info = b"privity pii v1\x00" + person.encode("utf-8")
        return Alias(HKDF(SHA256(), 32, salt=None, info=info).derive(self._secret))


class Alias:
    """One person's fictitious values."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        draw = self._draw("offset", "")
        # Far enough to hide the season of a single date, near enough to keep the decade.
        days = 30 + draw.below(336)
        self.offset_days: Final = days if draw.below(2) else -days

    def replace(self, kind: str, value: str) -> str:
        """Return the fictitious value for `value`.

        Args:
            kind: a type of `privacy.spans`.
            value: what stood in the text, in its detection form.

        Guarantees: a function of the person's key, `kind`, and `value` up to case and separators
            (its layout follows `value`); never equal to `value` in letters and digits, except for
            values of a single character and ages.
        """
        if kind == "PERSON":
            return self._name(value)
        for attempt in range(64):
            made = self._make(kind, value, self._draw(kind, _canonical(value), attempt))
            if _canonical(made) != _canonical(value):
                return made
        return f"[{kind}]"

    def _draw(self, kind: str, value: str, attempt: int = 0) -> _Draw:
        return _Draw(self._key, f"{kind}\0{value}\0{attempt}")

    def _make(self, kind: str, value: str, draw: _Draw) -> str:
        if kind == "DATE_TIME":
            return dates.shift(value, self.offset_days) or f"[{kind}]"
        if kind == "EMAIL_ADDRESS":
            given = draw.pick(names.NEW_FEMALE + names.NEW_MALE)
            return (
                f"{given}.{draw.pick(names.NEW_SURNAMES)}{draw.digits(2)}@example.invalid".lower()
            )
        if kind == "URL":
            return f"https://example.invalid/{draw.digits(6)}"  # RFC 2606
        if kind == "IP_ADDRESS":
            return f"192.0.2.{draw.below(254) + 1}"  # RFC 5737, documentation only
        if kind == "PHONE_NUMBER":
            return _lay_out(value, _phone(value, draw))
        if kind == "CREDIT_CARD":
            return _lay_out(value, _card(value, draw))
        if kind == "IBAN_CODE":
            return _lay_out(value, _iban(value, draw))
        if kind == "NATIONAL_ID":
            return _lay_out(value, self._national(value, draw))
        if kind == "AGE":
            return "90"
        if kind in {"ADDRESS", "LOCATION", "ORGANIZATION"}:
            return _place(kind, value, draw)
        if kind == "RECORD_NUMBER":
            return _lay_out(value, _shape(value, draw))
        return f"[{kind}]"

    def _national(self, value: str, draw: _Draw) -> str:
        packed = _packed(value)
        if len(packed) == 18:  # China: region 99 is nobody's; the birthday moves with the dates
            born = f"{packed[6:10]}-{packed[10:12]}-{packed[12:14]}"
            moved = (dates.shift(born, self.offset_days) or "1900-01-01").replace("-", "")
            body = "99" + draw.digits(4) + moved + draw.digits(3)
            total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(body))
            return body + "10X98765432"[total % 11]
        if len(packed) == 9 and packed.isdigit():
            return "000" + draw.digits(6)  # the SSA issues no area 000
        return _shape(value, draw)

    def _name(self, value: str) -> str:
        if has_han(value):
            return self._chinese_name(value)
        words = value.split(" ")
        out = []
        for at, word in enumerate(words):
            bare = word.rstrip(".,")
            if bare.casefold() in TITLES:
                out.append(word)
                continue
            if len(bare) <= 1:
                letter = self._draw("initial", bare.casefold()).pick("ABCDEFGHJKLMNPRSTVW")
                out.append(letter + word[len(bare) :])
                continue
            given = bare.casefold() in names.FEMALE or bare.casefold() in names.MALE
            alone = words[0].rstrip(".").casefold() in TITLES or len(words) == 1
            # The last of several words is the surname; a word on its own is what the lists say.
            first_name = given if alone and at == 0 else at < len(words) - 1
            out.append(self._word(bare, first_name) + word[len(bare) :])
        return " ".join(out)

    def _word(self, word: str, first_name: bool) -> str:
        known = word.casefold()
        pool: Sequence[str] = names.NEW_SURNAMES
        if first_name:
            pool = names.NEW_FEMALE + names.NEW_MALE
            if (known in names.FEMALE) != (known in names.MALE):
                pool = names.NEW_FEMALE if known in names.FEMALE else names.NEW_MALE
        for attempt in range(64):
            made = self._draw("given" if first_name else "surname", known, attempt).pick(pool)
            if made.casefold() != known:
                return made.upper() if word.isupper() else made
        return "[PERSON]"

    def _chinese_name(self, value: str) -> str:
        prefix = value[0] if len(value) == 2 and value[0] in "老小阿" else ""
        rest = value[len(prefix) :]
        double = len(rest) > 2 and rest[:2] in names.ZH_DOUBLE_SURNAMES
        cut = 2 if double else 1
        surname = self._draw("zh-surname", rest[:cut]).pick(names.ZH_NEW_SURNAMES)
        given = rest[cut:]
        if not given.strip("某xX*"):
            return prefix + surname + given
        women = len(names.ZH_WOMEN.intersection(given))
        men = len(names.ZH_MEN.intersection(given))
        pool = names.ZH_NEW_GIVEN
        if women != men:
            pool = names.ZH_NEW_FEMALE if women > men else names.ZH_NEW_MALE
        pick = self._draw("zh-given", given)
        return prefix + surname + "".join(pick.pick(pool) for _ in given[:2])


class _Draw:
    """Numbers from HMAC-SHA-256 in counter mode: the same inputs, the same numbers."""

    def __init__(self, key: bytes, label: str) -> None:
        self._key, self._label, self._block = key, label.encode("utf-8"), 0
        self._left = 0
        self._bits = 0

    def below(self, limit: int) -> int:
        """Return a number in [0, limit), limit at most 2**32, with a bias under 2**-32."""
        if self._left < 64:
            message = self._block.to_bytes(4, "big") + self._label
            self._bits = int.from_bytes(hmac.digest(self._key, message, hashlib.sha256), "big")
            self._left, self._block = 256, self._block + 1
        word = self._bits & (2**64 - 1)
        self._bits >>= 64
        self._left -= 64
        return word % limit

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def digits(self, count: int) -> str:
        return "".join(str(self.below(10)) for _ in range(count))


def _canonical(value: str) -> str:
    return "".join(c for c in value.casefold() if c.isalnum())


def _packed(value: str) -> str:
    return "".join(c for c in value if c.isascii() and c.isalnum())


def _lay_out(value: str, made: str) -> str:
    """Put the made characters where letters and digits stood; keep every separator."""
    fresh = iter(made)
    return "".join(next(fresh, "0") if c.isascii() and c.isalnum() else c for c in value)


def _shape(value: str, draw: _Draw) -> str:
    def like(character: str) -> str:
        if character.isdigit():
            return draw.digits(1)
        letter = draw.pick("ABCDEFGHJKLMNPQRSTUVWXYZ")
        return letter if character.isupper() else letter.lower()

    return "".join(like(c) for c in _packed(value))


def _phone(value: str, draw: _Draw) -> str:
    packed = _packed(value)
    digits = "".join(c for c in packed if c.isdigit())
    tail = "".join(draw.digits(1) for _ in range(30))
    if digits.startswith("86") and len(digits) == 13:
        made = "8612" + tail[:9]  # China has no mobile network 12x
    elif len(digits) == 11 and digits[0] == "1" and digits[1] in "3456789" and _plain(value):
        made = "12" + tail[:9]
    elif (len(digits) >= 10 and not value.startswith("+")) or digits.startswith("1"):
        lead = "1" if len(digits) >= 11 and digits[0] == "1" else ""
        # 555-0100 to 555-0199 are reserved for fiction by the numbering plan.
        made = lead + f"{2 + draw.below(8)}{draw.digits(2)}55501" + tail
    elif len(digits) == 7:
        made = "55501" + tail
    else:
        made = "999" + tail  # no country has this code
    made_digits = iter(made + tail)
    return "".join(next(made_digits) if c.isdigit() else c for c in packed)


def _plain(value: str) -> bool:
    """Say whether the digits stand as Chinese mobile numbers do: in a row, or 3-4-4."""
    groups = value.replace("-", " ").split(" ")
    return [len(group) for group in groups] in ([11], [3, 4, 4])


def _card(value: str, draw: _Draw) -> str:
    count = len(_packed(value))
    body = "999999" + draw.digits(max(0, count - 7))  # no issuer has this number
    return next(body + d for d in "0123456789" if luhn(body + d)) if count >= 12 else body[:count]


def _iban(value: str, draw: _Draw) -> str:
    account = draw.digits(max(0, len(_packed(value)) - 4))
    # XX is free for private use in ISO 3166-1; X = 33.
    return f"XX{98 - int(account + '333300') % 97:02d}{account}"


def _place(kind: str, value: str, draw: _Draw) -> str:
    if has_han(value):
        return _chinese_place(kind, value, draw)
    if kind == "LOCATION":
        return draw.pick(names.NEW_TOWNS)
    if kind == "ORGANIZATION":
        last = value.split()[-1].strip(".,")
        known = last in {"Clinic", "Center", "Centre", "Hospital", "Pharmacy", "Bank", "University"}
        return f"{draw.pick(names.NEW_HOUSES)} {last if known else 'Hospital'}"
    if not any(c.isspace() for c in value.strip()) or len(_packed(value)) < 10:
        return _lay_out(value, _shape(value, draw))
    street = f"{draw.below(999) + 1} {draw.pick(names.NEW_STREETS)}"
    return f"{street}, {draw.pick(names.NEW_TOWNS)}" if "," in value else street


def _chinese_place(kind: str, value: str, draw: _Draw) -> str:
    word = draw.pick(names.ZH_NEW_STREETS)
    if kind == "ORGANIZATION":
        return word + ("支行" if value.endswith("行") else "医院")
    # The province stays: at that level an address says little, and care depends on it.
    province = next(
        (value[: at + 1] for at in range(2, min(4, len(value))) if value[at] == "省"), ""
    )
    if kind == "LOCATION" or not any(c.isdigit() for c in value):
        return f"{province}{word}市{draw.pick(names.ZH_NEW_STREETS)}区"
    district = draw.pick(names.ZH_NEW_STREETS)
    return (
        f"{province}{word}市{district}区{draw.pick(names.ZH_NEW_STREETS)}路{draw.below(999) + 1}号"
    )


def count_han(text: str) -> int:
    """Return how many Chinese characters a text has."""
    return sum(is_han(character) for character in text)
