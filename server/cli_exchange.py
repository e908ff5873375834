"""`privity server export-round` and `import`: messages as files, where the network is closed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_DIR = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")]

_WORDS = {"propose": "the plan", "close": "the end"}


def register(app: typer.Typer) -> None:
    """Add both commands to the coordinator's."""
    app.command("export-round")(export_round)
    app.command("import")(take)


def export_round(
    directory: _DIR,
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="A run that waits.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the question.")],
    site: Annotated[
        str | None, typer.Option(metavar="NAME", help="For whom; needed where several wait.")
    ] = None,
) -> None:
    """Write what a run asks of a site that is not connected into one signed file.

    Example: privity server export-round coordinator triage --site clinic-c --out to-clinic-c.file

    First the plan, then each round, and after the release its end, whose answer completes the
    bundle. privity server run has to be waiting for the site.
    """
    from server import exchange, store

    carried = exchange.export(store.open_folder(directory), run_name, site=site, out=out)
    what = _WORDS.get(carried.kind, f"round {carried.round + 1}")
    typer.echo(f"{out} asks {carried.site} about {what} of run {carried.run}")
    typer.echo(f"there: privity client answer DIR {out.name} --out answer.file")


def take(
    directory: _DIR,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A site's answer.")],
) -> None:
    """Take a site's answer from a file; it counts like one that came over the network.

    Example: privity server import coordinator answer.file

    Refused and recorded: an answer that was altered, that another site signed, that answers
    another round or run, or that came before.
    """
    from server import conduct, exchange, store

    folder = store.open_folder(directory)
    carried = exchange.take(folder, file)
    if carried.kind == "closed":
        bundle = conduct.take_last_evidence(folder, carried.run)
        typer.echo(f"{file}: the last evidence of {carried.site} about run {carried.run}")
        typer.echo(f"next: privity audit verify {bundle}" if bundle else "it was not usable")
        return
    what = "the plan" if carried.round < 0 else f"round {carried.round + 1}"
    typer.echo(f"{file}: the answer of {carried.site} about {what} of run {carried.run}")
    typer.echo("privity server run takes it now, or when it goes on with --resume")
