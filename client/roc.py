"""The audit's picture and page: ROC of twin and control against the ceiling that the plan sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from client.page import whole

_LEFT, _TOP, _SIDE = 70.0, 20.0, 420.0
_LEAST = 0.001  # rates below it are drawn at it
_TICKS = (0.001, 0.01, 0.1, 1.0)

Points = Sequence[Sequence[float]]

_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
  color: #111; background: #fff; }
svg { width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid #888;
  vertical-align: top; font-weight: normal; }
thead th { border-bottom: 2px solid #111; font-weight: bold; }
.verdict { border: 2px solid #111; padding: 0.5rem 1rem; }
"""


def page(document: Mapping[str, Any]) -> str:
    """Write the report of an audit as one HTML page that loads nothing from anywhere.

    Args:
        document: the report, see `client.audit`.

    Guarantees: every text is escaped; the lines differ by their strokes and not by colour alone.
    """
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in document["reasons"])
    limits = "".join(f"<li>{escape(limit)}</li>" for limit in document["limits"])
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(found)}</td>'
        f"<td>{escape(limit)}</td><td>{escape(verdict)}</td></tr>"
        for name, found, limit, verdict in table(document)
    )
    title = f"Privacy audit of run {document['run']}"
    body = f"""\
<h1>{escape(title)}</h1>
<p class="verdict"><strong>{escape(sentence(document))}</strong></p>
{f"<ul>{reasons}</ul>" if reasons else ""}
<p>{escape(claim(document))}</p>
<table>
<thead><tr><th scope="col">what</th><th scope="col">found</th><th scope="col">limit</th>\
<th scope="col">verdict</th></tr></thead>
<tbody>{rows}</tbody>
</table>
<h2>How often an attacker is right</h2>
{picture(document)}
<p>Both axes are logarithmic. The ceiling is for rates in the long run: a curve that was measured
on a few hundred canaries wanders about its own by chance, over the ceiling as well. The upright bar
is the 95 % interval of the twin's rate at 1 % false positives, by noised gradients.</p>
<h2>What this can and cannot say</h2>
<ul>{limits}</ul>
<p>Report {escape(str(document["report_digest"]))}, plan {escape(str(document["plan_digest"]))},
private core {escape(str(document["core_digest"]))}, {escape(str(document["software"]))}.</p>"""
    return whole(title, [body], style=_STYLE)


def sentence(document: Mapping[str, Any]) -> str:
    """The verdict in one sentence."""
    if document["verdict"] == "passed":
        return "Passed: no attack contradicts the claim, and the control was noticed."
    if document["verdict"] == "blind":
        return "Blind: the attack missed the control, so its silence about the twin means nothing."
    return "Failed: what was measured contradicts the claim."


def claim(document: Mapping[str, Any]) -> str:
    """What the plan claims, complete in one sentence."""
    stated = document["claim"]
    return (
        f"The plan of run {document['run']} claims ε = {stated['epsilon']:.3f} at "
        f"δ = {stated['delta']:g} for one {stated['unit']}, with {stated['adjacency']} adjacency, "
        f"for {stated['steps']} noisy steps at σ = {stated['noise_multiplier']:g} and sampling "
        f"rate {stated['sample_rate']:g}."
    )


