"""The pages of a review: one style sheet, no script, nothing from anywhere else.

Everything that comes from a record is escaped here, in `_text` and `sides`, and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

LIMITS: Final = (
    "Detection was measured on synthetic benchmarks; real notes are harder. Keep a person reading "
    "a sample, and read again after every change of records or software.",
    "The bound speaks of records like the sampled ones, of what the reader noticed, and of whole "
    "records, not of single identifiers.",
    "De-identified records are still personal data: rare combinations of facts can single a person "
    "out. What protects a person in training is the noise, not this.",
)

STYLE: Final = """
:root{color-scheme:light dark;--bg:#fbfaf7;--panel:#fff;--ink:#1d2426;--soft:#586468;--line:#d9d8d0;
--mark:#ffe3a3;--markink:#4a3200;--new:#cfeedd;--newink:#0c3d28;--accent:#0b5c66;--onaccent:#fff;
--bad:#a12622;--good:#1d6b3f}
@media(prefers-color-scheme:dark){:root{--bg:#14181a;--panel:#1c2225;--ink:#e7eaea;--soft:#a3aeb1;
--line:#363f43;--mark:#5c4410;--markink:#ffe9bd;--new:#17452f;--newink:#d3f5e2;--accent:#7fd0da;
--onaccent:#08282c;--bad:#ff9d97;--good:#7fd6a4}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,"Noto Sans",
"Noto Sans CJK SC",sans-serif}
main,header,footer{max-width:72rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.75rem}footer{padding-top:1.5rem;padding-bottom:3rem;color:var(--soft);font-size:.9rem}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.25rem 0 .6rem}
h3{font-size:1rem;margin:0}p{margin:.4rem 0}.soft{color:var(--soft)}a{color:var(--accent)}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem;background:var(--panel);
padding:.4rem .8rem}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;
margin:1rem 0;padding:0;list-style:none}
.tiles li{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;
padding:.7rem .9rem}
.tiles b{display:block;font-size:1.5rem;line-height:1.2;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.9rem}
.wrap{overflow-x:auto;background:var(--panel);border:1px solid var(--line);border-radius:.5rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.45rem .9rem;
border-top:1px solid var(--line);vertical-align:top}tr:first-child th{border-top:0}
.wrap+p{margin-top:.7rem}svg{max-width:100%;height:auto}
th{font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
progress{appearance:none;border:0;background:none;width:100%;min-width:6rem;height:.55rem;
vertical-align:middle}
progress::-webkit-progress-bar{background:none}
progress::-webkit-progress-value{background:var(--accent);border-radius:.25rem}
progress::-moz-progress-bar{background:var(--accent);border-radius:.25rem}
article{background:var(--panel);border:1px solid var(--line);border-radius:.6rem;margin:1rem 0;
overflow:hidden}
article>.top{display:flex;flex-wrap:wrap;gap:.25rem 1rem;justify-content:space-between;
padding:.6rem .9rem;border-bottom:1px solid var(--line)}
.half{display:grid;grid-template-columns:1fr 1fr}
.half+.half,details+.half{border-top:1px solid var(--line)}
.side{padding:.6rem .9rem .9rem;min-width:0}.side+.side{border-left:1px solid var(--line)}
.side h4{margin:0 0 .3rem;font-size:.85rem;font-weight:600;color:var(--soft)}
.say{white-space:pre-wrap;overflow-wrap:anywhere}
mark{background:var(--mark);color:var(--markink);border-radius:.2rem;padding:.05rem .15rem}
ins{background:var(--new);color:var(--newink);border-radius:.2rem;padding:.05rem .15rem;
text-decoration:none}
mark small{font-size:.7em;font-weight:600;margin-left:.3em;opacity:.85}
.held{color:var(--bad);font-weight:600}.verdict{font-weight:600}
details{border-top:1px solid var(--line);padding:.4rem .9rem}summary{cursor:pointer}
form fieldset{border:0;margin:0 0 1rem;padding:0}
legend{font-weight:600;padding:0;margin-bottom:.3rem}
label.pick{display:flex;gap:.6rem;align-items:flex-start;padding:.35rem 0}
input[type=radio],input[type=checkbox]{inline-size:1.15rem;block-size:1.15rem;margin:.2rem 0 0;
accent-color:var(--accent);flex:none}
input[type=text],select,textarea{font:inherit;color:inherit;background:var(--bg);width:100%;
border:1px solid var(--soft);border-radius:.35rem;padding:.45rem .6rem}
.pair{display:grid;grid-template-columns:2fr 1fr;gap:.6rem;margin:.4rem 0}
button,.button{font:inherit;font-weight:600;background:var(--accent);color:var(--onaccent);border:0;
border-radius:.4rem;padding:.6rem 1.2rem;cursor:pointer;text-decoration:none;display:inline-block}
.plain{background:none;color:var(--accent);border:1px solid var(--accent)}
.list{columns:13rem;padding-left:2.2rem}
.row{display:flex;flex-wrap:wrap;gap:.75rem;align-items:center;margin:1rem 0}
.note{border-left:4px solid var(--accent);padding:.3rem .9rem;margin:1rem 0}
.note.bad{border-color:var(--bad)}.note.good{border-color:var(--good)}
@media(max-width:44rem){.half{grid-template-columns:1fr}.side+.side{border-left:0;
border-top:1px dashed var(--line)}.pair{grid-template-columns:1fr}th,td{padding:.4rem .6rem}}
@media print{article{break-inside:avoid}.skip{display:none}}
"""
STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_TYPES: Final = {
    "PERSON": "name", "RECORD_NUMBER": "number", "NATIONAL_ID": "national id",
    "PHONE_NUMBER": "telephone", "EMAIL_ADDRESS": "e-mail", "ADDRESS": "address",
    "LOCATION": "place", "ORGANIZATION": "institution", "DATE_TIME": "date", "AGE": "age",
    "CREDIT_CARD": "card", "IBAN_CODE": "IBAN", "URL": "link", "IP_ADDRESS": "IP address",
    "GROUP": "group", "REFERENCE": "reference", "ATTACHMENT": "attachment",
}  # fmt: skip


def kind(name: str) -> str:
    """A type of identifier in a word that people use."""
    return _TYPES.get(name, name.replace("_", " ").lower())


def page(title: str, body: str, *, foot: str = "") -> str:
    """A whole page."""
    safe = html.escape(title)
    # A static page carries its own policy: even a hole in the escaping could load or run nothing.
    policy = html.escape(POLICY.replace("; frame-ancestors 'none'", ""))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">'
        f"<title>{safe}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#main">Skip to the content</a>'
        f"{body}<footer>{foot}</footer></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def sides(half: Mapping[str, Any]) -> str:
    """One text before and after, what was taken marked on the left and what stands there right."""
    left, at = [], 0
    for start, end, name in half["spans"]:
        left.append(_text(half["before"][at:start]))
        taken = _text(half["before"][start:end])
        left.append(f"<mark>{taken}<small>{_text(kind(name))}</small></mark>")
        at = end
    left.append(_text(half["before"][at:]))
    if half["held"] is not None:
        right = f'<p class="held">Held back: {_text(half["held"])}. It is not trained on.</p>'
    else:
        pieces = half["pieces"]
        if pieces is None:
            right = _text(half["after"])
        else:
            shown, at = list[str](), 0
            for (start, end, _), piece in zip(half["spans"], pieces, strict=True):
                shown += (_text(half["before"][at:start]), f"<ins>{_text(piece)}</ins>")
                at = end
            right = "".join((*shown, _text(half["before"][at:])))
        right = f'<div class="say">{right}</div>'
    name = _text(half["name"])
    return (
        f'<div class="half"><section class="side"><h4>{name}, before</h4>'
        f'<div class="say">{"".join(left)}</div></section>'
        f'<section class="side"><h4>{name}, after</h4>{right}</section></div>{_reasons(half)}'
    )


def _reasons(half: Mapping[str, Any]) -> str:
    if not half["reasons"]:
        return ""
    rows = "".join(
        f"<tr><td>{_text(half['before'][r['start'] : r['end']])}</td><td>{_text(kind(r['type']))}"
        f'</td><td>{_text(r["recogniser"])}</td><td class="n">{r["score"]:.2f}</td></tr>'
        for r in half["reasons"]
    )
    return (
        f"<details><summary>Why each was taken ({_text(half['name'])})</summary><div class='wrap'>"
        "<table><tr><th>text</th><th>type</th><th>recogniser and pattern</th>"
        f'<th class="n">score</th></tr>{rows}</table></div></details>'
    )


def article(item: Mapping[str, Any], title: str) -> str:
    """One record of the sample."""
    found = sum(len(half["spans"]) for half in item["halves"])
    return (
        f'<article><div class="top"><h3>{_text(title)}</h3><span class="soft">line '
        f"{item['line']} of the file, {found} taken</span></div>"
        + "".join(sides(half) for half in item["halves"])
        + "</article>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 1) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        last = len(cells) - numbers
        return "".join(
            f"<{tag}{' class=n' if i >= last else ''}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="wrap"><table><tr>{row(head, "th")}</tr>{body}</table></div>'


def figures(document: Mapping[str, Any]) -> Iterator[str]:
    """What the scrub did, in counts: what every page shows."""
    scrub = document["scrub"]
    held = sum(scrub["quarantined"].values())
    tiles = (
        ("records read", scrub["records"]),
        ("kept", scrub["kept"]),
        ("held back", held),
        ("unreadable", sum(scrub["faults"].values())),
        ("persons", scrub["persons"]),
        ("identifiers replaced", sum(scrub["removed"].values())),
    )
    yield '<ul class="tiles">'
    yield from (f"<li><b>{number:,}</b><span>{name}</span></li>" for name, number in tiles)
    yield "</ul>"
    if scrub["unkeyed"]:
        yield (
            f'<p class="note bad">{scrub["unkeyed"]:,} records have no person key. Each counts as '
            "a person of its own, and then ε speaks of that record only.</p>"
        )
    if scrub["removed"]:
        most = max(scrub["removed"].values())
        rows = [
            (_text(kind(name)), _meter(number, most), f"{number:,}")
            for name, number in sorted(scrub["removed"].items(), key=lambda pair: -pair[1])
        ]
        yield "<h2>What was replaced</h2>" + _table(("type", "", "spans"), rows)
    yield "<h2>Held back</h2>"
    if document["quarantine"]:
        held_rows = [
            (f"{_text(one['why'] or one['code'])} <span class=soft>({_text(one['code'])})</span>",
             _text(one["do"]), ", ".join(map(str, one["lines"])) or "–", f"{one['records']:,}")
            for one in document["quarantine"]
        ]  # fmt: skip
        yield _table(("reason", "what to do", "lines, first ones", "records"), held_rows)
    else:
        yield "<p>Nothing: every readable record passed the scrub.</p>"
    yield "<h2>Who could be singled out</h2>"
    if document["quasi_identifiers"]:
        rows = [
            (_text(" + ".join(one["columns"])), str(one["smallest"]), f"{one['exposed']:,}")
            for one in document["quasi_identifiers"]
        ]
        yield (
            "<p>Columns whose combined values fewer than five persons share. They are not trained "
            "on, but the same facts may stand in the texts.</p>"
        )
        yield _table(("columns", "fewest alike", "persons exposed"), rows, 2)
    else:
        yield "<p>No columns of the records are known to single a person out together.</p>"


def _meter(number: int, most: int) -> str:
    return f'<progress max="{most}" value="{number}" aria-hidden="true"></progress>'


def reading(document: Mapping[str, Any]) -> str:
    """What the reading of the sample amounts to."""
    done = document["reading"]
    if done is None:
        return (
            f'<p class="note">{document["sampled"]} records were drawn at random; nobody has '
            "signed a reading of them yet.</p>"
        )
    return f'<p class="note good">{_text(sentence(done))} Read by {_text(done["reviewer"])}.</p>'


def sentence(done: Mapping[str, Any]) -> str:
    """The conclusion of a reading in words, such as the rule of three allows."""
    read = done["accepted"] + done["missed"] + done["damaged"]
    misses = f"{done['missed']} {'miss' if done['missed'] == 1 else 'misses'}"
    share = f"{float(done['miss_bound']) * 100:.4g} %"  # all that the bound has: it is not rounded
    said = f"{misses} in {read} reviewed: at most {share} of the records at 95 %."
    if done["damaged"]:
        said += f" In {done['damaged']} too much was taken."
    return said


def _limits(document: Mapping[str, Any]) -> str:
    return "".join(f"<p>{_text(limit)}</p>" for limit in document["limits"])


def _head(document: Mapping[str, Any], title: str) -> str:
    return (
        f'<header><h1>{_text(title)}</h1><p class="soft">{_text(document["site"])}, '
        f"{_text(document['made'])}, profile {_text(document['profile'])}</p></header>"
    )


def static(document: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> str:
    """The review as one page: counts, then the sample side by side. It holds record text."""
    total = len(items)
    body = (
        _head(document, "De-identification: a sample to read")
        + '<main id="main"><p class="note bad">This page holds records. It stays on this machine; '
        "privity client scrub --delete removes it.</p>"
        + reading(document)
        + "".join(figures(document))
        + f"<h2>The sample, {total} records</h2>"
        + "".join(article(item, f"Record {n} of {total}") for n, item in enumerate(items, start=1))
        + "</main>"
    )
    return page("De-identification: a sample to read", body, foot=_limits(document))


def report(document: Mapping[str, Any]) -> str:
    """The officer's report: counts and no record text."""
    title = "De-identification: report"
    body = (
        _head(document, title)
        + '<main id="main">'
        + reading(document)
        + "".join(figures(document))
        + f'<h2>Evidence</h2><p class="say">Scrubber {_text(document["scrubber_digest"])}</p>'
        + "</main>"
    )
    return page(title, body, foot=_limits(document))
