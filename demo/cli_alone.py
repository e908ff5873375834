"""`privity client train`: fine-tuning on premises, without a coordinator elsewhere."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

_NEEDS = ("torch", "flwr", "opacus", "presidio_analyzer", "uvicorn", "cyclonedx")


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")],
    run: Annotated[
        Path, typer.Option("--run", metavar="RUN.toml", help="What to train; see run.example.toml.")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Approve the run without being asked.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped; spends no more.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Train alone, on premises: same scrub, ledger, evidence and watermark, a release of your own.

    Example: privity client train clinic-a --run triage.toml

    RUN.toml needs no [federation]. Release and bundle lie in DIR/alone/RUN. Both logs are yours,
    so nobody else cosigns them: keep the newest checkpoint where you cannot change it.
    """
    from demo import alone
    from demo.errors import DemoError
    from demo.screen import Screen

    if any(importlib.util.find_spec(name) is None for name in _NEEDS):
        raise DemoError(
            "training alone needs more packages; in privity's own folder run: pip install "
            "'.[client,server]'"
        )

    wish = alone.Wish(directory, run, resume)
    place = alone.prepare(wish)
    if place.asks and not yes:
        if not sys.stdin.isatty():
            raise DemoError(
                f"site.toml wants a person to approve {place.run}; add --yes, or set approve = "
                '"policy" in it',
                exit_code=3,
            )
        typer.echo(alone.cost(wish, place), err=True)
        typer.confirm(f"train on the records of {directory}?", abort=True, err=True)
    with Screen(silent=as_json, steps=alone.STEPS) as screen:
        result = alone.train(wish, place, screen)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _show(result, directory)


def _show(result: dict[str, Any], directory: Path) -> None:
    typer.echo(f"run {result['run']}: {result['rounds']} rounds")
    typer.echo(
        f"ε spent: {result['epsilon']:.4f} of {result['cap']:g} per person, at δ "
        f"{result['delta']:g}, under zero-out of all of one person's records, over all adapter "
        "updates of this cohort"
    )
    found = result["evaluation"]
    if found is None:
        typer.echo("utility: not evaluated; RUN.toml names no evaluation records")
    else:
        typer.echo(
            f"accuracy on {found['records']} records ({found['data']}): base model "
            f"{found['base']['accuracy']:.3f}, released {found['released']['accuracy']:.3f}"
        )
    verdict = "holds" if result["verified"]["ok"] else "FAULTY"
    typer.echo(f"verification: {verdict} ({result['verified']['faults']} faults); both logs are "
               "this institution's own, so no second party cosigned them")  # fmt: skip
    typer.echo("try next:")
    typer.echo(f"  privity audit verify {result['bundle']}")
    typer.echo(f"  privity serve {result['release']} --dir {directory}")
