"""Check digits of cards, accounts, and resident numbers."""

from __future__ import annotations


def luhn(text: str) -> bool:
    """Check the digits of a card number (ISO/IEC 7812-1, annex B)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return len(digits) >= 12 and sum(n // 10 + n % 10 for n in doubled) % 10 == 0


def iban(text: str) -> bool:
    """Check an IBAN (ISO 13616; ISO 7064 mod 97-10)."""
    packed = "".join(c for c in text if c.isalnum()).upper()
    return (
        len(packed) >= 15
        and int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1
    )


def chinese_id(text: str) -> bool:
    """Check an 18-character resident number (GB 11643; ISO 7064 mod 11-2)."""
    packed = "".join(c for c in text if c.isalnum()).upper()
    if len(packed) != 18:
        return False
    total = sum((10 if c == "X" else int(c)) * pow(2, 17 - i, 11) for i, c in enumerate(packed))
    return total % 11 == 1


def hong_kong_id(text: str) -> bool:
    """Check a Hong Kong identity number: letters from 10 on, a space counts 36, weights 9 to 1."""
    packed = "".join(c for c in text if c.isalnum()).upper()
    body, last = packed[:-1], packed[-1:]
    if len(packed) not in {8, 9} or not body.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ").isdigit():
        return False
    values = [36] * (8 - len(body)) + [int(c, 36) for c in body]
    total = sum(value * weight for value, weight in zip(values, range(9, 1, -1), strict=True))
    return (total + (10 if last == "A" else int(last, 36))) % 11 == 0


_TAIWAN: dict[str, int] = {c: 10 + i for i, c in enumerate("ABCDEFGHJKLMNPQRSTUVXYWZIO")}


def taiwan_id(text: str) -> bool:
    """Check a Taiwanese identity or resident number, a letter and nine digits."""
    packed = "".join(c for c in text if c.isalnum()).upper()
    if len(packed) != 10 or packed[0] not in _TAIWAN or not packed[1:].isdigit():
        return False
    first = _TAIWAN[packed[0]]
    digits = [first // 10, first % 10, *map(int, packed[1:])]
    weights = (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)
    return sum(d * w for d, w in zip(digits, weights, strict=True)) % 10 == 0


_CREDIT_CODE = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def credit_code(text: str) -> bool:
    """Check a unified social credit code (GB 32100-2015), 18 characters."""
    packed = "".join(c for c in text if c.isalnum()).upper()
    if len(packed) != 18 or not set(packed) <= set(_CREDIT_CODE):
        return False
    total = sum(_CREDIT_CODE.index(c) * pow(3, i, 31) for i, c in enumerate(packed[:17]))
    return (31 - total % 31) % 31 == _CREDIT_CODE.index(packed[17])
