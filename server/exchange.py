"""Store-and-forward: a run's questions and answers as files, which people carry."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit import digests, note
from audit.errors import AuditError
from audit.keys import PublicKeys
from configs import files
from privacy import parcel
from privacy.errors import PrivacyError
from privacy.parcel import Facts, ParcelInvalid
from server.box import Box
from server.errors import ServerError
from server.mirror import Mirror
from server.store import Folder


@dataclass(frozen=True, slots=True)
class Carried:
    """A file that was written or taken: for whom or of whom, about what."""

    site: str
    run: str
    kind: str
    round: int
    path: Path


def export(folder: Folder, run: str, *, site: str | None, out: Path) -> Carried:
    """Write the question that waits for a site to `out`.

    Args:
        folder: the coordinator.
        run: a run whose `privity server run` has come to a site that is not connected.
        site: which one, if several wait.
        out: the file; never overwritten.

    Raises:
        ServerError: nothing waits to be carried, or several sites wait and none was named.
    """
    box = box_of(folder, run)
    waiting = sorted(box.left())
    if site is None and len(waiting) > 1:
        raise ServerError(
            f"{', '.join(waiting)} wait for a file; name one with --site", code="which-site"
        )
    name = site or (waiting[0] if waiting else "")
    asked = box.question(name) if name in waiting else None
    if asked is None:
        raise ServerError(
            f"run {run} has no question for {site or 'any site'} now; it has one while "
            "privity server run waits for a site that is not connected",
            code="nothing-to-carry",
            exit_code=3,
        )
    if out.exists():
        raise ServerError(f"{out} exists; choose another file", code="file-exists")
    data = box.outgoing(name).read_bytes()
    files.replace(out, data, mode=files.PRIVATE)
    _record(folder, "out", "written", "none", digests.file_digest(out), name)
    return Carried(name, asked.run, asked.kind, asked.round, out)


def take(folder: Folder, file: Path) -> Carried:
    """Hand a brought answer to its run, which checks it like one that came over the network.

    Raises:
        ServerError, ParcelInvalid: it is not the answer to a question that is out; the log says so,
            with the code.
    """
    try:
        if file.stat().st_size > parcel.LIMIT_BYTES:
            raise ParcelInvalid("the file is too large to be an answer; check which file it is")
        data = file.read_bytes()
    except OSError:
        raise ServerError(f"{file} cannot be read; check the path", code="no-file") from None
    digest = digests.file_digest(file)
    claimed: list[str] = []
    try:
        brought = parcel.read(data, check=_checker(folder, claimed))
        place = _place(folder, brought.facts)
    except (PrivacyError, ServerError) as refusal:
        _record(folder, "in", "refused", refusal.code, digest, claimed[0] if claimed else None)
        raise
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.replace(place, data, mode=files.PRIVATE)
    facts = brought.facts
    _record(folder, "in", "taken", facts.failure or "none", digest, facts.site)
    return Carried(facts.site, facts.run, facts.kind, facts.round, file)


def box_of(folder: Folder, run: str) -> Box:
    """The box of one run.

    Raises:
        ServerError: there is no such run.
    """
    path = folder.run(run)
    if not (path / "state.json").exists():
        raise ServerError(f"{path} holds no run; see privity server status", code="wrong-run")
    return Box(path, folder.keys())


def _checker(folder: Folder, claimed: list[str]) -> Callable[[Facts, bytes, bytes], None]:
    enrolled = folder.enrolled()

    def check(facts: Facts, signed: bytes, signature: bytes) -> None:
        if facts.direction != "up":
            raise ParcelInvalid(
                "the file is a question, not an answer; the site answers it with "
                "privity client answer",
                code="wrong-direction",
            )
        site = enrolled.get(facts.site)
        if site is None:
            raise ParcelInvalid("the file is from a site that is not enrolled", code="wrong-site")
        try:
            keys = _keys_of(folder.mirror_of(site), facts)
            public = Ed25519PublicKey.from_public_bytes(note.parse_key(keys.event).public)
            public.verify(signature, signed)
        except InvalidSignature:
            raise ParcelInvalid(
                f"{facts.site} did not sign this file; ask the site for it again",
                code="wrong-site",
            ) from None
        claimed.append(facts.site)

    return check


def _keys_of(mirror: Mirror, facts: Facts) -> PublicKeys:
    """A site's keys; one that rotated them since says so in the entries that its answer brings."""
    try:
        entries = json.loads(facts.header or "{}").get("entries", [])
        return mirror.keys_after([str(text) for text in entries])
    except (AuditError, ServerError, ValueError, TypeError, AttributeError):
        return mirror.keys()


def _place(folder: Folder, facts: Facts) -> Path:
    """Where the answer belongs, if it answers the question that is out."""
    box = box_of(folder, facts.run)
    asked = box.question(facts.site)
    if asked is None or box.incoming(facts.site).exists():
        raise ServerError(
            f"run {facts.run} has no open question to {facts.site}: the answer came before, or its "
            "round is over",
            code="not-asked",
            exit_code=3,
        )
    if facts.round != asked.round:
        raise ServerError(
            f"the file answers another round than run {facts.run} is in", code="wrong-round",
            exit_code=3,
        )  # fmt: skip
    if facts.exchange != asked.exchange:
        raise ServerError(
            f"the file answers an earlier question to {facts.site}; export the newest again",
            code="replayed",
            exit_code=3,
        )
    return box.incoming(facts.site)


def _record(
    folder: Folder, direction: str, verdict: str, code: str, digest: str, site: str | None
) -> None:
    fields = {"direction": direction, "verdict": verdict, "code": code, "file_digest": digest}
    folder.log().append("exchange", fields | ({"institution": site} if site else {}))
