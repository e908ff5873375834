"""`privity audit report|export|officer|sign-off|serve`: what an officer writes and signs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BUNDLE = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")]
TRUST = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Keys that reached you another way, as for verify."),
]
RELEASE_KEY = Annotated[
    Path | None,
    typer.Option("--release-key", metavar="FILE.pem", help="The coordinator's public release key."),
]

OFFICER = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Whose log says that it was done; privity audit officer."),
]
TSA_ROOTS = Annotated[
    Path | None,
    typer.Option(
        "--tsa-roots",
        metavar="FILE.pem",
        help="Roots that you trust for time-stamps (RFC 3161); without them none is checked. Needs "
        "the extra timestamp.",
    ),
]


def report(
    context: typer.Context,
    bundle: BUNDLE,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The file to write.")],
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also a PDF beside it, made by a browser of this machine.")
    ] = False,
    trust: TRUST = None,
    release_key: RELEASE_KEY = None,
    tsa_roots: TSA_ROOTS = None,
) -> None:
    """Write what a bundle shows for people who read no code: one HTML file, perhaps a PDF.

    Example: privity audit report bundle --out report.html

    Every sentence names the entry or the recomputation that it comes from. Ends with 4 if the
    bundle does not verify; the report is written all the same and says so first.
    """
    from audit import material, report_html, trusted
    from audit import report as reports
    from audit.errors import AuditError

    gathered = material.gather(
        bundle,
        recompute=context.obj["recompute"],
        trust=trusted.keys(trust or ()),
        release_key=release_key,
        tsa_roots=tsa_roots,
    )
    composed = reports.compose(gathered)
    for path in report_html.write(composed, out, pdf=pdf):
        typer.echo(f"written: {path}")
    if not composed.holds:
        first = gathered.findings.faults[0]
        raise AuditError(
            f"{bundle} does not verify: {first.where}: {first.sentence}; the report says so",
            code="faulty",
        )


def export(
    context: typer.Context,
    bundle: BUNDLE,
    form: Annotated[str, typer.Option("--format", metavar="fhir|ocsf|csv", help="The form.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    officer: OFFICER = None,
    recipient: Annotated[
        str,
        typer.Option(
            "--for", metavar="NAME", help="Who gets it; in the officer's log as a salted digest."
        ),
    ] = "",
) -> None:
    """Copy the entries of a bundle into the form that another system takes.

    Example: privity audit export bundle --format fhir --out events.ndjson

    fhir: HL7 FHIR R4 AuditEvent, one a line. ocsf: OCSF base events, one a line. csv: a table. Ends
    with 4, and writes nothing, if a byte of the bundle is not what was signed. With --officer, that
    officer's log says what was exported.
    """
    from audit import bundle as bundles
    from audit import formats, stored, verify
    from audit.errors import AuditError
    from audit.signoff import Officer

    desk = None if officer is None else Officer.open(officer)

    if form not in formats.FORMS:
        raise AuditError(
            f"use --format {'|'.join(formats.FORMS)}", code="no-such-form", exit_code=2
        )
    findings = verify.verify(bundle, recompute=context.obj["recompute"])
    if not findings.intact:
        first = findings.faults[0]
        raise AuditError(
            f"{bundle} is damaged: {first.where}: {first.sentence}; nothing was written",
            code="faulty",
        )
    count = formats.write(stored.merged(bundles.read(bundle)), form, out)
    typer.echo(f"written: {out}, {count} entries")
    if desk is not None:
        desk.exported(form, out, entries=count, recipient=recipient)


def officer(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, kept private.")],
    name: Annotated[str, typer.Option(help="The officer's or the office's name in sign-offs.")],
    lock: Annotated[
        bool, typer.Option("--lock", help="Ask for a passphrase and lock the keys under it.")
    ] = False,
    module: Annotated[
        Path | None, typer.Option(help="Make the keys in a PKCS #11 token: its library.")
    ] = None,
    token: Annotated[str, typer.Option(help="With --module: the token's label.")] = "",
    prefix: Annotated[str, typer.Option(help="With --module: what key labels begin with.")] = (
        "officer"
    ),
) -> None:
    """Make an officer's own keys and sign-off log.

    Example: privity audit officer compliance --name compliance-office --lock

    Without --lock and --module the keys are files that only this account reads; with
    PRIVITY_PASSPHRASE_FILE they are locked in any case. privity audit lock, rotate and revoke work
    on the folder too.
    """
    from audit import hsm, passphrase
    from audit.errors import AuditError
    from audit.signoff import Officer

    if (module is None) != (not token) or (lock and module is not None):
        raise AuditError(
            "give --module and --token together, without --lock", code="bad-option", exit_code=2
        )
    made = Officer.create(
        folder,
        name,
        passphrase=passphrase.choose(str(folder / "keys")) if lock else None,
        token=None if module is None else hsm.Token(str(module), token, prefix),
    )
    typer.echo(f"officer {made.name}, fingerprint {made.fingerprint}")


def sign_off(
    context: typer.Context,
    bundle: BUNDLE,
    officer: Annotated[Path, typer.Option(metavar="FOLDER", help="Made by privity audit officer.")],
    log: Annotated[str, typer.Option(metavar="NAME", help="Whose log was read.")] = "",
    first: Annotated[int, typer.Option(min=0, help="The first entry that was read.")] = 0,
    last: Annotated[
        int | None, typer.Option(min=0, help="The last; by default the newest.")
    ] = None,
    objected: Annotated[bool, typer.Option("--objected", help="Read, and objected to.")] = False,
) -> None:
    """Sign that a range of a log was read; without --log, list what was signed.

    Example: privity audit sign-off bundle --officer compliance --log clinic-a --first 0 --last 40

    Ends with 4 if a log is not, any more, the one that was signed off.
    """
    from audit import bundle as bundles
    from audit import stored, verify
    from audit.errors import AuditError
    from audit.signoff import DECISIONS, Officer

    opened, desk = bundles.read(bundle), Officer.open(officer)
    if log:
        held = verify.verify(bundle, recompute=context.obj["recompute"]).ok
        known = stored.logs(opened)
        if last is None and log in known:
            last = stored.stated(opened, *known[log])[0].size - 1
        read = (r for r in stored.records(opened, log) if first <= r.entry.index <= (last or 0))
        problems = sum(1 for r in read if r.entry.problem) if log in known else 0
        desk.sign(
            opened,
            log=log,
            first=first,
            last=last or 0,
            decision=DECISIONS[objected],
            holds=held,
            problems=problems,
        )
    words = {True: "fits", False: "DOES NOT FIT", None: "not in this bundle"}
    listed = desk.listed(opened)
    for item in listed:
        typer.echo(
            f"{item.time:%Y-%m-%d %H:%M:%SZ}  {item.decision}  {item.log} {item.first} to "
            f"{item.last}  problems {item.problems}  verifier {item.verdict}  {words[item.fits]}"
        )
    typer.echo(f"{len(listed)} signed by {desk.name}")
    if any(item.fits is False for item in listed):
        raise AuditError("a log is not the one that was signed off", code="signoff-differs")


def serve(
    context: typer.Context,
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A bundle, a folder of bundles, or a coordinator's folder."
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8090,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="HOST[:PORT]", help="A name that a proxy calls it by."),
    ] = None,
    header: Annotated[
        str,
        typer.Option(
            "--proxy-header",
            metavar="NAME",
            help="Log-in is the reverse proxy's: this header names who asks. Loopback only.",
        ),
    ] = "",
    officer: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Who signs off; made by privity audit officer."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the index of a bundle is kept.")
    ] = None,
    trust: TRUST = None,
    release_key: RELEASE_KEY = None,
) -> None:
    """Show evidence in a browser: read-only, no script, logged in by a link that works once.

    Example: privity audit serve bundle --officer compliance

    Every bundle is verified before the page answers. Ctrl-C ends it.
    """
    from audit import page_run, page_shelf, trusted
    from audit.signoff import Officer

    desk = None if officer is None else Officer.open(officer)
    books = page_shelf.load(
        directory,
        recompute=context.obj["recompute"],
        trust=trusted.keys(trust or ()),
        cache=cache or page_shelf.default_cache(),
        release_key=release_key,
        tell=lambda text: typer.echo(text, err=True),
    )
    page_run.run(
        books,
        host=host,
        port=port,
        names=names or (),
        header=header,
        officer=desk,
        tell=typer.echo,
    )


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `privity audit`."""
    app.command()(report)
    app.command()(export)
    app.command()(officer)
    app.command("sign-off")(sign_off)
    app.command()(serve)
