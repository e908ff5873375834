"""The options that every command on a release has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ReleaseFolder = Annotated[Path, typer.Argument(metavar="RELEASE", help="The release's folder.")]
ReleaseKey = Annotated[
    Path | None,
    typer.Option("--key", metavar="PUBLIC-KEY.pem", help="The coordinator's public release key."),
]
SiteFolder = Annotated[
    Path | None,
    typer.Option(
        "--dir", metavar="SITE-DIR", help="An institution's folder; its invitation has the key."
    ),
]
