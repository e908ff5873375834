"""Checks of the verifier that no test can miss, each with the reason."""

from __future__ import annotations

JUSTIFIED: dict[str, str] = {
    "audit/verify.py verify: evidence is None": (
        "where there is no evidence, a fault of the bytes was noted, so the second condition holds "
        "as well; the first tells the type checker"
    ),
    'audit/canonical.py _no_fraction: raise ValueError("a fraction")': (
        "without it a fraction is read as null, and null is never written as the fraction was, so "
        "the bytes go the careful way all the same"
    ),
}
