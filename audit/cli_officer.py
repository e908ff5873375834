"""`privity audit report|export`: what an officer hands on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BUNDLE = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")]
TRUST = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Keys that reached you another way, as for verify."),
]


def report(
    context: typer.Context,
    bundle: BUNDLE,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The file to write.")],
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also a PDF beside it, made by a browser of this machine.")
    ] = False,
    trust: TRUST = None,
) -> None:
    """Write what a bundle shows for people who read no code: one HTML file, perhaps a PDF.

    Example: privity audit report bundle --out report.html

    Every sentence names the entry or the recomputation that it comes from. Ends with 4 if the
    bundle does not verify; the report is written all the same and says so first.
    """
    from audit import material, report_html, trusted
    from audit import report as reports
    from audit.errors import AuditError

    gathered = material.gather(
        bundle, recompute=context.obj["recompute"], trust=trusted.keys(trust or ())
    )
    composed = reports.compose(gathered)
    for path in report_html.write(composed, out, pdf=pdf):
        typer.echo(f"written: {path}")
    if not composed.holds:
        first = gathered.findings.faults[0]
        raise AuditError(
            f"{bundle} does not verify: {first.where}: {first.sentence}; the report says so",
            code="faulty",
        )


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `privity audit`."""
    app.command()(report)
