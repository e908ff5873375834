"""`privity server renew`: the certificate, or a site's node key, without a new kit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A site, to admit its next node key.")
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="renew.json of privity client renew; needs NAME."),
    ] = None,
) -> None:
    """Renew the coordinator's certificate, or admit a site's next node key.

    Example: privity server renew coordinator

    The authority stays, so no invitation changes; a running coordinator takes the new certificate
    over within seconds.
    """
    from server import renewal, store
    from server.errors import ServerError

    folder = store.open_folder(directory)
    if (name is None) is not (request is None):
        raise ServerError(
            "a site's key needs both: NAME and --request renew.json, which privity client renew "
            "writes there",
            code="bad-option",
        )
    if name is None or request is None:
        days = renewal.certificate(folder)
        typer.echo(f"the certificate of {folder.settings.host} is valid for {days} days")
        return
    renewal.admit(folder, name, request)
    typer.echo(f"the next node key of {name} is admitted; the old one goes when it has connected")
