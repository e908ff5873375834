"""`privity model distill`: a large local model answers public questions, a small one learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model import cli_bar


def command(
    teacher: Annotated[str, typer.Argument(help="A name of privity model list, or a folder.")],
    prompts: Annotated[
        Path, typer.Option("--prompts", metavar="FILE.jsonl", help="PUBLIC questions, one a line.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="New; for what comes out.")],
    student: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Also train this model on the answers, without DP."),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(metavar="sha256:…", help="The teacher must have this digest.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 256,
    precision: Annotated[
        str, typer.Option(help="Of the teacher: float32, bfloat16, int8 or nf4.")
    ] = "float32",
    epochs: Annotated[int, typer.Option(min=1, help="Of the student.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Of the student.")] = 1e-5,
    logits: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0,
            help="Share of the loss that follows the teacher's probabilities; needs one tokenizer.",
        ),
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:  # fmt: skip
    """Have a model answer public questions, and let a small one learn from it.

    Example: privity model distill ./qwen2.5-7b --prompts public.jsonl --student
    smollm2-135m-instruct --out distilled

    FOLDER/records.jsonl is training data, FOLDER/student a base model, FOLDER/manifest.json says
    what both come from. Give no question that holds anything of a person: nothing here is scrubbed,
    charged or private.
    """
    from model import distilling
    from model.distil import Lesson

    with cli_bar.bar() as progress:
        made = distilling.make(
            teacher,
            prompts,
            out,
            student=student,
            digest=digest,
            max_new_tokens=max_new_tokens,
            precision=precision,
            lesson=Lesson(epochs=epochs, learning_rate=learning_rate, logits=logits),
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(made))
        return
    left = ", ".join(f"{count} {why}" for why, count in made["left_out"].items() if count)
    typer.echo(f"{made['records']['count']} answers in {out / 'records.jsonl'}"
               + (f"; left out: {left}" if left else ""))  # fmt: skip
    if made["student"] is not None:
        learnt = made["student"]
        typer.echo(
            f"student in {out / 'student'} ({learnt['digest'][:23]}…): loss on "
            f"{learnt['held_out']} answers that it did not see {learnt['loss_before']:.3f} -> "
            f"{learnt['loss_after']:.3f}"
        )
        if not learnt["loss_after"] < learnt["loss_before"]:
            typer.echo(
                "it did not get better at what it was not taught: give more questions, or a lower "
                "--learning-rate",
                err=True,
            )
        typer.echo(f"use it as the base model: privity model show {out / 'student'}")
