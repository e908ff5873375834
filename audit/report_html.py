"""A report as one self-contained HTML file, and as PDF where a browser is at hand.

The file holds its style sheet and pictures, no script, and refers to nothing outside itself. Equal
reports give equal bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from audit import controls
from audit.errors import AuditError
from audit.report import Report
from audit.sentences import Figure, Part, Reference, Section, Sentence, Table, Unfounded
from audit.wording import CHECKS

STYLE = Path(__file__).parent / "assets" / "officer.css"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
_PDF_SECONDS = 120
_CITED = 24  # references written out after one sentence; the rest as their number


def page(report: Report) -> str:
    """Return the HTML of a report."""
    verdict = "good" if report.holds else "bad"
    word = "Every check held" if report.holds else "FAULTY"
    body = "".join(_section(number, section) for number, section in enumerate(report.sections, 1))
    contents = "".join(
        f'<li><a href="#part-{number}">{escape(section.heading)}</a></li>'
        for number, section in enumerate(report.sections, 1)
    )
    run = escape(report.run)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>Evidence of run {run}</title>
<style>
{_style()}</style>
</head>
<body>
<a class="skip" href="#report">To the report</a>
<header class="bar-top"><div class="top"><h1>Evidence of run {run}</h1></div></header>
<main id="report">
<dl class="facts">
<dt>Run</dt><dd>{run}</dd>
<dt>Bundle</dt><dd><code>{escape(report.bundle_digest)}</code></dd>
<dt>Verifier</dt><dd class="{verdict}-text">{word}</dd>
<dt>To check it yourself</dt><dd><code>privity audit verify BUNDLE</code></dd>
</dl>
<nav aria-label="Contents" class="no-print"><ol class="small">{contents}</ol></nav>
{body}
<section id="references"><h2>References</h2>
<div class="wide"><table class="stack"><thead><tr><th scope="col">reference</th>\
<th scope="col">what it is</th><th scope="col">digest or date</th></tr></thead><tbody>
{"".join(_reference(item) for item in report.references)}</tbody></table></div>
</section>
</main>
</body>
</html>
"""


def write(report: Report, out: Path, *, pdf: bool) -> tuple[Path, ...]:
    """Write the HTML file and perhaps, beside it, the PDF.

    Raises:
        AuditError: exit code 2; a file cannot be written, or a PDF was asked for and there is no
            browser to make it.
    """
    browser = find_browser() if pdf else None
    if pdf and browser is None:
        raise AuditError(
            f"no browser to make a PDF with; install one of {', '.join(BROWSERS[:3])}, or print "
            "the HTML file",
            code="no-browser",
            exit_code=2,
        )
    try:
        out.write_text(page(report), encoding="utf-8")
    except OSError as error:
        raise AuditError(
            f"{out} cannot be written ({error.strerror}); choose another place",
            code="unwritable",
            exit_code=2,
        ) from None
    if browser is None:
        return (out,)
    target = out.with_suffix(".pdf")
    _print(browser, out.resolve(), target.resolve())
    return out, target


def find_browser() -> str | None:
    """The path of a browser that prints without a screen, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _print(browser: str, page_file: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="privity-pdf-") as profile:
        command = [
            browser,
            "--headless=new",
            "--disable-gpu",
            "--no-first-run",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
            f"--print-to-pdf={target}",
            page_file.as_uri(),
        ]
        # A browser refuses to run as root inside its sandbox; the page holds no script.
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=_PDF_SECONDS)
        except (OSError, subprocess.SubprocessError):
            target.unlink(missing_ok=True)
        if not target.exists():
            raise AuditError(
                f"{Path(browser).name} made no PDF of {page_file.name}; open the HTML file in a "
                "browser and print it",
                code="no-pdf",
                exit_code=1,
            )


def _section(number: int, section: Section) -> str:
    parts = "".join(_part(part) for part in section.parts)
    heading = f"<h2>{number}. {escape(section.heading)}</h2>"
    return f'<section id="part-{number}">{heading}{parts}</section>\n'


def _part(part: Part) -> str:
    if isinstance(part, Sentence):
        return f'<p class="s">{_said(part)}</p>\n'
    if isinstance(part, Figure):
        return (
            f'<figure>{part.svg}<figcaption class="s">{_said(part.caption)}</figcaption></figure>\n'
        )
    if isinstance(part, Table):
        return _table(part)
    raise Unfounded("only sentences, tables and figures can be printed")


def _said(sentence: Sentence) -> str:
    if not isinstance(sentence, Sentence):
        raise Unfounded("only a sentence can be printed")
    return f"{escape(sentence.text)} {_cite(sentence.references)}"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in (*table.head, "from"))
    rows = []
    for row in table.rows:
        first, *rest = row.cells
        cells = "".join(
            f'<td data-label="{escape(name)}">{escape(cell)}</td>'
            for name, cell in zip(table.head[1:], rest, strict=True)
        )
        cited = f'<td data-label="from">{_cite(row.references)}</td>'
        rows.append(f'<tr><th scope="row">{escape(first)}</th>{cells}{cited}</tr>\n')
    return (
        '<div class="wide"><table class="stack">'
        f'<caption class="s">{_said(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{''.join(rows)}</tbody></table></div>\n"
    )


def _cite(references: Sequence[Reference]) -> str:
    """Write references after what they found: entries by log, then the others by name."""
    return f'<span class="refs">[{"; ".join(_cited(references))}]</span>'


def _cited(references: Sequence[Reference]) -> Iterator[str]:
    entries = [item for item in references if item.kind == "entry"]
    for name, group in groupby(entries, key=lambda item: item.place.rpartition(":")[0]):
        items = list(dict.fromkeys(group))
        links = [_link(item, item.place.rpartition(":")[2]) for item in items[:_CITED]]
        more = f" and {len(items) - _CITED} more" if len(items) > _CITED else ""
        yield f"{escape(name)} {', '.join(links)}{more}"
    for item in dict.fromkeys(item for item in references if item.kind != "entry"):
        label = f"recomputed: {item.place}" if item.kind == "check" else item.place
        yield _link(item, label)


def _link(reference: Reference, label: str) -> str:
    return f'<a class="ref" href="#{escape(reference.anchor)}">{escape(label)}</a>'


def _reference(item: Reference) -> str:
    if item.kind == "entry":
        name, _, index = item.place.rpartition(":")
        what = f"entry {index} of the log of {name}"
    elif item.kind == "check":
        what = CHECKS[item.place]
    elif item.kind == "file":
        what = "a file of the bundle"
    else:
        what = next((s.about for s in controls.sources() if s.name == item.place), "a source")
    return (
        f'<tr id="{escape(item.anchor)}"><th scope="row">{escape(item.place)}</th>'
        f'<td data-label="what it is">{escape(what)}</td>'
        f'<td data-label="digest or date"><code>{escape(item.digest)}</code></td></tr>\n'
    )


def _style() -> str:
    text = STYLE.read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/\n?", "", text, flags=re.DOTALL)
