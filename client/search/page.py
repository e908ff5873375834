"""A search as one page that loads nothing: every trial, and the loss over each setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from client.page import whole
from client.search import space
from client.search.study import Trial, best
from client.search.trial import Score
from configs.search import Setting

_LEFT, _TOP, _WIDE, _HIGH = 60.0, 14.0, 560.0, 170.0
_WORST = 2.0  # times the base model's loss; what is worse is drawn there


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page says of the search.

    Attributes:
        paid: ε before and after, and the cap, of a search on private records.
    """

    run: str
    records: int
    persons: int
    epsilon: float
    delta: float
    paid: tuple[float, float, float] | None


def page(facts: Facts, base: Score, trials: Sequence[Trial], toml: str) -> str:
    """Write the page.

    Guarantees: every text is escaped, and the best trial differs by its shape and not by colour
        alone.
    """
    top = best(trials)
    verdict = "No trial has ended yet."
    if top is not None and top.score is not None:
        gain = base.loss - top.score.loss
        verdict = (
            f"Trial {top.number} is the best of {len(trials)}: loss {top.score.loss:.3f}, "
            f"the base model's is {base.loss:.3f}."
            if gain > 0
            else f"No trial beats the base model's loss of {base.loss:.3f}."
        )
    names = list(top.settings) if top else []
    parts = [
        f"<h1>Search for run {escape(facts.run)}</h1>",
        f'<p class="verdict"><strong>{escape(verdict)}</strong></p>',
        f"<p>{escape(claim(facts))}</p>",
        "<h2>Loss over each setting</h2>",
        *(_scatter(name, base, trials, top) for name in names),
        "<p>A cross is the best trial, the dashed line the base model. Noise and sampling are "
        "fresh in every trial, so equal settings differ from trial to trial.</p>",
        "<h2>Trials</h2>",
        _table(trials, names),
    ]
    if toml:
        parts += ["<h2>Settings of the best trial, for RUN.toml</h2>", f"<pre>{escape(toml)}</pre>"]
    return whole(f"Search for run {facts.run}", parts)


def claim(facts: Facts) -> str:
    """What the search cost, in one sentence."""
    if facts.paid is None:
        return (
            f"Each trial trained on public records with the whole private recipe at ε "
            f"{facts.epsilon:g} and δ {facts.delta:g}, its noise scaled to {facts.persons} persons "
            f"at the institution, and was scored on {facts.records} public records. No private "
            "record was trained on or scored, so nothing was charged."
        )
    before, after, cap = facts.paid
    return (
        f"Each trial trained on the institution's records and was scored on {facts.records} public "
        f"records. For one person, under zero-out of all of their records at δ {facts.delta:g}, "
        f"all trials together took ε from {before:.4f} to {after:.4f} of {cap:g}."
    )


def _scatter(name: str, base: Score, trials: Sequence[Trial], top: Trial | None) -> str:
    shown = [one for one in trials if one.score is not None and name in one.settings]
    limit = _WORST * base.loss
    losses = [min(one.score.loss, limit) for one in shown if one.score is not None]
    low, high = min([*losses, base.loss]), max([*losses, base.loss])
    room = 0.05 * (high - low) or 0.1
    low, high = low - room, high + room
    across = _axis([one.settings[name] for one in shown])

    def y(loss: float) -> float:
        return _TOP + _HIGH * (high - min(loss, limit)) / (high - low)

    marks = []
    for one in shown:
        if one.score is None:
            continue
        x, at = _LEFT + _WIDE * across[one.settings[name]], y(one.score.loss)
        if top is not None and one.number == top.number:
            marks.append(
                f'<path class="line" d="M{x - 6:.1f},{at - 6:.1f} l12,12 m0,-12 l-12,12"/>'
            )
        else:
            marks.append(f'<circle class="line" cx="{x:.1f}" cy="{at:.1f}" r="4"/>')
    ticks = "".join(
        f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
        for value in (low + room, high - room)
    )
    labels = "".join(
        f'<text x="{_LEFT + _WIDE * share:.1f}" y="{_TOP + _HIGH + 18}" text-anchor="middle">'
        f"{escape(space.shown(value))}</text>"
        for value, share in _ends(across)
    )
    return (
        f'<div class="wide"><svg viewBox="0 0 660 230" role="img" '
        f'aria-label="Loss over {escape(name)}; the table below has the numbers">'
        f'<line class="faint" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" '
        f'y2="{_TOP + _HIGH}"/><line class="faint" x1="{_LEFT}" x2="{_LEFT + _WIDE}" '
        f'y1="{_TOP + _HIGH}" y2="{_TOP + _HIGH}"/><line class="line dashed" x1="{_LEFT}" '
        f'x2="{_LEFT + _WIDE}" y1="{y(base.loss):.1f}" y2="{y(base.loss):.1f}"/>'
        f'{"".join(marks)}{ticks}{labels}<text x="{_LEFT + _WIDE / 2}" y="{_TOP + _HIGH + 38}" '
        f'text-anchor="middle">{escape(name.replace("_", " "))}; upwards: loss</text></svg></div>'
    )


def _axis(values: Sequence[Setting]) -> dict[Setting, float]:
    """Where each value stands, from 0.03 to 0.97: logarithmic for a range, even for choices."""
    known = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    if len(known) > 6 and all(isinstance(v, float) and v > 0 for v in known):
        logs = {v: math.log(float(v)) for v in known}
        low, high = min(logs.values()), max(logs.values())
        return {v: 0.03 + 0.94 * (at - low) / (high - low) for v, at in logs.items()}
    return {v: (n + 0.5) / len(known) for n, v in enumerate(known)}


def _ends(across: dict[Setting, float]) -> list[tuple[Setting, float]]:
    pairs = list(across.items())
    return pairs if len(pairs) <= 6 else [pairs[0], pairs[len(pairs) // 2], pairs[-1]]


def _table(trials: Sequence[Trial], names: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in names)
    rows = []
    for one in sorted(trials, key=lambda t: t.score.loss if t.score else math.inf):
        told = "".join(f"<td>{escape(space.shown(one.settings.get(n, '')))}</td>" for n in names)
        loss = "failed" if one.score is None else f"{one.score.loss:.3f}"
        right = one.score.accuracy if one.score else None
        noise = one.facts.get("noise_multiplier")
        rows.append(
            f'<tr><th scope="row">{one.number}</th>{told}'
            f"<td>{'' if noise is None else f'{noise:.3f}'}</td><td>{loss}</td>"
            f"<td>{'' if right is None else f'{right:.3f}'}</td></tr>"
        )
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">trial</th>{head}'
        '<th scope="col">σ</th><th scope="col">loss</th><th scope="col">accuracy</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
