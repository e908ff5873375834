"""Time-stamps in a bundle: which checkpoint an authority saw, and when by its clock.

A stamp is optional. Its checkpoint must be one of the log's own in any case. The token itself is
checked under roots that the verifier's user trusts; without them nothing is said of its time.
"""

from __future__ import annotations

import re
from pathlib import Path

from audit import bundle as bundles
from audit import note
from audit.bundle import Bundle
from audit.errors import AuditError
from audit.evidence import Collector, Evidence, LogView
from audit.findings import StampFinding

_NAME = re.compile(rf"{bundles.STAMPS}/([A-Za-z0-9._-]{{1,63}})/(0|[1-9][0-9]{{0,14}})\.tsr")
_MOST_BYTES = 1 << 20


def expected(bundle: Bundle) -> set[str]:
    """The files of every stamp that the manifest lists: a token, and the checkpoint beside it."""
    parties = {bundle.coordinator.keys.name, *bundle.sites}
    names = [name for name in bundle.files if (m := _NAME.fullmatch(name)) and m[1] in parties]
    return {*names, *(f"{name.removesuffix('.tsr')}.checkpoint" for name in names)}


def check(
    bundle: Bundle, evidence: Evidence, found: Collector, *, roots: Path | None
) -> tuple[StampFinding, ...]:
    """Check the stamps of a bundle.

    Args:
        bundle: the bundle.
        evidence: its content.
        found: takes the faults.
        roots: PEM file of the roots that are trusted for time-stamps; None checks no token.

    Raises:
        AuditError: exit code 2; the roots cannot be read, or checking needs the extra `timestamp`.
    """
    logs = {log.keys.name: log for log in (evidence.coordinator, *evidence.sites.values())}
    stamps = []
    for name in sorted(expected(bundle)):
        form = _NAME.fullmatch(name)
        if form is None or form[1] not in logs:
            continue
        try:
            stamps.append(_check(bundle, name, logs[form[1]], int(form[2]), roots))
        except AuditError as error:
            if error.exit_code == 2 and error.code in ("no-file", "no-rfc3161"):
                raise
            found.add("bytes", error.code, name, str(error))
    return tuple(sorted(stamps, key=lambda stamp: (stamp.name, stamp.size)))


def _check(bundle: Bundle, name: str, log: LogView, size: int, roots: Path | None) -> StampFinding:
    beside = f"{name.removesuffix('.tsr')}.checkpoint"
    token = bundles.load(bundle.path, name, most=_MOST_BYTES)
    data = bundles.load(bundle.path, beside, most=note.MAX_NOTE_BYTES)
    stated = _open(data, log)
    within = stated.size == size <= log.checkpoint.size
    if not within or log.tree.root(size) != stated.root:
        raise AuditError(
            f"the stamped checkpoint is not of this history of {log.keys.name}",
            code="stamp-differs",
        )
    if roots is None:
        return StampFinding(log.keys.name, size, None)
    from audit import timestamp

    time = timestamp.check(token, data, roots).time
    return StampFinding(log.keys.name, size, time.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _open(data: bytes, log: LogView) -> note.Checkpoint:
    """Read the checkpoint; a log key that was ever in force must have signed it."""
    for keys in log.everyone():
        try:
            return note.open_checkpoint(
                data, key=note.parse_key(keys.log), origin=log.checkpoint.origin
            )
        except AuditError:
            continue
    raise AuditError(
        f"the stamped checkpoint is not signed by {log.keys.name}", code="stamp-differs"
    )
