"""Store-and-forward at the institution: a question that came as a file, answered with a file.

The same tasks, the same gate, the same ledger and log as over the network; only the way differs.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit import digests, note, witness
from audit.errors import AuditError
from client import border, succession
from client.errors import ClientError
from client.folder import Folder, Invitation
from configs import files
from privacy import parcel
from privacy.errors import EgressDenied, PrivacyError
from privacy.parcel import Facts, Parcel, ParcelInvalid
from privacy.wire import Handover, Message

log = logging.getLogger("privity.exchange")

_ANSWERS = {"propose": "answer", "round": "update", "close": "closed"}


@dataclass(frozen=True, slots=True)
class Answered:
    """What was asked, what was said, and whether it is the answer given before.

    Attributes:
        failure: the fixed word that leaves instead of an answer, or empty.
    """

    run: str
    kind: str
    round: int
    failure: str
    repeated: bool


def answer(folder: Folder, file: Path, *, out: Path) -> Answered:
    """Answer the question in `file` into `out`.

    Guarantees: nothing is written to `out` but what the gate cleared, or a word of the closed list;
        asked the same question again, the same bytes are written and nothing is spent.

    Raises:
        ParcelInvalid, ClientError: the file is no question to this institution by the coordinator
            of its invitation; the log says so, with the code.
    """
    if out.exists():
        raise ClientError(f"{out} exists; choose another file", code="file-exists")
    invitation = folder.invitation()
    with folder.lock():
        asked, digest = _read(folder, invitation, file)
        facts = asked.facts
        kept = folder.path / "exchange" / f"{facts.exchange}.safetensors"
        repeated = kept.exists()
        if repeated:
            data = kept.read_bytes()
            failure = parcel.read(data, check=lambda *_: None).facts.failure
        else:
            try:
                message, failure = _answer(folder, asked)
            except ClientError as refusal:
                _record(folder, "in", "refused", refusal.code, digest)
                raise
            data = parcel.write(
                message,
                sign=folder.keys().event.sign,
                direction="up",
                exchange=facts.exchange,
                site=folder.settings.name,
                run=facts.run,
                round=facts.round,
                failure=failure,
            )
            kept.parent.mkdir(mode=0o700, exist_ok=True)
            files.replace(kept, data, mode=files.PRIVATE)
            _record(folder, "in", "taken", failure or "none", digest)
        files.replace(out, data, mode=files.PRIVATE)
        if not repeated:
            _record(folder, "out", "written", failure or "none", digests.file_digest(out))
    return Answered(facts.run, facts.kind, facts.round, failure, repeated)


def _read(folder: Folder, invitation: Invitation, file: Path) -> tuple[Parcel, str]:
    try:
        if file.stat().st_size > parcel.LIMIT_BYTES:
            raise ParcelInvalid("the file is too large to be a question; check which file it is")
        data = file.read_bytes()
    except OSError:
        raise ClientError(f"{file} cannot be read; check the path", code="no-file") from None
    digest = digests.file_digest(file)

    def check(facts: Facts, signed: bytes, signature: bytes) -> None:
        if facts.direction != "down":
            raise ParcelInvalid(
                "the file is an answer; the coordinator takes it with privity server import",
                code="wrong-direction",
            )
        try:
            # The rotations that a question brings are under the signature that they may bring too;
            # each is signed by the keys before it, and answering checks that the log has it.
            offered = json.loads(facts.header or "{}").get("handovers", [])
            handovers = [Handover.model_validate(item) for item in offered]
            keys = succession.offered(folder, invitation, handovers)
            public = Ed25519PublicKey.from_public_bytes(note.parse_key(keys.event).public)
            public.verify(signature, signed)
        except (InvalidSignature, AuditError, ValueError, TypeError, AttributeError):
            raise ParcelInvalid(
                "the coordinator of the invitation did not sign this file; ask it again",
                code="wrong-coordinator",
            ) from None
        if facts.site != folder.settings.name:
            raise ParcelInvalid(
                f"the file is for {facts.site}, and this is {folder.settings.name}",
                code="wrong-site",
            )

    try:
        return parcel.read(data, check=check), digest
    except PrivacyError as refusal:
        _record(folder, "in", "refused", refusal.code, digest)
        raise


def _answer(folder: Folder, asked: Parcel) -> tuple[Message | None, str]:
    """The cleared answer, or the word that leaves in its place."""
    from client import gate, runner
    from client.cell import Cell
    from client.tasks import Tasks

    _check_newest(folder, asked)
    trainer = Cell(folder)
    try:
        if asked.message is None or asked.message.kind not in _ANSWERS:
            raise EgressDenied("a question of an unknown kind came in")
        given = Tasks(folder, trainer).answer(asked.message)
    except Exception as fault:
        known = getattr(fault, "exit_code", None) is not None
        log.error("%s", fault if known else f"unforeseen {type(fault).__name__}")
        return None, str(runner.error_for(fault).reason)
    finally:
        trainer.stop()
    try:
        if border.clear(folder, given) is not None:
            gate.state_verdict(folder, "cleared", "none", given)
            given = border.with_verdict(folder, given)
    except (EgressDenied, AuditError) as refusal:
        gate.state_verdict(folder, "denied", refusal.code, given)
        return None, "refused-by-gate"
    return given, ""


def _check_newest(folder: Folder, asked: Parcel) -> None:
    """Check that no later question was answered: files may arrive in any order, or again.

    Raises:
        ClientError: one was. What it shows of the coordinator's log is no fork, only old.
    """
    header = json.loads(asked.message.header) if asked.message else {}
    stated = witness.parse_request(str(header["witness"]).encode())
    shown = note.parse_checkpoint(note.parse(stated.checkpoint)).size
    size, _ = folder.witness().last(folder.invitation().origin) or (0, b"")
    if shown < size or (stated.old_size != size and asked.facts.kind != "propose"):
        raise ClientError(
            "the question is older than one that was answered since; ask the coordinator to export "
            "it again",
            code="stale-request",
            exit_code=3,
        )


def _record(folder: Folder, direction: str, verdict: str, code: str, digest: str) -> None:
    folder.log().append(
        "exchange",
        {"direction": direction, "verdict": verdict, "code": code, "file_digest": digest},
    )
