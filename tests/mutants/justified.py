"""Checks of the verifier that no test can miss, each with the reason."""

from __future__ import annotations

JUSTIFIED: dict[str, str] = {}
