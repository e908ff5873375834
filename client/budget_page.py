"""The budget as one HTML file that needs nothing else: ε over time against the cap, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from itertools import accumulate
from typing import Any

_WIDTH, _HEIGHT = 860, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 150, 20, 42
_STYLE = """
:root{color-scheme:light dark;--ink:#1b2330;--soft:#5d6878;--line:#d5dae1;--back:#fff;
--spent:#2563a8;--held:#9dbde0;--cap:#b3261e;--next:#b26a00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--line:#38414d;--back:#14181f;
--spent:#6fa8e6;--held:#2f4f74;--cap:#ff8a80;--next:#ffb74d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);
max-width:880px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}p{margin:.3rem 0;color:var(--soft)}
.figures{display:flex;flex-wrap:wrap;gap:2rem;margin:1.2rem 0}
.figures b{display:block;font-size:1.6rem;font-variant-numeric:tabular-nums;color:var(--ink)}
.figures div{color:var(--soft)}svg{width:100%;height:auto}
svg text{font-size:12px;fill:var(--soft)}table{border-collapse:collapse;width:100%;margin-top:1rem}
th,td{text-align:right;padding:.3rem .5rem;border-bottom:1px solid var(--line);
font-variant-numeric:tabular-nums}th:first-child,td:first-child{text-align:left}
th{font-weight:600;color:var(--soft)}
"""


def render(name: str, facts: dict[str, Any]) -> str:
    """One page about the budget of the institution `name`.

    Args:
        name: of the institution.
        facts: from `client.budget.facts`.
    """
    after = facts["next"]
    figures = [
        ("spent", facts["spent"]), ("set aside", facts["reserved"]),
        ("left", facts["left"]), ("cap", facts["cap"]),
    ]  # fmt: skip
    if after is not None:
        figures.append((f"after {after['run']}", after["epsilon_after"]))
    shown = "".join(f"<div><b>{value:.3f}</b>{escape(word)}</div>" for word, value in figures)
    rows = "".join(
        f"<tr><td>{escape(row['run'])}</td><td>{row['noise_multiplier']:g}</td>"
        f"<td>{row['sample_rate']:g}</td><td>{row['steps']}</td>"
        f"<td>{row['epsilon_alone']:.3f}</td><td>{row['rounds_begun']} of {row['rounds']}</td>"
        f"<td>{escape(row['time'][:16].replace('T', ' '))}</td></tr>"
        for row in facts["rows"]
    )
    table = (
        "<table><tr><th>run</th><th>σ</th><th>sample rate</th><th>steps</th><th>ε alone</th>"
        f"<th>rounds begun</th><th>reserved (UTC)</th></tr>{rows}</table>"
        if rows
        else "<p>No run has reserved anything.</p>"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Budget of {escape(name)}</title><style>{_STYLE}</style>"
        f"<h1>Budget of {escape(name)}</h1>"
        f"<p>What one person of cohort {escape(facts['cohort'])} has cost: ε at "
        f"δ {facts['delta']:g}, per {facts['unit']}, {facts['adjacency']} adjacency, over all runs."
        f'</p><div class="figures">{shown}</div>{_picture(facts)}{_verdict(after)}{table}'
        f"<p>Head of the ledger: {escape(facts['ledger_head'])}</p></html>\n"
    )


def _verdict(after: dict[str, Any] | None) -> str:
    if after is None:
        return ""
    return (
        f"<p>The run {escape(after['run'])} would cost ε {after['costs']:.3f} and is "
        f"{escape(after['decision'])}.</p>"
    )


def _picture(facts: dict[str, Any]) -> str:
    points, cap, after = facts["history"], facts["cap"], facts["next"]
    # A clock that went back does not draw backwards.
    stated = (datetime.fromisoformat(point["time"]) for point in points)
    times = list(accumulate(stated, max))
    first, last = (times[0], times[-1]) if times else (datetime.min, datetime.min)
    span = max((last - first).total_seconds(), 1.0) * 1.03  # so that the last step shows
    tallest = max([cap, *(p["reserved_in_all"] for p in points),
                   after["epsilon_after"] if after else 0.0]) * 1.08  # fmt: skip
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(time: datetime) -> float:
        return _LEFT + (time - first).total_seconds() / span * (right - _LEFT)

    def y(epsilon: float) -> float:
        return floor - epsilon / tallest * (floor - _TOP)

    parts = [_axis(tallest, y, right)]
    if points:
        across = [x(time) for time in times]
        for key, colour in (("reserved_in_all", "held"), ("spent", "spent")):
            line = _steps(across, [y(p[key]) for p in points], floor, right)
            parts.append(f'<path d="{line}" fill="var(--{colour})" fill-opacity=".85"/>')
        parts += _dates(first, last, right, floor)
    end = points[-1] if points else {"reserved_in_all": 0.0, "spent": 0.0}
    marks = [(cap, "cap", f"cap {cap:g}")]
    if points:
        marks.append((end["spent"], "spent", f"spent {end['spent']:.3f}"))
        if end["reserved_in_all"] - end["spent"] > 1e-6:
            held = end["reserved_in_all"]
            marks.append((held, "held", f"set aside {held - end['spent']:.3f}"))
    if after is not None:
        top, bottom = y(after["epsilon_after"]), y(end["reserved_in_all"])
        parts.append(
            f'<rect x="{right + 4}" y="{top:.1f}" width="14" height="{max(bottom - top, 1):.1f}" '
            'fill="none" stroke="var(--next)" stroke-dasharray="3 2"/>'
        )
        marks.append((after["epsilon_after"], "next", f"after {after['run'][:14]}"))
    parts.append(
        f'<line x1="{_LEFT}" x2="{right + 20}" y1="{y(cap):.1f}" y2="{y(cap):.1f}" '
        'stroke="var(--cap)" stroke-width="1.5" stroke-dasharray="6 4"/>'
    )
    parts += _labels([(y(value), colour, text) for value, colour, text in marks], right + 24)
    title = f"ε over time: {end['spent']:.3f} spent of a cap of {cap:g}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _steps(across: Sequence[float], down: Sequence[float], floor: float, right: float) -> str:
    path = [f"M{across[0]:.1f} {floor}"]
    for place, height in zip(across, down, strict=True):
        path.append(f"H{place:.1f}V{height:.1f}")
    return "".join(path) + f"H{right}V{floor}Z"


def _axis(tallest: float, y: Any, right: float) -> str:
    step = next(s for s in (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0) if tallest / s <= 7)
    lines = []
    for number in range(int(tallest / step) + 1):
        value = number * step
        lines.append(
            f'<line x1="{_LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="var(--line)"/><text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{value:g}</text>'
        )
    return "".join(lines) + f'<text x="{_LEFT - 40}" y="{_TOP + 4}">ε</text>'


def _dates(first: datetime, last: datetime, right: float, floor: float) -> list[str]:
    style = "%Y-%m-%d" if last - first > timedelta(days=2) else "%Y-%m-%d %H:%M"
    ends = [(_LEFT, "start", first), (right, "end", last)]
    return [
        f'<text x="{place}" y="{floor + 20}" text-anchor="{anchor}">{time.strftime(style)}</text>'
        for place, anchor, time in (ends if last > first else ends[:1])
    ]


def _labels(marks: list[tuple[float, str, str]], left: float) -> list[str]:
    """The words beside the picture, pushed apart where they would cover each other."""
    parts, lowest = [], -100.0
    for height, colour, text in sorted(marks):
        lowest = max(height + 4, lowest + 15)
        parts.append(
            f'<rect x="{left}" y="{lowest - 9:.1f}" width="9" height="9" fill="var(--{colour})"/>'
            f'<text x="{left + 14}" y="{lowest:.1f}">{escape(text)}</text>'
        )
    return parts
