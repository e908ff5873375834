"""`privity client renew`: a new node key, without a new kit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")],
) -> None:
    """Make a new node key and the file that asks the coordinator to admit it.

    Example: privity client renew clinic-a

    Everything else stays: log, ledger, evidence keys, invitation. The old key works until the new
    one has connected, which it does at the first start after the coordinator admitted it.
    """
    from client import folder, renewal

    opened = folder.open_folder(directory)
    file = renewal.request(opened)
    typer.echo(f"send {file} to the coordinator, who runs:")
    typer.echo(f"privity server renew COORDINATOR-DIR {opened.settings.name} --request {file.name}")
    typer.echo(f"then restart: privity client run {directory}")
