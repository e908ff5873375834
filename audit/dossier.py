"""The tracing dossier: one self-contained page for a court or a regulator, with every key's score.

No script, nothing from elsewhere, readable on paper. Every text that came from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import log10

from audit.trace import ATTRIBUTION, GROUND, SUSPICION, Score, Trace

_MEANING = {
    "ATTRIBUTED": "This file derives from the copy that was made for {names}. It does not say who "
    "gave the copy away, and it excludes neither theft from {names} nor from the coordinator, who "
    "knows every copy.",
    "OURS, BUT NOT ATTRIBUTED": "This file derives from this release, and no single recipient's "
    "mark is strong enough to name one: more copies may have been combined than can be told apart.",
    "INCONCLUSIVE": "The scores are too high to dismiss and too low to name anybody, or too little "
    "of the adapter is left to be tested.",
    "NO EVIDENCE": "No key answers. This never means that the file is not ours: a model that was "
    "distilled or much retrained from this release carries no mark.",
}
_STYLE = """
body{font:15px/1.45 Georgia,'Times New Roman',serif;color:#1b1b1b;max-width:56rem;margin:2rem auto;
padding:0 1.5rem}h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:1.3rem 0 .3rem;
border-bottom:1px solid #bbb}table{border-collapse:collapse;width:100%}td,th{text-align:left;
padding:.18rem .8rem .18rem 0;vertical-align:top}th{font-weight:normal;color:#555;width:13rem}
code{font:12px/1.3 ui-monospace,Menlo,Consolas,monospace;word-break:break-all}.verdict{font-size:
1.25rem;padding:.6rem .9rem;margin:.8rem 0;border-left:.4rem solid #555;background:#f3f3f1}
.hit{border-color:#a11}.fine{color:#555;font-size:.88rem}svg{width:100%;height:auto}
@media print{body{margin:0;max-width:none}}
"""
_WIDTH, _ROW, _LEFT, _RIGHT = 900, 22, 210, 120
_MOST_ROWS = 14


def page(trace: Trace, *, artefact: str, digest: str, written: str) -> str:
    """The dossier of one trace.

    Args:
        trace: what was found.
        artefact: the suspect's name.
        digest: the suspect's digest.
        written: when, in words.

    Returns:
        A whole HTML document.
    """
    return "".join(
        (
            "<!doctype html><html lang=en><meta charset=utf-8><title>Tracing dossier</title>"
            "<meta name=viewport content='width=device-width'>",
            f"<style>{_STYLE}</style><body>",
            *_body(trace, artefact, digest, written),
            "</body></html>\n",
        )
    )


def _body(trace: Trace, artefact: str, digest: str, written: str) -> Iterator[str]:
    names = " and ".join(trace.attributed)
    title = trace.verdict + (f" to {names}" if names else "")
    hit = " hit" if trace.attributed else ""
    yield f"<h1>Tracing dossier</h1><p class=fine>written {escape(written)}</p>"
    yield f"<p class='verdict{hit}'><b>{escape(title)}</b><br>"
    yield escape(_MEANING[trace.verdict].format(names=names)) + "</p>"
    yield "<h2>What was tested</h2>" + _table(
        ("file", escape(artefact)),
        ("digest", f"<code>{escape(digest)}</code>"),
        ("kind", escape(trace.kind) + _registered(trace)),
        ("release", escape(trace.release) + _round(trace)),
        ("tests", f"{trace.tests} (keys, times {', '.join(map(escape, trace.variants)) or 'no'} "
         "variants, times references)"),
    )  # fmt: skip
    yield "<h2>How strongly each committed key answers</h2>" + picture(trace)
    shown = [trace.owner, *trace.recipients[: max(1, len(trace.attributed))]]
    nearest = [s for s in trace.recipients if s.name not in trace.attributed][:1]
    for score in [*shown, *(s for s in nearest if s not in shown)]:
        yield _score(score)
    yield "<h2>Since when the keys are fixed</h2>" + _committed(trace)
    yield (
        "<h2>How to read this</h2><p class=fine>A score z is a sum over the coordinates of the "
        "adapter of chance numbers that only a key determines. For a key that was fixed before "
        "the file existed and has nothing to do with it, z is a normal deviate whatever was done "
        "to the file, and reaches z with probability at most exp(-z²/2); the chance stated is that "
        "bound times the number of tests. "
        f"From z = {ATTRIBUTION:g} on a recipient is named; {GROUND:g} would stand even if 2^128 "
        f"keys had been tried; between {SUSPICION:g} and {ATTRIBUTION:g} nothing is said. The "
        "file's weights were needed: nothing of this can be seen in what a model answers. The "
        "method is symmetric: the coordinator could have made any copy itself. That a copy left "
        "the recipient follows only together with its signed receipt and with two people holding "
        "the coordinator's key. The commitment's time is the coordinator's clock; witnesses who "
        "cosigned a later head saw the entry no later than then.</p>"
    )


def picture(trace: Trace) -> str:
    """An SVG of z of every committed key on a logarithmic scale, with the threshold drawn."""
    scores = [trace.owner, *trace.recipients]
    shown, rest = scores[:_MOST_ROWS], scores[_MOST_ROWS:]
    most = max(20.0, *(score.detection.z for score in scores))
    height = _ROW * (len(shown) + bool(rest)) + 44

    def x(z: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * log10(1.0 + max(z, 0.0)) / log10(1.0 + most)

    parts = [
        f"<svg viewBox='0 0 {_WIDTH} {height}' role=img aria-label='z of every committed key' "
        "font-family='Georgia,serif' font-size='13'>"
    ]
    for at, score in enumerate(shown):
        y, z = 8 + at * _ROW, score.detection.z
        name = score.name or "owner (all copies)"
        color = "#a11" if z >= ATTRIBUTION and score.name else "#36526e"
        color = color if z >= ATTRIBUTION else "#9aa3ab"
        label = escape(name if len(name) <= 28 else name[:27] + "…")
        parts.append(
            f"<text x={_LEFT - 8} y={y + 14} text-anchor=end>{label}</text>"
            f"<rect x={_LEFT} y={y + 3} width={max(1.5, x(z) - _LEFT):.1f} height=14 "
            f"fill='{color}'/>"
            f"<text x={x(z) + 6:.1f} y={y + 14}>{z:.1f}</text>"
        )
    foot = 8 + _ROW * len(shown)
    if rest:
        top = max(score.detection.z for score in rest)
        parts.append(
            f"<text x={_LEFT - 8} y={foot + 14} text-anchor=end fill='#555'>{len(rest)} more</text>"
            f"<text x={_LEFT + 4} y={foot + 14} fill='#555'>none above z = {max(top, 0):.1f}</text>"
        )
        foot += _ROW
    line = x(ATTRIBUTION)
    parts.append(
        f"<line x1={line:.1f} x2={line:.1f} y1=2 y2={foot + 4} stroke='#a11' "
        "stroke-dasharray='5 4'/>"
        f"<text x={line:.1f} y={foot + 20} text-anchor=middle fill='#a11'>z = {ATTRIBUTION:g}: "
        "named from here on</text>"
        f"<line x1={_LEFT} x2={_LEFT} y1=2 y2={foot + 4} stroke='#555'/></svg>"
    )
    return "".join(parts)


def tiny(value: float, z: float) -> str:
    """A probability for people; below what a double holds, as a power of ten from its bound."""
    if value > 1e-300:
        return f"{value:.2g}"
    return f"at most 10^-{int(z * z / 2.0 / 2.302585) - 12}"


def _score(score: Score) -> str:
    found = score.detection
    name = f"key of {score.name}" if score.name else "key of the owner, common to all copies"
    return (
        f"<p class=fine><b>{escape(name)}</b>: z {found.z:.1f} ({escape(found.variant)}, "
        f"{found.dimensions:,} coordinates); chance over all tests {tiny(score.corrected, found.z)}"
        f"; commitment <code>{escape(score.commitment)}</code></p>"
    )


def _committed(trace: Trace) -> str:
    made = trace.committed
    if made is None:
        return (
            "<p>No log was given, so it was not checked that these keys were fixed before the "
            "file existed. Without that the scores say nothing to a stranger.</p>"
        )
    rows = [
        ("committed", f"{made.time:%Y-%m-%d %H:%M:%S} UTC, entry {made.index} of the log"),
        (
            "inclusion proof",
            f"checked, {len(made.proof)} hashes to the root of {made.size} entries",
        ),
        ("signed root", f"<code>{escape(made.root)}</code>"),
        ("leaf", f"<code>{escape(made.leaf)}</code>"),
        ("cosigned by", escape(", ".join(made.witnesses) or "nobody")),
        ("unmarked adapter", "it, its basis and the table of chips are those that the log holds"),
        (
            "detector",
            "the code that was committed to"
            if made.same_detector
            else "another version of the code than was committed to; both are public",
        ),
    ]
    for receipt in trace.receipts:
        rows.append(
            (
                f"receipt of {escape(receipt.recipient)}",
                f"{escape(receipt.what)}, signed {receipt.time:%Y-%m-%d %H:%M:%S} UTC in entry "
                f"{receipt.index} of its own log, for <code>{escape(receipt.digest)}</code>",
            )
        )
    if trace.attributed and not trace.receipts:
        rows.append(("receipt", "none: no log of the recipient shows that it got this copy"))
    return _table(*rows)


def _round(trace: Trace) -> str:
    return f", copies made after round {trace.round}" if trace.round else ""


def _registered(trace: Trace) -> str:
    if trace.explained is None:
        return ""
    return f", registered to the public base ({trace.explained:.0%} of its embeddings explained)"


def _table(*rows: tuple[str, str]) -> str:
    return "<table>" + "".join(f"<tr><th>{a}</th><td>{b}</td></tr>" for a, b in rows) + "</table>"
