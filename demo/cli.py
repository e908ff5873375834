"""`privity demo`: a whole federation on this machine."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated

import typer

_NEEDS = ("torch", "flwr", "opacus", "presidio_analyzer", "uvicorn")


def command(
    out: Annotated[Path, typer.Option(help="Folder to fill.")] = Path("privity-demo"),
    data: Annotated[
        Path | None, typer.Option(help="Real records (JSONL), split by their institution field.")
    ] = None,
    institutions: Annotated[int, typer.Option(min=1, max=20, help="How many.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds of training.")] = 5,
    epsilon: Annotated[
        float, typer.Option(min=0.01, max=2.0, help="ε per person for the whole run.")
    ] = 2.0,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished demo.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """A whole federation on this machine, from records to verified evidence.

    Example: privity demo --out /tmp/privity-demo --institutions 3
    """
    from demo import closing, run
    from demo.errors import DemoError
    from demo.screen import Screen

    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            "the demo needs more packages; in privity's own folder run: pip install "
            "'.[client,server,serve]'"
        )
    # `min=` lets NaN through.
    if not epsilon <= 2.0:
        raise DemoError("--epsilon must be a number from 0.01 to 2")
    wish = run.Wish(out, data, institutions, rounds, epsilon, force)
    with Screen(silent=as_json) as screen:
        result = run.run(wish, screen)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        closing.show(result, out)