def table(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows of (what, found, limit, verdict)."""
    mechanism, twin, control = (document[part] for part in ("mechanism", "twin", "control"))
    epsilon = document["claim"]["epsilon"]
    shift, expected = mechanism["shift"], mechanism["expected"]
    rows = [
        (
            f"mechanism: µ of {mechanism['draws']} draws",
            f"{shift['estimate']:.4f}",
            f"{expected:.4f} within {100 * mechanism['tolerance']:.1f} %",
            mechanism["verdict"],
        ),
        (
            "mechanism: lower bound of µ, 95 %",
            f"{shift['bound']:.4f}",
            f"at most {expected:.4f}",
            mechanism["verdict"],
        ),
    ]
    for name, score in (("noised gradients", "gradients"), ("losses", "losses")):
        found = twin[score]
        ends = found["rate"]["interval"]
        rows += [
            (
                f"twin: lower bound of ε by {name}, 95 %",
                f"{found['epsilon_bound']:.3f} ({found['correct']} of {found['guesses']} right)",
                f"at most {epsilon:.3f}",
                twin["verdict"],
            ),
            (
                f"twin: true positives at 1 % false ones by {name}",
                f"{100 * found['rate']['tpr']:.1f} % ({100 * ends['low']:.1f} to "
                f"{100 * ends['high']:.1f} %); AUC {found['auc']:.3f}",
                f"ceiling {100 * twin['ceiling']:.2f} %",
                twin["verdict"],
            ),
        ]
    seen = control["gradients"]
    return [
        *rows,
        (
            f"twin: secrets of {twin['canaries']} canaries generated to the letter",
            str(twin["verbatim"]),
            "0",
            twin["verdict"],
        ),
        (
            f"control at σ = {control['noise_multiplier']:g}: lower bound of ε, 95 %",
            f"{seen['epsilon_bound']:.3f} ({seen['correct']} of {seen['guesses']} right)",
            "over 3, or the audit is blind",
            control["verdict"],
        ),
    ]


def picture(document: Mapping[str, Any]) -> str:
    """Draw the curves as one SVG, log-log, with a title and a description in words."""
    twin, control = document["twin"]["gradients"], document["control"]["gradients"]
    lines = (
        (document["ceiling"], "ceiling for any attack", 'stroke-width="3"'),
        (twin["curve"], "twin, by noised gradients", 'stroke-width="2" stroke-dasharray="9 4"'),
        (document["twin"]["losses"]["curve"], "twin, by losses",
         'stroke-width="2" stroke-dasharray="2 4"'),
        (control["curve"], "control, next to no noise",
         'stroke-width="2" stroke-dasharray="12 4 2 4"'),
        ([(_LEAST, _LEAST), (1.0, 1.0)], "guessing", 'stroke-width="1"'),
    )  # fmt: skip
    rate = twin["rate"]
    description = (
        f"True-positive rate over false-positive rate, both on logarithmic axes. At 1 % false "
        f"positives the attack on the twin finds {100 * rate['tpr']:.1f} % of the canaries "
        f"(95 % interval {100 * rate['interval']['low']:.1f} to "
        f"{100 * rate['interval']['high']:.1f} %) under a ceiling of "
        f"{100 * document['twin']['ceiling']:.2f} %; on the control, whose noise multiplier is "
        f"{document['control']['noise_multiplier']:g}, it finds "
        f"{100 * control['rate']['tpr']:.1f} %."
    )
    drawn = "".join(f"{_line(points, look)}" for points, _, look in lines)
    legend = "".join(
        f'<path d="M{_LEFT + _SIDE + 20:g},{_TOP + 20 + 26 * i:g} h40" {look} {_INK}/>'
        f'<text x="{_LEFT + _SIDE + 70:g}" y="{_TOP + 25 + 26 * i:g}">{escape(name)}</text>'
        for i, (_, name, look) in enumerate(lines)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 510" role="img"
 aria-labelledby="roc-title roc-text" font-family="system-ui, sans-serif" font-size="14">
<title id="roc-title">True over false positives: twin and control under the ceiling</title>
<desc id="roc-text">{escape(description)}</desc>
<rect width="780" height="510" fill="#fff"/>
{_axes()}{drawn}{_interval(rate)}{legend}
</svg>"""


_INK = 'fill="none" stroke="#111"'


def _at(rate: float) -> float:
    """Place of a rate on its axis, from 0 to 1."""
    return 1.0 - math.log10(max(rate, _LEAST)) / math.log10(_LEAST)


def _x(rate: float) -> float:
    return _LEFT + _SIDE * _at(rate)


def _y(rate: float) -> float:
    return _TOP + _SIDE * (1.0 - _at(rate))


def _line(points: Points, look: str) -> str:
    path = " ".join(f"{_x(a):.1f},{_y(b):.1f}" for a, b in points)
    return f'<polyline points="{path}" {look} {_INK}/>\n'


def _interval(rate: Mapping[str, Any]) -> str:
    """The confidence interval at 1 % false positives, as a whisker."""
    low, high = (rate["interval"][end] for end in ("low", "high"))
    x = _x(0.01)
    return (
        f'<path d="M{x:.1f},{_y(low):.1f} V{_y(high):.1f} m-5,0 h10 '
        f'M{x - 5:.1f},{_y(low):.1f} h10" stroke-width="1.5" {_INK}/>\n'
    )


def _axes() -> str:
    parts = [f'<rect x="{_LEFT:g}" y="{_TOP:g}" width="{_SIDE:g}" height="{_SIDE:g}" {_INK}/>\n']
    for tick in _TICKS:
        label = f"{100 * tick:g} %"
        parts.append(
            f'<path d="M{_x(tick):.1f},{_TOP:g} v{_SIDE:g} M{_LEFT:g},{_y(tick):.1f} h{_SIDE:g}" '
            'fill="none" stroke="#ccc"/>\n'
            f'<text x="{_x(tick):.1f}" y="{_TOP + _SIDE + 20:g}" text-anchor="middle">'
            f"{label}</text>"
            f'<text x="{_LEFT - 8:g}" y="{_y(tick) + 5:.1f}" text-anchor="end">{label}</text>\n'
        )
    middle = _TOP + _SIDE / 2
    parts.append(
        f'<text x="{_LEFT + _SIDE / 2:g}" y="{_TOP + _SIDE + 45:g}" text-anchor="middle">'
        "false positives: absent canaries taken for present ones</text>\n"
        f'<text x="14" y="{middle:g}" text-anchor="middle" transform="rotate(-90 14 {middle:g})">'
        "true positives: present canaries found</text>\n"
    )
    return "".join(parts)
