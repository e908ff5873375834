"""`privity client answer`: a question of the coordinator that came as a file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The coordinator's question.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the answer.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Answer the coordinator's file with a file: decide about a plan, or train a round.

    Example: privity client answer clinic-c to-clinic-c.file --out answer.file

    The same gate, ledger and log as over the network. Asked the same again, it gives the same
    bytes and spends nothing.
    """
    from client import exchange, folder

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for chatty in ("flwr", "httpx", "presidio-analyzer"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    done = exchange.answer(folder.open_folder(directory), file, out=out)
    if as_json:
        facts = {
            "run": done.run,
            "kind": done.kind,
            "round": done.round,
            "failure": done.failure,
            "repeated": done.repeated,
        }
        typer.echo(json.dumps(facts))
        return
    words = {"propose": "the plan", "close": "the end"}
    what = words.get(done.kind, f"round {done.round + 1}")
    said = f"says that it failed ({done.failure})" if done.failure else "answers"
    again = ", as before" if done.repeated else ""
    typer.echo(f"{out} {said}: {what} of run {done.run}{again}")
    typer.echo(f"there: privity server import COORDINATOR-DIR {out.name}")
