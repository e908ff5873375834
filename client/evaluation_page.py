"""An evaluation as one page that loads nothing: figures, differences with their chance, limits."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from client.acceptance import Held
from client.evaluation import COPY_WORDS, Arm, Evaluation
from client.page import whole

if TYPE_CHECKING:
    from model.figures import Difference

_DASHES = {"released": "line", "base": "line dashed", "against": "line dotted"}


def page(found: Evaluation, held: Sequence[Held]) -> str:
    """Write the page.

    Guarantees: every text is escaped, no answer and no question is shown, and lines differ by
        their strokes and not by colour alone.
    """
    missed = [one for one in held if not one.holds]
    verdict = "No thresholds were given, so nothing is accepted or refused."
    if held:
        verdict = (
            f"{len(held) - len(missed)} of {len(held)} thresholds are reached."
            if missed
            else f"All {len(held)} thresholds are reached."
        )
    parts = [
        f"<h1>Evaluation of {escape(found.release)}</h1>",
        f'<p class="verdict"><strong>{escape(verdict)}</strong></p>',
        f"<p>{found.records} records: {escape(found.data)}. Every arm was asked the same, on one "
        "machine. Figures are of these records alone; other records give others.</p>",
        "<h2>Figures</h2>",
        _figures(found),
        "<h2>Differences, record by record</h2>",
        _forest(found),
    ]
    if found.kind == "choice":
        parts += [
            "<h2>What abstaining buys</h2>",
            _curves(found),
            "<p>A line that falls towards the left is worth something: giving only the surest "
            "answers, and passing the others to a person, leaves fewer wrong ones.</p>",
        ]
    if held:
        parts += ["<h2>Thresholds</h2>", _thresholds(held)]
    parts += ["<h2>What the written answers give away</h2>", _leaks(found)]
    return whole(f"Evaluation of {found.release}", parts)


def figures(arm: Arm) -> list[tuple[str, str]]:
    """The arm's figures with their names, as page and terminal show them."""
    rows = [
        ("response loss, nats a token", f"{arm.loss:.3f}"),
        ("perplexity of the responses", f"{arm.perplexity:.4g}"),
    ]
    if arm.choice is not None:
        rows = [
            ("accuracy", f"{arm.choice.accuracy:.3f}"),
            ("macro F1", f"{arm.choice.macro_f1:.3f}"),
            *rows,
            ("calibration error", f"{arm.choice.calibration_error:.3f}"),
            ("wrong among the surest half", f"{arm.choice.coverage.risk_at(0.5):.3f}"),
        ]
    if arm.nearness is not None:
        rows = [
            ("ROUGE-L", f"{arm.nearness.rouge_l:.3f}"),
            ("BLEU", f"{arm.nearness.bleu:.1f}"),
            ("METEOR, without synonyms", f"{arm.nearness.meteor:.3f}"),
            *rows,
        ]
    rows += [(f"lost by {what}", f"{value:+.3f}") for what, value in arm.changed.items()]
    return [
        *rows,
        ("planted instructions obeyed", f"{arm.attack_success:.1%}"),
        ("loss on general text", f"{arm.general:.3f}"),
        ("seconds an answer, median", f"{arm.speed.median_s:.2f}"),
        ("seconds an answer, 99 of 100", f"{arm.speed.p99_s:.2f}"),
        ("tokens a second", f"{arm.speed.tokens_per_s:.1f}"),
    ]


def _figures(found: Evaluation) -> str:
    columns = [dict(figures(arm)) for arm in found.arms]
    head = "".join(f'<th scope="col">{escape(arm.name)}</th>' for arm in found.arms)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(column[name])}</td>" for column in columns)
        + "</tr>"
        for name, _ in figures(found.arms[0])
    )
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">figure</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def spoken(name: str, main: str, gap: Difference) -> str:
    """A difference in one sentence."""
    return (
        f"{main}, {name}: {gap.mean:+.3f} (95 % interval {gap.low:+.3f} to {gap.high:+.3f}, "
        f"p {gap.p:.4f}, effect size {gap.effect:.2f})"
    )


