"""Checks of the verifier that no test can miss, each with the reason."""

from __future__ import annotations

JUSTIFIED: dict[str, str] = {
    "audit/verify.py verify: evidence is None": (
        "where there is no evidence, a fault of the bytes was noted, so the second condition holds "
        "as well; the first tells the type checker"
    ),
    "audit/verify_log.py _check_first: first is None": (
        "where there is no first entry, its index is -1, so the second condition holds as well"
    ),
}
