"""`privity model reinforce`: PPO on public questions, without privacy and saying so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model import cli_bar


def command(
    model: Annotated[str, typer.Argument(help="A name of privity model list, or a folder.")],
    prompts: Annotated[
        Path, typer.Option("--prompts", metavar="FILE.jsonl", help="PUBLIC questions, one a line.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="New; for what comes out.")],
    reward_model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A local reward model with the same tokens."),
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Or: reward the share of words that are in this list."),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(metavar="sha256:…", help="The model must have this digest.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Answers that are sampled in all.")] = 512,
    batch: Annotated[int, typer.Option(min=2, help="Answers between two updates.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of the adapter and the value model.")] = (
        1e-4
    ),
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 48,
    pull: Annotated[
        float, typer.Option(min=0.0, help="What a departure from the model as it was costs.")
    ] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Train a model by PPO (trl) on PUBLIC questions. NOT private: no ε, no budget, no release.

    Example: privity model reinforce smollm2-135m-instruct --prompts public.jsonl --words plain.txt
    --out plainer

    FOLDER/model is a base model for later runs; FOLDER/manifest.json says what it comes from. For
    the preferences of persons use training.objective = "preference", which is private.
    """
    from model import reinforcing
    from model.reinforce import Course

    with cli_bar.bar() as progress:
        made = reinforcing.make(
            model,
            prompts,
            out,
            reward=reward_model,
            words=words,
            digest=digest,
            course=Course(
                episodes=episodes,
                batch=batch,
                learning_rate=learning_rate,
                max_new_tokens=max_new_tokens,
                pull=pull,
            ),
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(
        f"model in {out / 'model'} ({made['model']['digest'][:23]}…): mean reward on "
        f"{made['prompts']['held_out']} questions that it did not see "
        f"{made['reward_before']:.3f} -> {made['reward_after']:.3f}"
    )
    typer.echo(f"not private: {made['notice']}")
