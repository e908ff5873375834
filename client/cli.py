"""`privity client`: the institution's commands."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from client import (
    cli_audit,
    cli_budget,
    cli_exchange,
    cli_keys,
    cli_prepare,
    cli_renew,
    cli_scrub,
    cli_search,
)

app = typer.Typer(no_args_is_help=True)
_DIR = Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")]
_RUN = Annotated[str, typer.Argument(metavar="RUN", help="Name of a proposed run.")]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command()
def init(
    directory: _DIR,
    name: Annotated[
        str, typer.Option(help="The institution's name, as logs and releases show it.")
    ],
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT", help="The coordinator.")],
) -> None:
    """Make an institution: keys, site.toml, an empty ledger and log.

    Example: privity client init clinic-a --name clinic-a --coordinator fl.example.org:8443
    """
    from pydantic import ValidationError

    from client import folder
    from client.errors import ClientError

    try:
        made = folder.create(directory, name=name, coordinator=coordinator)
    except ValidationError:
        raise ClientError(
            "use a name of 1 to 63 of a-z 0-9 _ - and single dots, and a coordinator as HOST:PORT",
            code="bad-name",
        ) from None
    typer.echo(f"institution {name} is in {directory}")
    typer.echo(f"fingerprint of its log key: {made.keys().public().fingerprint}")
    typer.echo(f"send {directory / 'enroll.json'} to the coordinator and read out the fingerprint;")
    typer.echo(f"put the invitation that comes back at {directory / 'invitation.json'}")
    typer.echo(f"then: edit {directory / 'site.toml'} and run: privity client doctor {directory}")


@app.command()
def doctor(directory: _DIR, as_json: _JSON = False) -> None:
    """Check everything before a run: PASS, WARN or FAIL, each with its remedy.

    Example: privity client doctor clinic-a
    """
    from client import doctor as checks

    found = checks.examine(directory)
    if as_json:
        typer.echo(json.dumps([check.document() for check in found]))
    else:
        table = Table("", "check", "finding", "remedy", show_lines=False)
        colours = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}
        for check in found:
            verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
            table.add_row(verdict, check.name, check.finding, check.remedy)
        Console().print(table)
    if any(check.verdict == "FAIL" for check in found):
        raise typer.Exit(2)


app.command("prepare")(cli_prepare.prepare)
app.command("withdraw")(cli_prepare.withdraw)
app.command("scrub")(cli_scrub.scrub)
app.command("review")(cli_scrub.review)
app.command("deid")(cli_scrub.deid)


@app.command()
def plan(
    directory: _DIR,
    run_file: Annotated[Path, typer.Option("--run", help="RUN.toml of the coordinator.")],
    as_json: _JSON = False,
) -> None:
    """What a run would cost: ε before and after, what would leave, minutes. Runs nothing.

    Example: privity client plan clinic-a --run triage.toml
    """
    from client import estimate, folder

    facts = estimate.plan(folder.open_folder(directory), run_file)
    _print(facts if as_json else _flat(facts), as_json)
    if facts["decision"] != "acceptable":
        raise typer.Exit(3)


@app.command()
def run(directory: _DIR) -> None:
    """Connect to the coordinator and answer its runs until Ctrl-C.

    Example: privity client run clinic-a
    """
    from client import folder, node

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for chatty in ("flwr", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    opened = folder.open_folder(directory)
    node.run(opened, report=lambda line: typer.echo(f"{opened.settings.name}: {line}", err=True))


@app.command()
def approve(
    directory: _DIR,
    run_name: _RUN,
    digest: Annotated[
        str, typer.Option(help="Approve only if this is still the plan's digest.")
    ] = "",
) -> None:
    """Approve a proposed run; the decision is signed into the log.

    Example: privity client approve clinic-a triage
    """
    _decide(directory, run_name, "approved", digest)


@app.command()
def refuse(directory: _DIR, run_name: _RUN) -> None:
    """Refuse a proposed run; the decision is signed into the log.

    Example: privity client refuse clinic-a triage
    """
    _decide(directory, run_name, "refused")


app.command("budget")(cli_budget.command)
app.command("audit")(cli_audit.command)
app.command("search")(cli_search.command)
app.command("answer")(cli_exchange.command)
app.command("renew")(cli_renew.command)
app.command("keys")(cli_keys.keys)
app.command("feedback")(cli_keys.feedback)


def _decide(
    directory: Path, run_name: str, decision: Literal["approved", "refused"], digest: str = ""
) -> None:
    from client import decisions, folder
    from client.errors import ClientError

    opened = folder.open_folder(directory)
    proposed = decisions.proposed(opened, run_name)
    if digest and decisions.digest(proposed) != digest:
        raise ClientError(
            f"the plan that was last proposed as {run_name} has the digest "
            f"{decisions.digest(proposed)}; nothing was decided, look at it first",
            code="plan-differs",
            exit_code=3,
        )
    begun = opened.ledger().begun(run_name)
    if decision == "refused" and begun:
        typer.echo(f"{len(begun)} rounds were trained already; their ε stays spent", err=True)
    if decisions.read(opened, proposed) == decision:
        typer.echo(f"{run_name} was {decision} before; nothing changed")
        return
    try:
        decisions.write(opened, opened.log(), proposed, decision, "operator")
    except OSError:
        raise ClientError(f"the decision cannot be written in {directory}; free space") from None
    typer.echo(f"{run_name} is {decision} (plan {decisions.digest(proposed)})")


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of facts as lines of their own."""
    lines: dict[str, Any] = {}
    for key, value in facts.items():
        inner = value if isinstance(value, dict) else {"": value}
        lines |= {f"{key} {name}".strip(): item for name, item in inner.items()}
    return lines


def _print(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")  # a digest that is to be compared is never cut
    for key, value in facts.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        table.add_row(key.replace("_", " "), shown)
    Console().print(table)
