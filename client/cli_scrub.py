"""`privity client scrub`, `review` and `deid`: de-identification and the people who check it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_DIR = Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")]
_HELD_SHOWN = 20


def deid(
    source: Annotated[
        str, typer.Argument(metavar="FILE|-", help="JSON lines, JSON, CSV, HL7, FHIR or text.")
    ],
    profile: Annotated[str, typer.Option(help="clinical or strict.")] = "clinical",
    language: Annotated[str, typer.Option(help="en, zh or auto.")] = "auto",
    form: Annotated[
        str, typer.Option("--format", help="auto, jsonl, json, csv, hl7, fhir or text.")
    ] = "auto",
) -> None:
    """De-identify a file in its own form; of lines with a text, also say where identifiers stood.

    Example: privity client deid admissions.hl7 --profile strict > clean.hl7

    Where the form says what a value is (a column, an HL7 field, a FHIR element), it is replaced as
    that; anything else is read as text. What is held back is left out of the output and named on
    stderr, and the command ends with 3. Lines of {"text"} become {"text", "spans", "quarantined"}.
    """
    from client import deid as files
    from client.errors import ClientError

    if (
        profile not in ("clinical", "strict")
        or language not in ("en", "zh", "auto")
        or form not in files.FORMATS
    ):
        raise ClientError(
            "use --profile clinical|strict, --language en|zh|auto and --format "
            + "|".join(files.FORMATS),
            code="bad-option",
        )
    held: list[files.Held] = []
    for piece in files.stream(
        source,
        profile=cast(Literal["clinical", "strict"], profile),
        language=cast(Literal["en", "zh", "auto"], language),
        form=cast(files.Format, form),
        held=held.append,
    ):
        sys.stdout.write(piece + "\n")
    for one in held[:_HELD_SHOWN]:
        typer.echo(f"held back: number {one.number}: {one.code}", err=True)
    if held:
        raise ClientError(
            f"{len(held)} of the pieces of {source} were held back and are not in the output; "
            "mend or remove them",
            code="held-back",
            exit_code=3,
        )


def scrub(
    directory: _DIR,
    sample: Annotated[int, typer.Option(min=1, max=5000, help="Records drawn to be read.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the sample here as lines of JSON, instead of DIR/review."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say on the page why each span was taken.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Overwrite and remove the sample; scrub nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Dry run of the de-identification, with a page of a random sample, before and after.

    Example: privity client scrub clinic-a --sample 60

    The page is DIR/review/index.html (mode 0600, it holds records); report.html and report.json
    beside it hold counts only. Read the sample with: privity client review DIR
    """
    from client import folder, review

    opened = folder.open_folder(directory)
    if delete:
        removed = review.delete(opened)
        typer.echo(f"{removed} files with records were overwritten and removed; reports stay")
        return
    with _bar("scrubbing") as step:
        found = review.dry_run(opened, sample=sample, out=out, explain=explain, progress=step)
    if as_json:
        typer.echo(json.dumps(found.document, ensure_ascii=False))
    else:
        _table(found.document)
        target = found.page or out
        typer.echo(f"review {target} and delete it afterwards: it holds records (mode 0600)")
        if found.page:
            typer.echo(f"read and decide record by record: privity client review {directory}")
    if not found.report.kept:
        raise typer.Exit(3)


def _table(document: Mapping[str, Any]) -> None:
    scrubbed = document["scrub"]
    table = Table(show_header=False, box=None)
    for name in ("records", "persons", "kept"):
        table.add_row(name, str(scrubbed[name]))
    if scrubbed["unkeyed"]:
        table.add_row(
            "without a person key",
            f"{scrubbed['unkeyed']}: each counts as a person, so ε is a record's",
        )
    for name, count in scrubbed["removed"].items():
        table.add_row(f"removed: {name}", str(count))
    for held in document["quarantine"]:
        lines = ", ".join(map(str, held["lines"]))
        table.add_row(
            f"quarantined: {held['code']}",
            f"{held['records']}: {held['why']}; {held['do']} (lines {lines})",
        )
    for name, count in scrubbed["faults"].items():
        table.add_row(f"unreadable: {name}", str(count))
    for found in document["quasi_identifiers"][:5]:
        table.add_row(
            f"singles out: {' + '.join(found['columns'])}",
            f"{found['exposed']} persons share theirs with fewer than four others",
        )
    Console().print(table)


def review(
    directory: _DIR,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Write the decisions as recognisers in Presidio's YAML; serve nothing.",
        ),
    ] = None,
) -> None:
    """Read the sample of the last dry run in a browser, decide on each record, sign the counts.

    Example: privity client review clinic-a

    Listens on this machine only and prints a link that works once. The log gets the reader's name,
    counts and the bound on what may still be missed, and nothing of any record.
    """
    from client import folder, review_lists
    from client import review as reviews

    opened = reviews.open_review(folder.open_folder(directory))
    if export is not None:
        denied, allowed = review_lists.write(export, opened.decisions)
        typer.echo(
            f"{denied} words to take and {allowed} to leave are in {export}; to switch them on, "
            "name the file in site.toml: [scrub] lists"
        )
        return
    from client import review_app

    review_app.serve(
        opened,
        port=port,
        ready=lambda link: typer.echo(f"open {link}\n(the link works once; Ctrl-C ends)"),
    )
    counts = opened.counts()
    typer.echo(f"{counts['sampled'] - counts['open']} of {counts['sampled']} records are decided")


@contextmanager
def _bar(title: str) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
