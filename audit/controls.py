"""Control tables: what a law or standard asks, the events that speak to it, what stays open.

The rows are data (`controls.toml`). Nothing here says that a control is met.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "controls.toml"
DOCUMENT = Path(__file__).parents[1] / "docs" / "controls.md"
COUNSEL = "to be confirmed by counsel"


@dataclass(frozen=True, slots=True)
class Control:
    """One control: what it asks, the kinds of events and checks that speak to it, the gap."""

    id: str
    asks: str
    kinds: tuple[str, ...]
    checks: tuple[str, ...]
    gap: str


@dataclass(frozen=True, slots=True)
class Source:
    """One law or standard; `checked` is the date on which it was read, or `not checked`."""

    name: str
    about: str
    checked: str
    controls: tuple[Control, ...]


def sources() -> tuple[Source, ...]:
    """Read the tables."""
    data = tomllib.loads(DATA.read_text(encoding="utf-8"))
    return tuple(
        Source(
            item["name"],
            item["about"],
            item["checked"],
            tuple(
                Control(
                    row["id"],
                    row["asks"],
                    tuple(row["kinds"]),
                    tuple(row.get("checks", ())),
                    row["gap"],
                )
                for row in item["control"]
            ),
        )
        for item in data["source"]
    )


def document() -> str:
    """Return docs/controls.md."""
    lines = [
        "# Controls, events and what stays open",
        "",
        "Which events of the logs, and which recomputations of the verifier, speak to which",
        "control of a law or standard, and what they leave open. The tables award no verdict:",
        "whether a control is met is for those who answer for it. Each line is",
        f"{COUNSEL}. The report of a bundle",
        "(`privity audit report BUNDLE --out report.html`) shows the same tables with the",
        "entries of that bundle. The rows are data in `audit/controls.toml`; this page is made",
        "from them by `python -m audit.controls`.",
        "",
    ]
    for source in sources():
        lines += [
            f"## {source.name}",
            "",
            f"{source.about} Read: {source.checked}; {COUNSEL}.",
            "",
            "| control | asks | events | recomputed | stays open |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row.id} | {row.asks} | {', '.join(f'`{kind}`' for kind in row.kinds)} | "
            f"{', '.join(row.checks) or 'nothing'} | {row.gap} |"
            for row in source.controls
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