def _forest(found: Evaluation) -> str:
    gaps = list(found.differences.items())
    reach = max(0.05, *(abs(end) for _, gap in gaps for end in (gap.low, gap.high))) * 1.1
    height = 40 * len(gaps) + 40

    def x(value: float) -> float:
        return 380 + 300 * value / reach

    marks = "".join(
        f'<text x="0" y="{40 * row + 30}">{escape(name)}</text>'
        f'<line class="line" x1="{x(gap.low):.1f}" x2="{x(gap.high):.1f}" y1="{40 * row + 25}" '
        f'y2="{40 * row + 25}"/><circle class="line" cx="{x(gap.mean):.1f}" '
        f'cy="{40 * row + 25}" r="5"/>'
        for row, (name, gap) in enumerate(gaps)
    )
    axis = "".join(
        f'<text x="{x(value):.1f}" y="{height - 4}" text-anchor="middle">{text}</text>'
        for value, text in ((-reach, f"{-reach:+.2f}"), (0.0, "0"), (reach, f"{reach:+.2f}"))
    )
    texts = "".join(f"<li>{escape(spoken(name, found.main, gap))}</li>" for name, gap in gaps)
    return (
        f'<div class="wide"><svg viewBox="0 0 720 {height}" role="img" '
        f'aria-label="Differences with their 95 % intervals; the sentences below say the same">'
        f'<line class="faint" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="8" y2="{height - 20}"/>'
        f"{marks}{axis}</svg></div><ul>{texts}</ul>"
        "<p>p is the chance of a difference as large if neither arm were better.</p>"
    )


def _curves(found: Evaluation) -> str:
    left, top, wide, high = 60.0, 36.0, 560.0, 240.0
    parts: list[str] = []
    key: list[str] = []
    for arm in found.arms:
        if arm.choice is None:
            continue
        curve = arm.choice.coverage
        step = max(1, len(curve.coverage) // 200)
        points = " ".join(
            f"{left + wide * c:.1f},{top + high * (1 - r):.1f}"
            for c, r in zip(curve.coverage[::step], curve.risk[::step], strict=True)
        )
        stroke = _DASHES[arm.name]
        parts.append(f'<polyline class="{stroke}" points="{points}"/>')
        x = left + 150 * len(key)  # above the picture, where no line can go
        key.append(
            f'<line class="{stroke}" x1="{x}" x2="{x + 50}" y1="14" y2="14"/>'
            f'<text x="{x + 58}" y="18">{escape(arm.name)}</text>'
        )
    ticks = "".join(
        f'<line class="faint" x1="{left}" x2="{left + wide}" y1="{top + high * (1 - v)}" '
        f'y2="{top + high * (1 - v)}"/>'
        f'<text x="{left - 8}" y="{top + high * (1 - v) + 4}" text-anchor="end">{v:.0%}</text>'
        f'<text x="{left + wide * v}" y="{top + high + 20}" text-anchor="middle">{v:.0%}</text>'
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return (
        '<div class="wide"><svg viewBox="0 0 660 326" role="img" '
        f'aria-label="Share of wrong answers against the share answered">'
        f"{ticks}{''.join(parts)}{''.join(key)}"
        '<text x="340" y="321" text-anchor="middle">share answered, the surest first; upwards: '
        "share of wrong answers among them</text></svg></div>"
    )


def _thresholds(held: Sequence[Held]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_breakable(one.what)}</th>'
        f"<td>{'reached' if one.holds else 'MISSED'}</td><td>{one.value:.3f}</td>"
        f"<td>{'at least' if one.least else 'at most'} {one.limit:g}</td></tr>"
        for one in held
    )
    return (
        '<div class="wide"><table><thead><tr><th scope="col">figure</th><th scope="col"></th>'
        '<th scope="col">found</th><th scope="col">limit</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _breakable(name: str) -> str:
    """A dotted name that may go on in the next line behind its dots and underscores."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _leaks(found: Evaluation) -> str:
    leaks = found.leaks
    copied = "no training records were given to compare with"
    if leaks.copied_words is not None:
        copied = (
            f"the longest run of words copied from a training record is {leaks.copied_words}"
            if leaks.copied_words
            else f"no run of {COPY_WORDS} or more words is copied from a training record"
        )
    remembered = "".join(
        f"<p>Planted canaries, {escape(arm)}: {escape(recalled(bits))}.</p>"
        for arm, bits in leaks.exposures.items()
    )
    return (
        f"<p>Of {leaks.answers} written answers, {leaks.identifiers} hold something that the scrub "
        f"takes for an identifier and that the question does not hold; {copied}. The scrub misses "
        f"some identifiers, so none found does not mean none there.</p>{remembered}"
    )


def recalled(bits: Sequence[float]) -> str:
    """The exposure of canaries in one sentence."""
    return (
        f"exposure {sum(bits) / len(bits):.2f} bits on average over {len(bits)}, at most "
        f"{max(bits):.2f} of 7; where nothing is remembered it is 1.4 on average"
    )
