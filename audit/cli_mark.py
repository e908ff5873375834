"""`privity audit detect`, `trace` and `disclose`: whose copy is this, by keys fixed when?"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from audit.dispute import Repeated
    from audit.mark_evidence import Committed, Receipt
    from audit.trace import Score, Trace

_SUSPECT = Annotated[
    Path,
    typer.Argument(
        metavar="ADAPTER",
        help="PEFT folder, merged model, safetensors or GGUF file, or one stolen tensor.",
    ),
]
_BASE = Annotated[
    Path | None,
    typer.Option(metavar="MODEL", help="Folder of the public base model, for a merged model."),
]
_PUBLISHED = Annotated[
    str, typer.Option(metavar="YYYY-MM-DD", help="When the file was first seen, if that is known.")
]
_HTML = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write a one-page dossier.")
]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
_NEVER_OURS = "NO EVIDENCE never means 'not ours': distillation or much retraining erases a mark."
SMALLEST_P = 1e-300  # below it a double says 0, which no probability here is


class Half(StrEnum):
    """Which modules a half of a subkey marks."""

    even = "even"
    odd = "odd"


def detect(
    context: typer.Context,
    adapter: Annotated[
        Path | None,
        typer.Argument(
            metavar="ADAPTER",
            help="PEFT folder, merged model, safetensors or GGUF file, or one stolen tensor.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY",
            help="watermark-key.json of a run, or an institution's text key: secrets.",
        ),
    ] = None,
    base: _BASE = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE", help="Check in its log that the keys were fixed beforehand."
        ),
    ] = None,
    opening: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Half a key, opened by disclose, in place of KEY; needs --bundle."
        ),
    ] = None,
    published: _PUBLISHED = "",
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Test a text in place of an adapter; needs a text key."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Whose tokens a text is made of.")
    ] = "smollm2-135m-instruct",
    html: _HTML = None,
    as_json: _JSON = False,
) -> None:
    """Test an adapter for a release's watermark, or a text for an institution's mark.

    Example: privity audit detect suspect/ --key watermark-key.json --bundle bundle

    Example: privity audit detect --text answer.txt --key clinic-a/keys/text-mark.json

    Ends with 0 whatever the verdict: each is an answer. Ends with 4 if a key does not count.
    """
    from audit.errors import AuditError

    if (adapter is None) == (text is None) or (key is None) == (opening is None):
        raise AuditError(
            "give either an ADAPTER or --text FILE, and either --key KEY or --opening DIR",
            code="bad-option",
            exit_code=2,
        )
    if text is not None:
        if key is None:
            raise AuditError("a text is tested with --key", code="bad-option", exit_code=2)
        _detect_text(context, text, key, model, as_json)
        return
    if adapter is None:
        return
    if opening is not None:
        if bundle is None or html is not None:
            raise AuditError(
                "an opened key counts against a log only: give --bundle BUNDLE (and no --html)",
                code="bad-option",
                exit_code=2,
            )
        from audit import dispute

        repeated = dispute.repeat(adapter, opening, bundle, base=base, published=_day(published))
        _print_repeated(repeated, as_json)
        return
    if key is not None:
        from dataclasses import replace

        from audit import mark_evidence, mark_keys, trace

        keys = mark_keys.read(key)
        committed: Committed | None = None
        receipts: tuple[Receipt, ...] = ()
        logs = None if bundle is None else mark_evidence.from_bundle(bundle)
        if logs is not None:
            committed = mark_evidence.check(logs, keys, published=_day(published))
        elif published:
            raise AuditError(
                "--published is compared with the log: give --bundle BUNDLE",
                code="bad-option",
                exit_code=2,
            )
        found = trace.suspect(adapter, keys, base=base)
        if logs is not None:
            receipts = tuple(
                receipt
                for name in found.attributed
                for receipt in mark_evidence.receipts(logs, found.release, name)
            )
        _finish(replace(found, committed=committed, receipts=receipts), adapter, html, as_json)


def trace(
    adapter: _SUSPECT,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="COORDINATOR-DIR", help="The coordinator's folder.")
    ],
    base: _BASE = None,
    published: _PUBLISHED = "",
    html: _HTML = None,
    as_json: _JSON = False,
) -> None:
    """Trace a leaked adapter or model: try the committed keys of every run of a coordinator.

    Example: privity audit trace suspect/ --dir coordinator --html dossier.html

    Ends with 0 whatever the verdict, and with 4 if a key or the log does not hold.
    """
    from audit import trace as tracing

    found = tracing.coordinator(adapter, directory, base=base, published=_day(published))
    _finish(found, adapter, html, as_json)


def disclose(
    key: Annotated[
        Path, typer.Argument(metavar="KEY", help="watermark-key.json of the run; a secret.")
    ],
    recipient: Annotated[str, typer.Option(metavar="NAME", help="Whose copy it is said to be.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make, for the arbiter.")],
    half: Annotated[Half, typer.Option(help="Marks the modules of even or of odd layers.")],
    round_number: Annotated[
        int | None,
        typer.Option("--round", min=1, help="Copies made after this round; else the newest."),
    ] = None,
) -> None:
    """Open one half of one recipient's key for an arbiter; the other half stays closed.

    Example: privity audit disclose watermark-key.json --recipient clinic-a --half even --out case

    The opened half is burned: whoever sees it can remove its mark from a copy. Never open both.
    """
    from audit import dispute, mark_keys

    made = dispute.disclose(
        mark_keys.read(key),
        recipient,
        half=0 if half is Half.even else 1,
        number=round_number,
        out=out,
    )
    typer.echo(f"opened half of the key of {recipient} in {made}; its mark is burned from now on")
    typer.echo(f"next: privity audit detect ADAPTER --opening {made} --bundle BUNDLE")


def _detect_text(context: typer.Context, file: Path, key: Path, model: str, as_json: bool) -> None:
    from dataclasses import asdict

    from audit import text_mark
    from audit.errors import AuditError

    secret = text_mark.read_key(key)
    try:
        words = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise AuditError(
            f"{file} cannot be read as UTF-8 text; check the path", code="unreadable", exit_code=2
        ) from None
    found = text_mark.detect(context.obj["tokenize"](model, words.strip()), secret.key)
    if as_json:
        document: dict[str, Any] = asdict(found)
        document |= {"institution": secret.institution, "key_id": secret.id, "marked": found.marked}
        typer.echo(json.dumps(document))
        return
    verdict = "MARKED" if found.marked else "NO EVIDENCE"
    typer.echo(f"verdict: {verdict}")
    typer.echo(f"institution: {secret.institution} (key {secret.id})")
    typer.echo(f"tokens: {found.tokens}, of which {found.tested} were tested")
    typer.echo(
        f"p: 10^{found.log10_p:.2f}, exact, for text that has nothing to do with this key; "
        f"from {text_mark.SIGNIFICANT:g} on a text counts as marked"
    )
    typer.echo(
        "A mark shows that a gateway with this key wrote the text, not that a model was stolen. "
        "Short, fixed or paraphrased text and temperature 0 carry none."
    )


def _finish(found: Trace, artefact: Path, html: Path | None, as_json: bool) -> None:
    if html is not None:
        _write_page(found, artefact, html)
    if as_json:
        typer.echo(json.dumps({**found.to_json(), "smallest_p_value": SMALLEST_P}))
    else:
        _print_trace(found)
        if html is not None:
            typer.echo(f"dossier: {html}")


def _write_page(found: Trace, artefact: Path, html: Path) -> None:
    from audit import digests, dossier
    from audit.errors import AuditError

    folder = artefact.is_dir()
    digest = digests.folder_digest(artefact) if folder else digests.file_digest(artefact)
    text = dossier.page(
        found,
        artefact=artefact.resolve().name,
        digest=digest,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    try:
        # Names recipients in a dispute: for its owner's eyes first.
        descriptor = os.open(html, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise AuditError(
            f"{html} cannot be written ({error.strerror}); choose another place",
            code="unwritable",
            exit_code=2,
        ) from None


def _print_trace(found: Trace) -> None:
    typer.echo(f"verdict: {found.verdict}")
    if found.attributed:
        typer.echo(f"copy of: {', '.join(found.attributed)}")
    typer.echo(f"release: {found.release}")
    if found.round:
        typer.echo(f"copies made after round: {found.round}")
    if found.explained is not None:
        typer.echo(f"registered to the base: {found.explained:.1%} of its embeddings explained")
    for label, score in (("owner", found.owner), *((s.name, s) for s in found.recipients)):
        typer.echo(f"key of {label}: {_score(score)}")
    typer.echo(
        f"tests: {found.tests}; 'chance' is the bound times their number, for keys that have "
        "nothing to do with the file"
    )
    if found.committed is None:
        typer.echo("commitment: not checked; give --bundle, or trace with --dir")
    else:
        _print_committed(found.committed, found.receipts)
    if found.ignored:
        typer.echo(f"not looked at: {found.ignored} tensors that carry no mark")
    typer.echo(_NEVER_OURS)


def _print_committed(made: Committed, receipts: tuple[Receipt, ...]) -> None:
    typer.echo(
        f"commitment: {made.time:%Y-%m-%d %H:%M:%SZ}, entry {made.index}; inclusion proof of "
        f"{len(made.proof)} hashes to root {made.root[:16]}… of {made.size} entries holds; "
        f"cosigned by {', '.join(made.witnesses) or 'nobody'}; reference, basis and table are "
        "those of the log"
    )
    if not made.same_detector:
        typer.echo("detector: another version of the code than was committed to; both are public")
    for receipt in receipts:
        typer.echo(
            f"receipt: {receipt.recipient} signed for its copy of {receipt.what} at "
            f"{receipt.time:%Y-%m-%d %H:%M:%SZ}, entry {receipt.index} of its log"
        )


def _print_repeated(found: Repeated, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        from audit.trace import plain

        typer.echo(json.dumps(plain(asdict(found))))
        return
    detection = found.detection
    typer.echo(f"verdict: {found.verdict}")
    half = "odd" if found.half else "even"
    typer.echo(
        f"key of {found.recipient}, {half} layers only: z {detection.z:.2f}, "
        f"bound {tiny(detection.bound)}, chance {tiny(found.corrected)} over {found.tests} tests"
    )
    typer.echo(f"release: {found.release}")
    _print_committed(found.committed, found.receipts)
    typer.echo(_NEVER_OURS)


def _score(score: Score) -> str:
    found = score.detection
    return (
        f"z {found.z:.2f} ({found.variant}), p {tiny(found.p_value)}, bound {tiny(found.bound)}, "
        f"chance {tiny(score.corrected)}"
    )


def tiny(value: float) -> str:
    """A probability that is never printed as zero."""
    return f"{value:.3g}" if value > SMALLEST_P else f"<= {SMALLEST_P:g}"


def _day(text: str) -> datetime | None:
    from audit.errors import AuditError

    if not text:
        return None
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        raise AuditError(
            "--published takes a day such as 2026-11-02", code="bad-option", exit_code=2
        ) from None
    return day if day.tzinfo is not None else day.replace(tzinfo=UTC)
