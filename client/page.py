"""A page that loads nothing from anywhere: one file with its style inside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """\
:root { color-scheme: light dark; --ink: #14181d; --paper: #fff; --rule: #b9c0c8; --soft: #f2f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --paper: #14181d; --rule: #4a525b; --soft: #1d232a; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.3rem 0 0.3rem 0.9rem; border-bottom: 1px solid var(--rule);
  font-weight: normal; vertical-align: top; }
td { white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th { font-weight: 600; border-bottom: 2px solid var(--ink); }
.verdict { border: 2px solid var(--ink); padding: 0.6rem 1rem; background: var(--soft); }
.wide, pre { overflow-x: auto; }
svg { width: 100%; min-width: 34rem; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .line { stroke: var(--ink); fill: none; stroke-width: 2; }
svg .faint { stroke: var(--rule); stroke-width: 1; }
svg .dashed { stroke-dasharray: 6 4; } svg .dotted { stroke-dasharray: 2 4; }
@media print { body { max-width: none; margin: 0; } }
"""


def whole(title: str, parts: Sequence[str], *, style: str = STYLE) -> str:
    """Put a page together.

    Args:
        title: plain text; it is escaped here.
        parts: of the body, as HTML.
        style: as CSS.
    """
    body = "\n".join(parts)
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
