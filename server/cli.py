"""`privity server`: the coordinator's commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from server import cli_exchange, cli_renew

app = typer.Typer(no_args_is_help=True)
_DIR = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command()
def init(
    directory: _DIR,
    name: Annotated[
        str, typer.Option(help="The coordinator's name, as logs and releases show it.")
    ],
    host: Annotated[str, typer.Option(help="Address that sites dial.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Public port.")] = 8443,
    control_port: Annotated[int, typer.Option(min=1, max=65535, help="Loopback port.")] = 8444,
) -> None:
    """Make a coordinator: keys, certificates, secrets, an empty log.

    Example: privity server init coordinator --name consortium --host fl.example.org
    """
    from server import store

    folder = store.create(directory, name=name, host=host, port=port, control_port=control_port)
    typer.echo(f"coordinator {name} is in {directory}")
    typer.echo(f"fingerprint of its log key: {folder.keys().public().fingerprint}")
    typer.echo(f"next: privity server start {directory}")


@app.command()
def enroll(
    directory: _DIR,
    site_file: Annotated[Path, typer.Argument(help="enroll.json of privity client init.")],
) -> None:
    """Admit a site and write its invitation.

    Example: privity server enroll coordinator enroll.json

    Compare the fingerprint with the site's operator over another channel, for example by phone.
    """
    from server import enrolment, store

    folder = store.open_folder(directory)
    enrolled, invitation = enrolment.enroll(folder, site_file)
    typer.echo(f"{enrolled.name} is enrolled; fingerprint {enrolled.keys.fingerprint}")
    typer.echo(f"send {invitation} to the site; it belongs into the site's folder")


@app.command()
def revoke(directory: _DIR, name: Annotated[str, typer.Argument(help="An enrolled site.")]) -> None:
    """Shut a site out, for good. Example: privity server revoke coordinator clinic-b.

    Takes effect within seconds on a running coordinator; the site's keys are never admitted again.
    """
    from server import enrolment, store

    enrolment.revoke(store.open_folder(directory), name)
    typer.echo(f"{name} is revoked")


@app.command()
def start(directory: _DIR) -> None:
    """Run the SuperLink behind the public fleet-only port until Ctrl-C.

    Example: privity server start coordinator
    """
    from server import node, store

    folder = store.open_folder(directory)
    settings = folder.settings
    node.serve(
        folder,
        ready=lambda: typer.echo(
            f"coordinator {settings.name} is ready on {settings.host}:{settings.port}"
        ),
    )


@app.command()
def run(
    directory: _DIR,
    run_file: Annotated[Path, typer.Option("--run", help="RUN.toml: what to train.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this run.")] = False,
    as_json: _JSON = False,
) -> None:
    """Train: invite the sites, run the rounds, keep every adapter.

    Example: privity server run coordinator --run triage.toml
    """
    from server import conduct, store
    from server.live import Live

    folder = store.open_folder(directory)
    wanted = store.load_run(run_file, folder, begun=resume)
    with Live(silent=as_json) as live:
        state = conduct.train(folder, wanted, resume=resume, base=run_file.parent, show=live.show)
    summary = {
        "run": wanted.name,
        "rounds": state.round,
        "participants": state.participants,
        "epsilon": wanted.privacy.epsilon,
        "noise_multiplier": state.plan.noise_multiplier,
    }
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo(
            f"run {wanted.name} is trained: {state.round} rounds with "
            f"{', '.join(state.participants)}"
        )
        typer.echo(f"next: privity server release {directory} {wanted.name} --run {run_file}")


@app.command()
def release(
    directory: _DIR,
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a trained run.")],
    run_file: Annotated[
        Path | None, typer.Option("--run", help="RUN.toml, for its evaluation records.")
    ] = None,
    licence: Annotated[str, typer.Option(help="SPDX identifier of the adapter.")] = "Apache-2.0",
    as_json: _JSON = False,
) -> None:
    """Evaluate, watermark and sign the adapter, and write the officer's bundle.

    Example: privity server release coordinator triage --run triage.toml
    """
    from server import conduct, store
    from server.live import Live

    folder = store.open_folder(directory)
    wanted = None if run_file is None else store.load_run(run_file, folder, begun=True)
    with Live(silent=as_json) as live:
        done = conduct.release(
            folder,
            run_name,
            wanted,
            base=Path.cwd() if run_file is None else run_file.parent,
            licence=licence,
            show=live.show,
        )
    if as_json:
        typer.echo(json.dumps(done))
    else:
        typer.echo(f"release: {done['release']}")
        typer.echo(f"bundle: {done['bundle']}")
        typer.echo(f"next: privity audit verify {done['bundle']}")


@app.command()
def status(directory: _DIR, as_json: _JSON = False) -> None:
    """Show sites, runs, bytes, and what ends soon. Example: privity server status coordinator."""
    from server import status as standing
    from server import store

    facts = standing.facts(store.open_folder(directory))
    if as_json:
        typer.echo(json.dumps(facts))
        return
    console = Console()
    running = "running" if facts["running"] else "not running"
    console.print(f"{facts['name']} on {facts['address']}: {running}, "
                  f"certificate valid for {facts['certificate_days']} days")  # fmt: skip
    for warning in facts["warnings"]:
        console.print(f"[yellow]{warning}[/]")
    if facts["traffic"]:
        crossed = facts["traffic"]
        megabytes = [crossed[way] / 1e6 for way in ("received", "sent")]
        console.print("{:.2f} MB received, {:.2f} MB sent since the start".format(*megabytes))
    sites = Table("institution", "connected", "heard", "log entries held", "ε left, at least")
    for site in facts["sites"]:
        connected = {True: "yes", False: "no", None: "unknown"}[site["connected"]]
        heard, left = site["heartbeat_seconds"], site["epsilon_left"]
        sites.add_row(
            site["name"], connected, "" if heard is None else f"{heard:.0f} s ago",
            str(site["entries"]), "" if left is None else f"{left:g}",
        )  # fmt: skip
    console.print(sites)
    runs = Table("run", "round", "outcome", "participants")
    for item in facts["runs"]:
        runs.add_row(
            item["run"], f"{item['round']} of {item['rounds']}", item["outcome"],
            ", ".join(item["participants"]),
        )  # fmt: skip
    console.print(runs)


cli_exchange.register(app)
app.command("renew")(cli_renew.command)
