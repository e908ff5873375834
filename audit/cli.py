"""`privity audit`: what a compliance officer does with a bundle, offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audit import cli_conduct, cli_keys, cli_mark, cli_officer

if TYPE_CHECKING:
    from audit.entries import Entry, Proven
    from audit.findings import Fault, Findings

app = typer.Typer(no_args_is_help=True)
cli_officer.register(app)
for command in (
    cli_keys.lock,
    cli_keys.rotate,
    cli_keys.revoke,
    cli_keys.erase,
    cli_keys.stamp,
    cli_keys.witness,
    cli_conduct.incident,
    cli_conduct.retain,
):
    app.command()(command)
_BUNDLE = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command()
def verify(
    context: typer.Context,
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder, or a zip of it.")
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT", help="A checkpoint kept earlier, which its log must extend."
        ),
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Keys that reached you another way: an invitation, an enrolment, or JSON from "
            "name to log key. May be repeated.",
        ),
    ] = None,
    every_signature: Annotated[
        bool,
        typer.Option(
            "--every-signature",
            help="Check each entry's own signature even in logs of over 16384 entries, where those "
            "of serving-access are else signed through the entries after them.",
        ),
    ] = False,
    tsa_roots: cli_officer.TSA_ROOTS = None,
    officer: cli_officer.OFFICER = None,
    as_json: _JSON = False,
) -> None:
    """Verify a bundle offline: intact, complete, consistent, signed by whom, ε spent of cap.

    Example: privity audit verify bundle --trust invitation.json

    Ends with 0 if every check holds and with 4 if one does not.
    """
    from audit import archive, trusted
    from audit import verify as verifier
    from audit.errors import AuditError
    from audit.signoff import Officer

    desk = None if officer is None else Officer.open(officer)
    pinned = trusted.keys(trust or ())
    with archive.opened(bundle) as folder:
        findings = verifier.verify(
            folder,
            recompute=context.obj["recompute"],
            against=None if against is None else trusted.checkpoint(against),
            trust=pinned,
            every=every_signature,
            tsa_roots=tsa_roots,
        )
    if as_json:
        typer.echo(json.dumps(findings.to_json()))
    else:
        _print_findings(bundle, findings)
    if desk is not None:
        desk.verified(findings)
    for name in sorted(set(pinned) - {signer.name for signer in findings.signers}):
        typer.echo(f"note: {name}, whom you trust, has no log in this bundle", err=True)
    if not findings.ok:
        raise AuditError(_first(bundle, findings.faults), code="faulty")
    if pinned and not any(signer.pinned for signer in findings.signers):
        raise AuditError(
            f"none of the keys that you trust signed {bundle}; it is consistent in itself, and "
            "not shown to be of the parties that you know",
            code="nobody-trusted",
        )


@app.command()
def show(
    context: typer.Context,
    bundle: _BUNDLE,
    kind: Annotated[str, typer.Option(help="Only this kind, such as egress.")] = "",
    institution: Annotated[
        str, typer.Option(metavar="NAME", help="Only what this party logged, or others about it.")
    ] = "",
    run: Annotated[str, typer.Option(metavar="RUN", help="Only this run.")] = "",
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="Only this round, counted from 0.")
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Not before this day or minute (UTC).")
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="TIME", help="Not after this day or minute (UTC).")
    ] = "",
    problems: Annotated[
        bool, typer.Option("--problems", help="Only what went wrong, and what does not verify.")
    ] = False,
    entry: Annotated[
        str, typer.Option(metavar="NAME:INDEX", help="One entry in full, its proof checked.")
    ] = "",
    as_json: _JSON = False,
) -> None:
    """List the entries of all logs in a bundle, or show one in full.

    Example: privity audit show bundle --institution clinic-a --kind egress

    Each line begins with NAME:INDEX, which --entry takes. Ends with 4 if entries are damaged.
    """
    from audit import entries, kinds
    from audit import verify as verifier
    from audit.errors import AuditError
    from audit.moments import moment

    if entry:
        _print_proven(entries.prove(bundle, *_place(entry)), as_json)
        return
    if kind and kind not in kinds.KINDS:
        raise AuditError(
            f"there is no such kind of event; the kinds are {', '.join(sorted(kinds.KINDS))}",
            code="no-such-kind",
            exit_code=2,
        )
    first, last = moment(since, "--since", end=False), moment(until, "--until", end=True)
    reading = entries.read(bundle)
    faults: Sequence[Fault] = reading.faults
    if problems:
        faults = verifier.verify(bundle, recompute=context.obj["recompute"]).faults
    chosen = [
        item
        for item in reading.entries
        if (not kind or item.event.kind == kind)
        and (not institution or institution in _about(item))
        and (not run or item.event.run == run)
        and (round_number is None or item.event.round == round_number)
        and (first is None or item.event.time >= first)
        and (last is None or item.event.time <= last)
        and (not problems or item.problem)
    ]
    if as_json:
        document = {
            "entries": [item.to_json() for item in chosen],
            "faults": [asdict(fault) for fault in faults],
        }
        typer.echo(json.dumps(document))
    else:
        _print_entries(chosen)
        for fault in faults:
            typer.echo(f"fault [{fault.layer}/{fault.code}] {fault.where}: {fault.sentence}")
    if faults:
        raise AuditError(_first(bundle, faults), code="faulty")


def _print_findings(bundle: Path, findings: Findings) -> None:
    typer.echo(f"bundle {bundle}, run {findings.run or 'unknown'}")
    for heading, lines in findings.sections():
        typer.echo(f"\n{heading}")
        for line in lines:
            typer.echo(f"  {line}")
    if findings.signers and not any(signer.pinned for signer in findings.signers):
        typer.echo(
            "\nWho holds these keys is only stated by the bundle: compare the fingerprints over "
            "another channel, or give --trust."
        )


def _print_entries(chosen: Sequence[Entry]) -> None:
    rows = [
        (
            f"{item.name}:{item.index}",
            item.event.time.strftime("%Y-%m-%d %H:%M:%SZ"),
            item.event.kind,
            item.event.run or "-",
            "-" if item.event.round is None else str(item.event.round),
            item.facts + (f"  PROBLEM: {item.problem}" if item.problem else ""),
        )
        for item in chosen
    ]
    head = ("entry", "time", "kind", "run", "round", "facts")
    # Not a boxed table: a line stays a line, so that it can be searched and pasted.
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head) - 1)]
    for row in [head, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        typer.echo("  ".join([*cells, row[-1]]).rstrip())
    typer.echo(f"{len(rows)} {'entry' if len(rows) == 1 else 'entries'}")


def _print_proven(proven: Proven, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(proven.to_json()))
        return
    typer.echo(json.dumps(proven.statement, indent=2, ensure_ascii=True))
    typer.echo(f"\nentry {proven.index} of {proven.size} in the log of {proven.name}")
    typer.echo(f"leaf  {proven.leaf.hex()}")
    for step in proven.proof:
        typer.echo(f"proof {step.hex()}")
    typer.echo(f"root  {proven.root.hex()}")
    typer.echo("the signature holds, and the proof leads from the leaf to the signed root")


def _about(item: Entry) -> set[str]:
    fields = item.event.fields
    return {item.name} | {fields[word] for word in ("institution", "name") if word in fields}


def _place(text: str) -> tuple[str, int]:
    from audit.errors import AuditError

    name, colon, index = text.rpartition(":")
    if not (name and colon and index.isascii() and index.isdigit() and len(index) < 16):
        raise AuditError(
            "--entry takes NAME:INDEX, as the first column of privity audit show has it",
            code="bad-option",
            exit_code=2,
        )
    return name, int(index)


def _first(bundle: Path, faults: Sequence[Fault]) -> str:
    if not faults:
        return f"{bundle} does not verify; fetch it again"
    more = len(faults) - 1
    tail = f" (and {more} more)" if more else ""
    return f"{bundle} does not verify: {faults[0].where}: {faults[0].sentence}{tail}"


app.command("detect")(cli_mark.detect)
app.command("trace")(cli_mark.trace)
app.command("disclose")(cli_mark.disclose)
