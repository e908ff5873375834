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
