"""`privity client keys` and `privity client feedback`: who may ask, and what they said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

_Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def keys(
    directory: _Dir,
    add: Annotated[str | None, typer.Option(metavar="NAME", help="Make a key.")] = None,
    revoke: Annotated[str | None, typer.Option(metavar="NAME", help="Revoke a key.")] = None,
    scopes: Annotated[
        str, typer.Option(help="Of a new key: chat, feedback, review, metrics; with commas.")
    ] = "chat,feedback",
    per_minute: Annotated[
        int | None, typer.Option(min=1, help="Most requests of a new key.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """List the API keys of the service, make one, or revoke one.

    Example: privity client keys clinic-a --add ward-3

    A key is shown once. A running service obeys at once.
    """
    from client import folder, serving
    from client.errors import ClientError

    if add is not None and revoke is not None:
        raise ClientError("give --add or --revoke, not both", code="bad-option")
    file = serving.Site.of(folder.open_folder(directory)).keys
    assert file is not None  # noqa: S101 - an institution's folder has a place for them
    if add is not None:
        wanted = tuple(scope.strip() for scope in scopes.split(",") if scope.strip())
        made = file.add(add, scopes=wanted, per_minute=per_minute)
        typer.echo(json.dumps({"name": add, "key": made}) if as_json else made)
        if not as_json:
            typer.echo("This key is shown once: keep it now.", err=True)
        return
    if revoke is not None:
        file.revoke(revoke)
    rows = file.rows()
    if as_json:
        values = [
            {
                "name": row.caller.name,
                "scopes": sorted(row.caller.scopes),
                "per_minute": row.caller.per_minute,
                "made": row.made,
                "revoked": row.revoked,
            }
            for row in rows
        ]
        typer.echo(json.dumps(values))
        return
    if not rows:
        typer.echo("no keys: whoever reaches the service may use it")
        return
    shown = Table("name", "scopes", "a minute", "made", "revoked")
    for row in rows:
        minute = "" if row.caller.per_minute is None else str(row.caller.per_minute)
        scope = " ".join(sorted(row.caller.scopes))
        days = (moment[:16].replace("T", " ") for moment in (row.made, row.revoked or ""))
        shown.add_row(row.caller.name, scope, minute, *days)
    Console().print(shown)


def feedback(
    directory: _Dir,
    forget: Annotated[
        str | None, typer.Option(metavar="PERSON", help="Delete all about a person.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Count what people said about answers, by review, or forget a person.

    Example: privity client feedback clinic-a

    Judgements are reviewed on the service's page /feedback; what was accepted becomes training
    records by privity client prepare DIR --feedback.
    """
    from client import folder
    from client.gateway import feedback as store

    opened = folder.open_folder(directory)
    kept = store.FeedbackStore(opened.path / "serving" / "feedback.sqlite")
    done = kept.counts() if forget is None else {"forgotten": kept.forget(forget)}
    if as_json:
        typer.echo(json.dumps(done))
        return
    typer.echo(", ".join(f"{count} {name}" for name, count in done.items()))
