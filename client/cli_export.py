"""`privity export`: a release in the forms that other programs run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from client.cli_options import ReleaseFolder, ReleaseKey, SiteFolder


def command(
    release: ReleaseFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make.")],
    form: Annotated[
        Literal["merged", "f16", "int8", "int4", "onnx"],
        typer.Option(help="merged: safetensors; f16, int8, int4: GGUF; onnx."),
    ] = "merged",
    key: ReleaseKey = None,
    directory: SiteFolder = None,
    sign_with: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY.pem",
            help="Private key that signs the export; made if missing. With --dir: "
            "SITE-DIR/keys/export.pem.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Write a release merged, as GGUF at 16, 8 or 4 bits, or as ONNX: checked, measured, signed.

    Example: privity export release --dir clinic-a --form int8 --out triage-int8

    The export is loaded back and compared with the release before it counts.
    """
    from audit import signing
    from client import exporting, release_key, released, serving
    from client.errors import ClientError
    from model import cli_bar

    if sign_with is None and directory is not None:
        sign_with = directory / "keys" / "export.pem"
    if sign_with is None:
        raise ClientError(
            "give --sign-with KEY.pem, or --dir SITE-DIR: an export is signed by who made it",
            code="no-export-key",
        )
    with release_key.public_key(release, key, directory) as public:
        serving.check_release(release, public)
    if not sign_with.exists():
        signing.create_key(sign_with)
    with cli_bar.bar(quiet=as_json) as tell:
        made = exporting.export(
            release,
            released.load(release),
            form,
            out,
            key=sign_with,
            progress=lambda step, share: tell(step, share, 1.0),
        )
    if as_json:
        facts = {**asdict(made), "folder": str(made.folder), "public_key": f"{sign_with}.pub"}
        typer.echo(json.dumps(facts))
        return
    found = made.measured
    typer.echo(f"{made.folder}: {form}, {found.bytes / 1e6:.1f} MB, {made.digest}")
    typer.echo(
        f"loaded back ({found.reader}): loss on public text {found.loss:.4f} nats a token, the "
        f"release {found.release_loss:.4f}; {found.same_tokens} of {found.tokens} generated tokens "
        f"are the release's; {found.tokens_per_s:.1f} tokens a second"
    )
    typer.echo(f"signed; whoever takes it over verifies it with {sign_with}.pub")
