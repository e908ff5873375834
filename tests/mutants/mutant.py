"""What a mutant is, and how the lists of them name the tests that ought to notice it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change.

    Attributes:
        name: short, for the list.
        file: the product's file, from the repository root.
        old: text that stands in it exactly once.
        new: what replaces it.
        tests: pytest's names of the tests that ought to fail.
        also: a second old text, and what replaces it.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    also: tuple[str, str] | None = None


def named(file: str, *names: str) -> tuple[str, ...]:
    """Tests of one file, by their names without `test_`."""
    return tuple(f"tests/{file}.py::test_{name}" for name in names)


def noise(*names: str) -> tuple[str, ...]:
    """Tests of the noise and the sample."""
    return named("privacy/test_properties_noise", *names)


def sensitivity(*names: str) -> tuple[str, ...]:
    """Tests of how far one person moves a step."""
    return named("privacy/test_properties_sensitivity", *names)


def accounting(*names: str) -> tuple[str, ...]:
    """Tests of ε and the ledger."""
    return named("privacy/test_properties_accounting", *names)


def charges(*names: str) -> tuple[str, ...]:
    """Tests of what is charged for what is drawn."""
    return named("privacy/test_properties_charges", *names)
