"""`privity client budget`: the ledger in figures, as JSON, or as a picture of ε over time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")],
    run_file: Annotated[
        Path | None, typer.Option("--run", help="RUN.toml of a run that may come next: its cost.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a picture of ε over time to this HTML file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """The ledger: ε spent, reserved and left for the cohort, and what a next run would cost.

    Example: privity client budget clinic-a --run triage.toml --out budget.html
    """
    from client import budget, budget_page, folder
    from configs import files

    opened = folder.open_folder(directory)
    facts = budget.facts(opened, run_file)
    if out is not None:
        page = budget_page.render(opened.settings.name, facts)
        files.replace(out, page.encode(), mode=files.PRIVATE)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        _show(facts)
        if out is not None:
            typer.echo(f"the picture is in {out} (mode 0600)")
    if facts["next"] is not None and facts["next"]["decision"] != "acceptable":
        raise typer.Exit(3)


def _show(facts: dict[str, Any]) -> None:
    console = Console()
    table = Table(show_header=False, box=None)
    for name in ("cohort", "unit", "adjacency", "delta", "cap", "spent", "reserved", "left"):
        value = facts[name]
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(table)
    if facts["rows"]:
        table = Table("run", "σ", "sample rate", "steps", "ε alone", "rounds begun", "reserved at")
        for row in facts["rows"]:
            table.add_row(
                row["run"],
                f"{row['noise_multiplier']:g}",
                f"{row['sample_rate']:g}",
                str(row["steps"]),
                f"{row['epsilon_alone']:.3f}",
                f"{row['rounds_begun']} of {row['rounds']}",
                row["time"],
            )
        console.print(table)
    else:
        typer.echo("no run has reserved anything")
    following = facts["next"]
    if following is not None:
        typer.echo(
            f"{following['run']} would cost ε {following['costs']:.4g}: the cohort would be at "
            f"{following['epsilon_after']:.4g} of {facts['cap']:g} and have "
            f"{following['left_after']:.4g} left; it is {following['decision']}"
        )
