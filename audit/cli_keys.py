"""`privity audit lock`, `rotate`, `revoke`, `erase`: what a party changes about its own log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

_DIRECTORY = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder of an institution or coordinator.")
]


def lock(directory: _DIRECTORY) -> None:
    """Lock the evidence keys under a passphrase (PKCS #8 with scrypt), in place.

    Example: privity audit lock clinic-a

    The passphrase is asked for, or is the first line of the file that PRIVITY_PASSPHRASE_FILE
    names; every later command needs it too. It is never an argument.
    """
    from audit import custody

    count = custody.lock(directory)
    typer.echo(f"{count} keys locked" if count else "the keys were locked already")


def rotate(
    directory: _DIRECTORY,
    reason: Annotated[str, typer.Option(help="A short code for the log.")] = "scheduled",
    expires: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day on which the new keys end (UTC)."),
    ] = None,
    module: Annotated[
        Path | None, typer.Option(help="Make the new keys in a PKCS #11 token: its library.")
    ] = None,
    token: Annotated[str, typer.Option(help="With --module: the token's label.")] = "",
    prefix: Annotated[str, typer.Option(help="With --module: what key labels begin with.")] = (
        "privity"
    ),
) -> None:
    """Replace the evidence keys; the log says so, signed by the old and the new ones.

    Example: privity audit rotate clinic-a --expires 2028-01-01

    Stop what runs in DIR first, and start it again afterwards. Interrupted, it ends when it is run
    again. The others follow by themselves, since the old keys sign for the new ones. If somebody
    else may have the old keys, revoke them too and tell the fingerprint over another channel: a
    coordinator then sends new invitations (privity server enroll DIR SITE-FILE writes them again).
    """
    from audit import custody, hsm
    from audit.errors import AuditError

    if (module is None) != (not token):
        raise AuditError("give --module and --token together", code="bad-option", exit_code=2)
    receipt = custody.rotate(
        directory,
        reason=reason,
        expires=None if expires is None else expires.replace(tzinfo=UTC),
        token=None if module is None else hsm.Token(str(module), token, prefix),
    )
    if receipt is None:
        typer.echo("the rotation that was begun is finished")
    else:
        typer.echo(f"keys rotated at entry {receipt.index}; the old private keys are destroyed")


def revoke(
    directory: _DIRECTORY,
    reason: Annotated[str, typer.Option(help="A short code for the log.")] = "compromised",
    size: Annotated[
        int | None,
        typer.Option(min=0, help="How many entries the key still counts for; by default all."),
    ] = None,
) -> None:
    """Revoke the key that was rotated away last: from a size on it counts for nothing.

    Example: privity audit revoke clinic-a --size 120

    A verifier then rejects entries and checkpoints that this key signed beyond that size.
    """
    from audit import custody

    receipt = custody.revoke(directory, reason=reason, size=size)
    typer.echo(f"key revoked at entry {receipt.index}")


def erase(
    directory: _DIRECTORY,
    entry: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Erase what this entry commits to. May be repeated."),
    ] = None,
    matching: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Erase the value in this file's first line, wherever it stands."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="A short code for the log.")] = "data-subject-request",
) -> None:
    """Erase personal values that the log commits to; every proof over the log still holds.

    Example: privity audit erase clinic-a --matching account.txt

    The log has only salted digests of such values; the values lie in DIR/log/disclosures.sqlite.
    What is erased, and why, becomes an entry; a verifier then says redacted. Backups of DIR are
    yours to erase.
    """
    from audit import erasure
    from audit.errors import AuditError

    if (matching is None) == (not entry):
        raise AuditError("give --entry or --matching", code="bad-option", exit_code=2)
    value = None
    if matching is not None:
        try:
            value = matching.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
        except (OSError, UnicodeDecodeError):
            raise AuditError(
                f"{matching} cannot be read as text; check the path", code="no-file", exit_code=2
            ) from None
    done = erasure.erase(directory, entries=entry or (), matching=value, reason=reason)
    for index, name in done.fields:
        typer.echo(f"erased {name} of entry {index}")
    said = ", ".join(str(index) for index in done.logged) or "no entry: nothing referred to it"
    typer.echo(f"logged in {said}")


def witness(
    directory: _DIRECTORY,
    url: Annotated[str, typer.Option(metavar="URL", help="The witness's submission prefix.")],
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="A file with the witness's key (a vkey).")
    ],
) -> None:
    """Ask a witness to cosign the log's newest checkpoint (C2SP tlog-witness over HTTP).

    Example: privity audit witness hub --url https://witness.example/w1 --key witness.vkey

    The witness learns the log's name, size and root, and nothing of the entries. Ends with 4 if it
    refuses, and with 5 if it cannot be reached.
    """
    from audit import keys, witness_url
    from audit.errors import AuditError
    from audit.log import Log

    try:
        vkey = key.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise AuditError(
            f"{key} cannot be read as text; check the path", code="no-file", exit_code=2
        ) from None
    opened = Log.open(directory / "log", keys=keys.load(directory / "keys"))
    try:
        done = witness_url.ask(opened, url, vkey)
    finally:
        opened.close()
    at = datetime.fromtimestamp(done.time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    typer.echo(f"{done.witness} cosigned size {done.size} at {at}")


def stamp(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|BUNDLE", help="The folder of an institution or coordinator, or a bundle."
        ),
    ],
    url: Annotated[str, typer.Option(metavar="URL", help="The RFC 3161 authority.")],
    roots: Annotated[
        Path, typer.Option(metavar="FILE", help="PEM file of the roots that you trust for it.")
    ],
) -> None:
    """Have a time-stamping authority sign the time of a log's newest checkpoint (RFC 3161).

    Example: privity audit stamp bundle --url https://tsa.example/ --roots tsa-root.pem

    In DIR it stamps that party's log, and later bundles have the token; in BUNDLE, the
    coordinator's checkpoint, and the bundle has the token. privity audit verify --tsa-roots checks
    it, and so does openssl ts -verify. The authority learns one digest. Needs the extra timestamp.
    """
    from audit import bundle, stamping, timestamp

    bundled = (directory / bundle.MANIFEST).exists()
    size, signed = stamping.newest(directory, bundled=bundled)
    reply = timestamp.ask(url, signed)
    found = timestamp.check(reply, signed, roots)
    place = stamping.keep(directory, size, signed, reply, bundled=bundled)
    typer.echo(f"stamped at {found.time:%Y-%m-%d %H:%M:%SZ}: {place}")
