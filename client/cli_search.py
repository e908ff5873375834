"""`privity client search`: settings of private training, tried on public records."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from client.search.conduct import Cost, Found


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")],
    run: Annotated[
        Path, typer.Option("--run", metavar="RUN.toml", help="The run; its ε holds for each trial.")
    ],
    proxy: Annotated[
        Path,
        typer.Option(
            "--proxy", metavar="FILE", help="Public or synthetic records, in the run's format."
        ),
    ],
    space: Annotated[
        Path | None,
        typer.Option(
            "--space", metavar="SPACE.toml", help="What is tried; else around the run's settings."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="How many, earlier ones included.")] = 20,
    persons: Annotated[
        int | None,
        typer.Option(
            min=1, help="Persons at the institution, for the noise; else as many as the proxy has."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the search; it is kept in DIR/search/NAME.")] = (
        "search"
    ),
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Train on the institution's records. EVERY trial is charged."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Charge without being asked.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Search for a run's settings at its ε, with its noise, on records that are not private.

    Example: privity client search clinic-a --run triage.toml --proxy public.jsonl --trials 30

    Prints the tables of RUN.toml for the best trial and keeps them in DIR/search/NAME, with a
    report. Ctrl-C is safe: the same command goes on.
    """
    from client import folder
    from client.cli_audit import _bars as bars
    from client.search import conduct

    opened = folder.open_folder(directory)
    wish = conduct.Wish(run, proxy, space, trials, persons, name, private)
    with bars() as progress:
        found = conduct.search(
            opened, wish, agree=lambda cost, count: _ask(cost, count, yes), progress=progress
        )
    if as_json:
        typer.echo(json.dumps(conduct.document(found)))
    else:
        _show(found)


def _ask(cost: Cost, count: int, yes: bool) -> None:
    """Have a person agree to the price.

    Raises:
        ClientError: nobody is there to be asked.
    """
    from client.errors import ClientError

    typer.echo(
        f"{count} trials on private records take ε from {cost.before:.4f} to {cost.after:.4f} of "
        f"{cost.cap:g}, at δ {cost.delta:g}, for one person under zero-out of all of their records;"
        " all are charged now, and nothing is given back",
        err=True,
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise ClientError(
            "a search on private records is charged; add --yes to agree", code="not-agreed",
            exit_code=3,
        )  # fmt: skip
    typer.confirm("charge the ledger?", abort=True, err=True)


def _show(found: Found) -> None:
    from client.search import space

    ranked = sorted(found.trials, key=lambda t: t.score.loss if t.score else float("inf"))
    names = list(ranked[0].settings) if ranked else []
    table = Table("trial", *(name.replace("_", " ") for name in names), "σ", "loss", "accuracy")
    for one in ranked[:10]:
        score, noise = one.score, one.facts.get("noise_multiplier")
        table.add_row(
            str(one.number),
            *(space.shown(one.settings.get(setting, "")) for setting in names),
            "" if noise is None else f"{noise:.3f}",
            "failed" if score is None else f"{score.loss:.3f}",
            "" if score is None or score.accuracy is None else f"{score.accuracy:.3f}",
        )
    Console().print(table)
    accuracy = "" if found.base.accuracy is None else f", accuracy {found.base.accuracy:.3f}"
    typer.echo(f"base model: loss {found.base.loss:.3f}{accuracy}")
    if found.cost is not None:
        cost = found.cost
        typer.echo(
            f"charged: ε for one person went from {cost.before:.4f} to {cost.after:.4f} of "
            f"{cost.cap:g} at δ {cost.delta:g}, under zero-out of all of one person's records"
        )
    if found.toml:
        typer.echo(f"\nbest trial, for RUN.toml ({found.place / 'best.toml'}):\n\n{found.toml}")
    typer.echo(f"report: {found.place / 'report.html'}")
