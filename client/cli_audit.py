"""`privity client audit`: attack the private core of this machine, and log the outcome."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from client.folder import Folder
    from configs.run import Plan


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")],
    plan: Annotated[
        Path | None,
        typer.Option(metavar="RUN.toml", help="A run's file; else the run proposed last."),
    ] = None,
    records: Annotated[
        str,
        typer.Option(
            help="made-up, or own: the twin trains on this institution's people. What then comes "
            "out depends on them; it stays in DIR/audit, costs no budget and is not logged."
        ),
    ] = "made-up",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer canaries, people and looks.")] = (
        False
    ),
    draws: Annotated[
        int | None, typer.Option(min=1000, help="Draws of the mechanism's part.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Repeat what was finished before.")] = (
        False
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Attack the private training of this machine: its step, a twin run with canaries, a control.

    Example: privity client audit clinic-a --plan triage.toml --quick

    An audit can refute a claim and cannot establish one. Ends with 4 if what was measured
    contradicts the claim, or if the attack missed the control. The outcome goes into the
    institution's log, and from there to the coordinator with its next answer.

    Ctrl-C is safe: finished parts are kept in DIR/audit and are not repeated.
    """
    from client import audit, folder, roc
    from client.errors import ClientError

    if records not in ("made-up", "own"):
        raise ClientError("use --records made-up|own", code="bad-option")
    opened = folder.open_folder(directory)
    chosen = audit.chosen_plan(opened) if plan is None else _plan(opened, plan)
    effort = audit.QUICK if quick else audit.FULL
    typer.echo(
        f"up to about {math.ceil(audit.minutes(chosen, effort))} minutes for run {chosen.run}; "
        "less on a large machine, and for parts that were finished before",
        err=True,
    )
    with _bars() as progress:
        report = audit.run(
            opened,
            chosen,
            effort=effort,
            draws=draws,
            own_records=records == "own",
            again=again,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(dict(report.document)))
    else:
        typer.echo(roc.claim(report.document))
        shown = Table("what", "found", "limit", "verdict")
        for row in roc.table(report.document):
            shown.add_row(*row)
        Console().print(shown)
        typer.echo(roc.sentence(report.document))
        for line in (*report.document["reasons"], *report.document["limits"]):
            typer.echo(f"- {line}")
        logged = "in the log" if report.logged else "not in the log: it depends on own records"
        typer.echo(f"report: {report.picture} ({logged})")
    if report.verdict != "passed":
        raise typer.Exit(4)


def _plan(opened: Folder, path: Path) -> Plan:
    from client import estimate
    from client.errors import ClientError
    from configs.load import load
    from configs.run import Run
    from model import catalog

    run = load(path, Run)
    if opened.settings.name not in run.federation.institutions:
        raise ClientError(
            f"{path} does not invite {opened.settings.name}; take the run's own file",
            code="not-invited",
        )
    return estimate.proposal(run, catalog.find(run.model.name, expect_digest=run.model.digest))


@contextmanager
def _bars() -> Iterator[Any]:
    """One bar for each piece of work, with the time that it still takes."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress
