"""`privity model`: bring base models to this machine and look at them."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model import cli_bar, cli_distill, cli_reinforce

app = typer.Typer(no_args_is_help=True)
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A name, a hub name OWNER/MODEL, or a folder.")],
    as_json: _JSON = False,
) -> None:
    """Fetch a model once and check it. Example: privity model pull smollm2-135m-instruct."""
    from model import catalog

    with cli_bar.bar() as tell:
        found = catalog.pull(name, progress=lambda step, share: tell(step, share, 1.0))
    if as_json:
        typer.echo(json.dumps({"name": found.name, "digest": found.digest}))
    else:
        typer.echo(f"{found.name} is ready: {found.digest}")


app.command("distill")(cli_distill.command)
app.command("reinforce")(cli_reinforce.command)


@app.command("list")
def list_models(as_json: _JSON = False) -> None:
    """List the models on this machine. Example: privity model list."""
    from model import catalog

    found = catalog.listed()
    if as_json:
        rows = [{"name": m.name, "architecture": m.architecture, "digest": m.digest} for m in found]
        typer.echo(json.dumps(rows))
        return
    if not found:
        typer.echo(f"no model yet; run: privity model pull {catalog.DEFAULT}")
        return
    table = Table("name", "architecture", "digest")
    for model in found:
        table.add_row(model.name, model.architecture, model.digest[:23] + "…")
    Console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name of privity model list, or a folder.")],
    as_json: _JSON = False,
) -> None:
    """Show one model: where it lies, its digest, and what an adapter would attach to.

    Example: privity model show smollm2-135m-instruct
    """
    from model import architectures, catalog

    found = catalog.find(name)
    facts = {
        "name": found.name,
        "path": str(found.path),
        "architecture": found.architecture,
        "digest": found.digest,
        "matrices": len(found.linear),
        "default_targets": list(architectures.of(found.architecture).targets),
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        table.add_row(key, ", ".join(value) if isinstance(value, list) else str(value))
    Console().print(table)
