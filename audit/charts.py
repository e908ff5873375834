"""Pictures of ε: a curve over rounds and a bar against the cap, as SVG without style or script.

Every picture has a title and a text for those who hear it; the colours come from the page's style
sheet by class, so that light, dark and paper differ only there.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, isfinite, log10

_WIDTH, _HEIGHT = 640, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 82, 14, 44


def curve(points: Sequence[tuple[int, float]], cap: float, *, title: str, text: str) -> str:
    """Draw (rounds, ε) as steps under the line of the cap.

    Args:
        points: at least one, by rounds ascending.
        cap: the institution's cap.
        title: a few words; read out first.
        text: what the picture shows, in a sentence.

    Returns:
        An `svg` element of fixed proportions that scales with its place.
    """
    last = max(points[-1][0], 1)
    step = _step(max([cap, *(value for _, value in points if isfinite(value))]) * 1.05)
    top = step * ceil(max([cap, *(value for _, value in points)]) * 1.05 / step)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(rounds: float) -> str:
        return f"{_LEFT + wide * rounds / last:.1f}"

    def y(value: float) -> str:
        return f"{_TOP + high * (1 - min(value, top) / top):.1f}"

    lines = []
    for tick in range(round(top / step) + 1):
        at = y(tick * step)
        lines.append(f'<line class="grid" x1="{_LEFT}" y1="{at}" x2="{_LEFT + wide}" y2="{at}"/>')
        lines.append(f'<text class="tick" x="{_LEFT - 6}" y="{at}" dy="4" text-anchor="end">'
                     f"{tick * step:g}</text>")  # fmt: skip
    for tick in _whole(last):
        lines.append(f'<text class="tick" x="{x(tick)}" y="{_HEIGHT - 24}" text-anchor="middle">'
                     f"{tick}</text>")  # fmt: skip
    path = f"M{x(points[0][0])} {y(points[0][1])}"
    for rounds, value in points[1:]:
        path += f" L{x(rounds)} {y(value)}"
    lines.append(f'<path class="spent" d="{path}"/>')
    lines += [
        f'<circle class="dot" cx="{x(rounds)}" cy="{y(value)}" r="3"/>' for rounds, value in points
    ]
    end = _LEFT + wide
    lines.append(f'<line class="cap" x1="{_LEFT}" y1="{y(cap)}" x2="{end}" y2="{y(cap)}"/>')
    lines.append(f'<text class="label" x="{end + 6}" y="{y(cap)}" dy="0">cap {cap:g}</text>')
    final = points[-1][1]
    lines.append(f'<text class="label" x="{end + 6}" y="{y(final)}" dy="14">ε {final:.4f}</text>')
    lines.append(f'<text class="tick" x="{_LEFT + wide / 2}" y="{_HEIGHT - 4}" '
                 'text-anchor="middle">rounds trained</text>')  # fmt: skip
    return _svg("curve", _WIDTH, _HEIGHT, title, text, lines)


def bar(value: float | None, cap: float | None, *, title: str, text: str) -> str:
    """Draw a bar of ε spent inside the cap; an empty frame if either is not known."""
    width, height = 240, 14
    lines = [f'<rect class="frame" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}"/>']
    if value is not None and cap and isfinite(value):
        share = min(max(value / cap, 0.0), 1.0)
        kind = "over" if value > cap + 1e-9 else "fill"
        lines.insert(0, f'<rect class="{kind}" x="0" y="0" width="{share * width:.1f}" '
                        f'height="{height}"/>')  # fmt: skip
    return _svg("bar", width, height, title, text, lines)


def _svg(kind: str, width: int, height: int, title: str, text: str, lines: Sequence[str]) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(f"{title}: {text}")}">{"".join(lines)}</svg>'
    )


def _step(top: float) -> float:
    """A round distance of grid lines, for 2 to 5 of them."""
    if not top > 0:
        return 1.0
    unit = float(10 ** floor(log10(top)))
    return next(unit * f for f in (0.2, 0.5, 1.0, 2.0, 5.0) if top / (unit * f) <= 5)


def _whole(last: int) -> list[int]:
    """Whole numbers of rounds to write under the axis, 0 and the last among them."""
    step = max(1, round(_step(last)))
    ticks = list(range(0, last + 1, step))
    if last - ticks[-1] < step / 2 and ticks[-1] != last and len(ticks) > 1:
        ticks.pop()
    return ticks if ticks[-1] == last else [*ticks, last]
