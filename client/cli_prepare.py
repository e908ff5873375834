"""`privity client prepare` and `withdraw`: from raw files to training data, and back out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from client.people import Progress

_DIR = Annotated[Path, typer.Argument(metavar="DIR", help="The institution's folder.")]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def prepare(
    directory: _DIR,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="JSON(L), CSV, Parquet, Excel, chat log, HL7 v2 or FHIR."
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="prepare.toml", help="What to do; else the defaults.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the set; else set-1, set-2 …")
    ] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep a share of this earlier set.")
    ] = None,
    feedback: Annotated[
        bool,
        typer.Option(
            "--feedback",
            help="Take the judgements that were accepted, and keep 70 % of what trains now.",
        ),
    ] = False,
    form: Annotated[
        str,
        typer.Option("--format", help="auto, records, chat, parquet, excel, hl7 or fhir."),
    ] = "auto",
    encoding: Annotated[str, typer.Option(help="Of a text file.")] = "utf-8",
    query: Annotated[
        str | None, typer.Option(metavar="SQL", help="Read a database instead of a file.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The database, without a password: sqlite:///FILE.")
    ] = None,
    url_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file of mode 0600 with its address; else $PRIVITY_DATABASE_URL.",
        ),
    ] = None,
    as_json: _JSON = False,
) -> None:
    """Turn raw files into training data: cleaned, distinct, split by person, with a report.

    Example: privity client prepare clinic-a --from export.parquet --recipe prepare.toml

    Everything stays in DIR/prepared/NAME, mode 0600. Train on it with path = "prepared/NAME/
    train.jsonl" in site.toml. The same input and recipe give the same set.

    With --feedback, what --parent, --from or site.toml names is what was trained on before: the
    recipe's share of it (parent.keep) stays beside what people said about answers.
    """
    import codecs

    from client import folder
    from client.errors import ClientError
    from client.prepare import pipeline, sources, tables
    from configs.load import load
    from configs.prepare import Recipe

    if form not in sources.FORMS or form == "database":
        raise ClientError(
            f"use --format {'|'.join(f for f in sources.FORMS if f != 'database')}",
            code="bad-option",
        )
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ClientError(
            "that is no known --encoding; use one such as utf-8, cp1252 or gb18030",
            code="bad-option",
        ) from None
    if (source is not None and query is not None) or not (source or query or feedback):
        raise ClientError(
            "give either --from FILE, or --query with a database, or --feedback", code="bad-option"
        )
    opened = folder.open_folder(directory)
    wanted = load(recipe, Recipe) if recipe is not None else Recipe()
    address = None if query is None else tables.database_url(url, url_file)
    translate: Any = None
    translators: tuple[str, ...] = ()
    if wanted.augment.copies and wanted.augment.back_translation:
        from model import translation

        folders = (directory / place for place in wanted.augment.back_translation)
        translate, translators = translation.there_and_back(*folders)
    with _bar(as_json) as progress:
        done = pipeline.prepare(
            opened, source, wanted, name=out, parent=parent, form=form, encoding=encoding,
            url=address, query=query, feedback=feedback, translate=translate,
            translators=translators, progress=progress,
        )  # fmt: skip
    found = done.document()
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    table = Table("side", "persons", "records")
    for side, counts in found["sides"].items():
        table.add_row(side, str(counts["persons"]), str(counts["records"]))
    Console().print(table)
    if done.kept is not None:
        typer.echo(f"kept {done.kept[0]} of {done.kept[1]} earlier records")
    for code, count in found["dropped"].items():
        typer.echo(f"left out: {code}: {count}")
    if done.across:
        typer.echo(f"{done.across} records resemble another person's; see the report")
    for sentence in done.warnings:
        typer.echo(f"note: {sentence}", err=True)
    inside = f"prepared/{done.made.name}"
    typer.echo(f"{done.made.path}: {done.made.digest}")
    typer.echo(f"read {done.made.path / 'report.html'}: it stays here, as everything beside it")
    if found["scope"] == "person":
        typer.echo(
            f'to train on it, set path = "{inside}/train.jsonl" in {directory / "site.toml"}'
        )


@contextmanager
def _bar(quiet: bool) -> Iterator[Progress]:
    """A bar on stderr, of records looked at; nothing where nobody looks."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=Console(stderr=True, quiet=quiet), transient=True) as bar:
        task = bar.add_task("prepare", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def withdraw(
    directory: _DIR,
    person: Annotated[
        str, typer.Argument(metavar="PERSON", help="The person's key in the records.")
    ],
    as_json: _JSON = False,
) -> None:
    """Block all future use of a person's records; list what descends from them, and the remedy.

    Example: privity client withdraw clinic-a p-17

    The log gets a salted commitment, which does not name the person.
    """
    from client import folder, withdrawals

    opened = folder.open_folder(directory)
    done = withdrawals.withdraw(opened, person)
    balance = _spent(opened)
    found: dict[str, Any] = {
        "new": done.new,
        "seen": done.seen,
        "sets": dict(done.sets),
        "doubtful_sets": list(done.doubtful_sets),
        "runs": list(done.runs),
        "doubtful": list(done.doubtful),
        "judgements": done.judgements,
        "epsilon_spent": balance,
        "remedy": remedy(
            directory,
            bool(done.sets or done.doubtful_sets),
            bool(done.runs or done.doubtful),
            bool(done.judgements),
        ),
    }
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    typer.echo("withdrawn" if done.new else "was withdrawn before; nothing changed")
    if not done.seen:
        typer.echo("no record, set or run here holds that key; check its spelling", err=True)
    for name, side in done.sets.items():
        typer.echo(f"prepared set {name} holds records of that person ({side})")
    for name in done.doubtful_sets:
        typer.echo(f"prepared set {name} may hold records of that person: it is damaged")
    if done.judgements:
        typer.echo(f"{done.judgements} judgements of answers are about that person")
    for run in done.runs:
        typer.echo(f"the adapter of run {run} descends from that person's records")
    for run in done.doubtful:
        typer.echo(f"the adapter of run {run} may descend: it trained before lineage was kept")
    if done.runs or done.doubtful:
        typer.echo(
            f"what anybody can learn about that person from them stays bounded: ε {balance:g} at "
            f"δ {opened.settings.budget.delta:g} for one person under zero-out adjacency, over all "
            "runs of this ledger"
        )
    for line in found["remedy"]:
        typer.echo(f"- {line}")


def remedy(directory: Path, prepared: bool, trained: bool, judged: bool = False) -> list[str]:
    """What is left to do after a withdrawal, in sentences."""
    steps = [
        "from now on no training, review or preparation here uses these records",
        "remove the records from the source, its exports and its backups, as your law requires",
    ]
    if prepared:
        steps.append(
            f"prepare the sets named above again, then remove their folders in "
            f"{directory / 'prepared'}: the texts still lie in them"
        )
    if judged:
        steps.append(
            "no set will take what people said about answers to that person; delete it with "
            f"privity client feedback {directory} --forget PERSON"
        )
    if trained:
        steps.append(
            "an adapter cannot be made to forget: to be rid of any influence, ask the coordinator "
            "to withdraw the release and to train again without this person; that costs the others "
            "new ε"
        )
    return steps


def _spent(opened: Any) -> float:
    limits = opened.settings.budget
    balance = opened.ledger().balance(limits.cohort, delta=limits.delta, cap=limits.epsilon)
    return round(float(balance.spent), 4)
