"""`privity audit incident`, `retain`: what a party writes about its own house."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from audit.incidents import Incident
    from audit.retention import Pruned

_DIRECTORY = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder of an institution or coordinator.")
]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def incident(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Of an institution, a coordinator or an officer."),
    ],
    category: Annotated[
        str, typer.Option(metavar="CATEGORY", help="Open one of this category; help lists them.")
    ] = "",
    severity: Annotated[
        str, typer.Option(metavar="low|medium|high", help="How bad it is.")
    ] = "medium",
    reference: Annotated[
        str, typer.Option(metavar="TICKET", help="A ticket's number, such as INC-2041.")
    ] = "",
    close: Annotated[
        int | None, typer.Option(metavar="ENTRY", min=0, help="Close the one that it opened.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A description. The log gets a salted digest of it; the words stay beside the "
            "log, where privity audit erase can remove them.",
        ),
    ] = None,
    as_json: _JSON = False,
) -> None:
    """List the incidents in a party's log, open one, or close one.

    Example: privity audit incident clinic-a --category unauthorised-access --severity high
    --reference INC-2041

    Categories: personal-data, unauthorised-access, key-compromise, malware, loss-or-theft,
    wrong-output, outage, policy-breach, other; and those that the software opens by itself:
    log-inconsistent, ledger-fault, clock-refused. While log-inconsistent is open, an institution
    trains nothing for that coordinator.
    """
    from audit import incidents, keys
    from audit.errors import AuditError
    from audit.log import Log

    if category and close is not None:
        raise AuditError("give --category or --close, not both", code="bad-option", exit_code=2)
    if not category and close is None and (reference or text is not None):
        raise AuditError("give --category or --close too", code="bad-option", exit_code=2)
    words = "" if text is None else _read(text)
    log = Log.open(directory / "log", keys=keys.load(directory / "keys"))
    try:
        if category:
            done = incidents.record(log, category, severity, reference=reference, description=words)
        elif close is not None:
            done = incidents.close(log, close, reference=reference, description=words)
        if category or close is not None:
            log.checkpoint()
            typer.echo(
                f"incident {done.index} is open" if category else f"incident {close} is closed",
                err=as_json,
            )
        found = incidents.listed(log)
    finally:
        log.close()
    if as_json:
        typer.echo(json.dumps([_json(item) for item in found]))
    elif not (category or close is not None):
        for item in found:
            state = "open" if item.closed is None else f"closed by entry {item.closed}"
            typer.echo(
                f"{item.entry}  {item.opened:%Y-%m-%d %H:%MZ}  {item.severity}  {item.code}  "
                f"{item.reference or '-'}  {state}"
            )
        typer.echo(f"{len(found)} incidents, {sum(i.closed is None for i in found)} open")


def retain(
    context: typer.Context,
    directory: _DIRECTORY,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is due.")] = False,
    as_json: _JSON = False,
) -> None:
    """Delete what has been kept for as long as the settings say, and say so in the log.

    Example: privity audit retain clinic-a --dry-run

    The terms are under [retention] in site.toml or coordinator.toml. The log itself stays whole:
    what goes are values behind its entries, the text of an old review, and old feedback. Backups of
    DIR are yours to prune. Run it regularly, for example daily by cron.
    """
    from audit import retention

    terms, own = context.obj["retention"](directory)
    done = list(retention.prune(directory, terms, dry_run=dry_run))
    for part in own:
        entry = None
        if not dry_run:
            entry = retention.note_removed(directory, part.due, before=part.before)
            part.remove()
        files = sum(item.count for item in part.due if item.digest)
        rows = sum(item.count for item in part.due if not item.digest)
        done.append(retention.Pruned("ops", part.before, 0, files, rows, entry))
    if as_json:
        typer.echo(json.dumps([_pruned(item) for item in done]))
        return
    for item in done:
        what = f"{item.disclosures} values, {item.files} files, {item.rows} rows"
        where = "would be erased" if item.entry is None else f"erased, logged in entry {item.entry}"
        typer.echo(f"{item.retention}, before {item.before:%Y-%m-%d}: {what} {where}")
    if not done:
        typer.echo("nothing is due")


def _pruned(item: Pruned) -> dict[str, object]:
    return {
        "retention": item.retention,
        "before": item.before.isoformat(),
        "disclosures": item.disclosures,
        "files": item.files,
        "rows": item.rows,
        "entry": item.entry,
    }


def _json(item: Incident) -> dict[str, object]:
    return {
        "entry": item.entry,
        "code": item.code,
        "severity": item.severity,
        "reference": item.reference,
        "opened": item.opened.isoformat(),
        "closed": item.closed,
    }


def _read(path: Path) -> str:
    from audit.errors import AuditError

    try:
        words = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise AuditError(
            f"{path} cannot be read as text; check the path", code="no-file", exit_code=2
        ) from None
    if not words or len(words) > 4000:
        raise AuditError(
            f"{path} holds no text of 1 to 4000 characters; shorten it",
            code="bad-text",
            exit_code=2,
        )
    return words
