"""`privity serve`: the released model on the institution's own premises."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def command(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="The release's folder.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    key: Annotated[
        Path | None,
        typer.Option(metavar="PUBLIC-KEY.pem", help="The coordinator's public release key."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", metavar="SITE-DIR", help="An institution's folder; its invitation has the key."
        ),
    ] = None,
) -> None:
    """Serve a release in the shape of OpenAI's chat interface, if it verifies.

    Example: privity serve release --dir clinic-a

    Nothing is loaded unless the coordinator's key signed the whole folder.
    It asks nobody who they are: keep it on loopback, or guard it yourself.
    """
    from client.errors import ClientError

    if (key is None) == (directory is None):
        raise ClientError(
            "give either --key PUBLIC-KEY.pem or --dir SITE-DIR: a release is served only if the "
            "coordinator's key, which did not come with it, signed it",
            code="no-release-key",
        )
    if not release.is_dir():
        raise ClientError(f"{release} is not a release's folder; check the path", code="no-release")
    with _public_key(key, directory or Path()) as public:
        from client import listen, serving

        if not listen.is_loopback(host):
            typer.echo(
                f"warning: {host} may be reached from other machines and nothing asks who calls; "
                "put your own access control in front",
                err=True,
            )
        serving.serve(
            release,
            key=public,
            host=host,
            port=port,
            ready=lambda name, address: typer.echo(f"serving {name} on http://{address}"),
        )


@contextmanager
def _public_key(key: Path | None, directory: Path) -> Iterator[Path]:
    """The release key as a file; one from an invitation goes into a temporary file."""
    if key is not None:
        yield key
        return
    from client import folder

    invitation = folder.read_invitation(directory / "invitation.json")
    with tempfile.TemporaryDirectory(prefix="privity-") as place:
        path = Path(place) / "release.pem.pub"
        path.write_bytes(invitation.release_key)
        yield path
