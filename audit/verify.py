"""Verify a bundle offline: bytes, then completeness, then meaning.

Uses nothing that writes logs. Every check adds a fault with a name and a place, and none stops the
others of its layer, so one reading lists all that is damaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from audit import bundle as bundles
from audit import (
    verify_bytes,
    verify_completeness,
    verify_conduct,
    verify_meaning,
    verify_officer,
    verify_stamps,
)
from audit.errors import AuditError
from audit.evidence import Collector, Evidence, Recompute
from audit.findings import Findings, ReleaseFinding, Signer, StampFinding


def verify(
    bundle: Path,
    *,
    recompute: Recompute,
    against: str | None = None,
    trust: Mapping[str, str] | None = None,
    every: bool = False,
    tsa_roots: Path | None = None,
) -> Findings:
    """Verify a bundle.

    Args:
        bundle: the bundle's folder.
        recompute: epsilon of mechanisms `(noise_multiplier, sample_rate, steps)` at a delta; the
            caller's accountant, so that this package needs none.
        against: an earlier signed checkpoint of any log in the bundle, which that log must extend.
        trust: log keys (vkeys) by party name that came to the caller by another way. Keys of
            parties not named here are only stated by the bundle, and the findings say so.
        every: check each entry's own signature in logs of any length (`audit.reading` says what is
            checked otherwise).
        tsa_roots: PEM file of the roots that the caller trusts for time-stamps; without it the
            tokens of a bundle are not checked, and the findings say so.

    Returns:
        The findings; a bad bundle is never an exception.

    Raises:
        AuditError: there is no bundle at that place, or the roots cannot be used (exit code 2).
    """
    collector = Collector()
    try:
        opened = bundles.read(bundle)
    except AuditError as error:
        if error.exit_code == 2:
            raise
        collector.add("bytes", error.code, bundles.MANIFEST, str(error))
        return _findings(None, None, collector, None)
    evidence = verify_bytes.check(
        opened, collector, trust=trust or {}, against=against, every=every
    )
    stamps: tuple[StampFinding, ...] = ()
    if evidence is not None:
        stamps = verify_stamps.check(opened, evidence, collector, roots=tsa_roots)
    if evidence is None or collector.has("bytes"):
        return _findings(opened, evidence, collector, None, trust=trust)
    verify_completeness.check(evidence, collector)
    verify_officer.check(evidence, collector)
    verify_conduct.check(evidence, collector)
    meaning = verify_meaning.check(evidence, collector, recompute=recompute)
    return replace(_findings(opened, evidence, collector, meaning, trust=trust), stamps=stamps)


def _findings(
    opened: bundles.Bundle | None,
    evidence: Evidence | None,
    collector: Collector,
    meaning: verify_meaning.Meaning | None,
    *,
    trust: Mapping[str, str] | None = None,
) -> Findings:
    intact = not collector.has("bytes")
    release: ReleaseFinding | None = None if meaning is None else meaning.release
    return Findings(
        run=None if opened is None else opened.run,
        bundle_digest=None if opened is None else opened.digest,
        intact=intact,
        complete=meaning is not None and not collector.has("completeness"),
        consistent=meaning is not None and not collector.has("meaning"),
        faults=tuple(collector.faults),
        notices=tuple(collector.notices),
        signers=() if evidence is None else tuple(_signers(evidence, trust or {})),
        institutions=() if meaning is None else meaning.institutions,
        release=release,
        rounds=0 if meaning is None else meaning.rounds,
        quorum=None if evidence is None else evidence.quorum,
    )


def _signers(evidence: Evidence, trust: Mapping[str, str]) -> list[Signer]:
    return [
        Signer(
            name=log.keys.name,
            role="coordinator" if log is evidence.coordinator else "institution",
            fingerprint=log.keys.fingerprint,
            pinned=trust.get(log.keys.name) in [keys.log for keys in log.everyone()],
            size=log.checkpoint.size,
            root="sha256:" + log.checkpoint.root.hex(),
            cosigned_by=log.cosigned_by,
        )
        for log in (evidence.coordinator, *evidence.sites.values())
    ]
