"""What a log says about a key: committed to when, under which head, and who signed for the copy.

A score is evidence only against a key and an unmarked reference that were fixed beforehand. A key
that the log does not know, that is not bound to the log's head, or that is younger than the
artefact is refused here, with its reason, before anything is said about the artefact. So is a
reference or a basis that the log does not hold: whoever may choose it can make any file answer to
any key, by subtracting the key's chips from the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from audit import bundle as bundles
from audit import chips, merkle, note, verify_bytes, verify_log, watermark
from audit import keys as party_keys
from audit.bundle import Bundle, Source
from audit.errors import AuditError
from audit.evidence import Collector, LogView
from audit.keys import PublicKeys
from audit.mark_keys import Keys

OWNER_ROW = "owner"
# kind of entry -> its field with the digest of an unmarked adapter
_REFERENCES = {"broadcast-marked": "input_adapter", "watermark-committed": "reference_digest"}


@dataclass(frozen=True, slots=True)
class Committed:
    """The entry that committed to a run's keys, and its RFC 6962 inclusion proof.

    Attributes:
        run: the run.
        index: the entry's number, counted from 0.
        time: when the coordinator's clock says it was logged.
        leaf: its leaf hash.
        size: of the log whose root the proof leads to.
        root: that root, signed in the log's checkpoint.
        proof: inclusion proof, leaf upwards; it was checked.
        witnesses: who cosigned that checkpoint.
        commitments: recipient (`owner` for the common key) -> commitment.
        strength: as committed to.
        same_detector: whether the code that tests is the code that was committed to, byte for
            byte; a later version of it may be as good, and is public.
    """

    run: str
    index: int
    time: datetime
    leaf: str
    size: int
    root: str
    proof: tuple[str, ...]
    witnesses: tuple[str, ...]
    commitments: dict[str, str]
    strength: str
    same_detector: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """One entry in which a recipient signed for the digest of its copy."""

    recipient: str
    what: str
    index: int
    time: datetime
    digest: str


@dataclass(frozen=True, slots=True)
class Logs:
    """The coordinator's log and the sites' logs, read and checked."""

    coordinator: LogView
    sites: dict[str, LogView]


def from_bundle(path: Path) -> Logs:
    """The logs of a bundle.

    Raises:
        AuditError: a byte of a log is not what its party signed.
    """
    found = Collector()
    evidence = verify_bytes.check(bundles.read(path), found, trust={}, against=None)
    _refuse(found)
    if evidence is None:
        raise AuditError(f"{path} holds no readable log; fetch it again", code="unreadable")
    return Logs(evidence.coordinator, dict(evidence.sites))


def from_coordinator(path: Path) -> Logs:
    """The logs in a coordinator's folder: its own, and its mirrors of the sites'.

    Raises:
        AuditError: there is no log, or a byte of one is not what its party signed.
    """
    if not (path / "log" / bundles.CHECKPOINT).is_file():
        raise AuditError(
            f"{path} is no coordinator's folder with a log; check the path",
            code="no-log",
            exit_code=2,
        )
    found = Collector()
    own = _read(path, "log", party_keys.load(path / "keys").public(), found)
    sites = {}
    for event in own.events:
        name = event.fields.get("name", "")
        if event.kind == "institution-joined" and (path / "mirrors" / name / "checkpoint").exists():
            known = PublicKeys.from_json(event.fields["keys"])
            sites[name] = _read(path, f"mirrors/{name}", known, found)
    _refuse(found)
    return Logs(own, sites)


def check(logs: Logs, keys: Keys, *, published: datetime | None = None) -> Committed:
    """Check that every key was committed to before it was used, and bound to the log's head.

    Args:
        logs: from `from_bundle` or `from_coordinator`.
        keys: the keys that are to be tried.
        published: when the artefact was first seen, if that is known.

    Raises:
        AuditError: with code `key-uncommitted`, `key-unbound` or `artefact-older`: the log does
            not know a key, it is not bound to the head before its commitment, or the artefact was
            seen before it; with `reference-uncommitted`: the unmarked adapter, its basis or the
            table of chips is another than the log holds.
    """
    committed = commitment_of(logs, keys.release)
    for key in keys.all:
        name = key.name or OWNER_ROW
        if committed.commitments.get(name) != key.commitment:
            raise AuditError(
                f"the key for {name} was not committed to in the log, so it may have been made to "
                "fit the artefact; only the key file of the run counts",
                code="key-uncommitted",
            )
    root = "sha256:" + logs.coordinator.tree.root(committed.index).hex()
    if (keys.tree_size, keys.tree_root) != (committed.index, root):
        raise AuditError(
            "the keys are not bound to the head of the log right before their commitment, so they "
            "may have been chosen; they count for nothing",
            code="key-unbound",
        )
    check_age(committed, published)
    _check_material(logs, keys)
    return committed


def check_half(logs: Logs, run: str, half: int, digest: str) -> None:
    """Check that one half of an unmarked reference is what the log holds the digest of.

    Raises:
        AuditError: with code `reference-uncommitted`: it is not.
    """
    known = {
        halves[half]
        for kind in _REFERENCES
        for _, event in logs.coordinator.of(kind, run)
        if len(halves := event.fields.get("reference_halves", ())) == len(chips.HALVES)
    }
    if digest not in known:
        raise _uncommitted("the unmarked reference that was opened")


def _check_material(logs: Logs, keys: Keys) -> None:
    ((_, fixed),) = logs.coordinator.of("watermark-keys", keys.release)
    if watermark.basis_digest(keys.basis()) != fixed.fields["basis_digest"]:
        raise _uncommitted("the basis beside the keys")
    if chips.table_digest() != fixed.fields["table_digest"]:
        raise _uncommitted("the table of chips of this version")
    known = {
        event.fields[name]
        for kind, name in (*_REFERENCES.items(), ("aggregation", "output_adapter"))
        for _, event in logs.coordinator.of(kind, keys.release)
    }
    known |= {
        event.fields["product_digest"]
        for _, event in logs.coordinator.of("watermark-committed", keys.release)
        if "product_digest" in event.fields
    }
    for number, digest in keys.reference_digests().items():
        if digest not in known:
            raise _uncommitted(f"the unmarked reference of round {number}")


def _uncommitted(what: str) -> AuditError:
    return AuditError(
        f"{what} is not what the log holds, so it may have been made to fit the artefact; only "
        "the files of the run count",
        code="reference-uncommitted",
    )


def check_age(committed: Committed, published: datetime | None) -> None:
    """Refuse an artefact that is older than the commitment.

    Raises:
        AuditError: it is; a key can be ground until it fits what is already known.
    """
    if published is not None and not published > committed.time:
        raise AuditError(
            f"the artefact was seen on {published:%Y-%m-%d} and the keys were committed to on "
            f"{committed.time:%Y-%m-%d}: a key can be ground until it fits what is known already",
            code="artefact-older",
        )


def check_derived(keys: Keys, master: bytes, origin: str) -> None:
    """Check that every subkey follows from the master key and the head: none was chosen.

    Raises:
        AuditError: with code `key-ground`: one does not.
    """
    for key in keys.all:
        made = chips.derive(
            master, origin=origin, size=keys.tree_size, root=keys.tree_root,
            release=keys.release, recipient=key.name,
        )  # fmt: skip
        if made != key.subkey:
            raise AuditError(
                f"the key for {key.name or OWNER_ROW} does not follow from the master key and the "
                "log's head, so it may have been ground; it counts for nothing",
                code="key-ground",
            )


def commitment_of(logs: Logs, run: str) -> Committed:
    """The entry that committed to a run's keys.

    Raises:
        AuditError: there is not exactly one.
    """
    log = logs.coordinator
    entries = list(log.of("watermark-keys", run))
    if len(entries) != 1:
        raise AuditError(
            f"the log has {len(entries)} commitments to watermark keys of run {run} and needs "
            "one; without it no key counts",
            code="key-uncommitted",
        )
    index, event = entries[0]
    size, leaf = log.checkpoint.size, log.tree.leaf(index)
    proof = log.tree.inclusion(index, size)
    merkle.check_inclusion(leaf, index, size, proof, log.checkpoint.root)
    return Committed(
        run=run,
        index=index,
        time=event.time,
        leaf=leaf.hex(),
        size=size,
        root=log.checkpoint.root.hex(),
        proof=tuple(item.hex() for item in proof),
        witnesses=tuple(sorted(log.cosigned_by)),
        commitments={r["recipient"]: r["commitment"] for r in event.fields["commitments"]},
        strength=event.fields["strength"],
        same_detector=event.fields["detector_digest"] == watermark.detector_digest(),
    )


def receipts(logs: Logs, run: str, recipient: str) -> tuple[Receipt, ...]:
    """What a recipient signed for: the copies of the rounds it trained from, and the release's."""
    site = logs.sites.get(recipient)
    if site is None:
        return ()
    made: dict[str, str] = {}
    for kind, what in (("broadcast-marked", "round"), ("watermark-embedded", "release")):
        for _, event in logs.coordinator.of(kind, run):
            for copy in event.fields["copies"]:
                if copy["recipient"] == recipient:
                    at = f" {(event.round or 0) + 1}" if what == "round" else ""
                    made[copy["adapter_digest"]] = f"{what}{at}"
    signed = []
    for kind, field in (("dp-training", "input_digest"), ("release-received", "release_digest")):
        for index, event in site.of(kind, run):
            digest = str(event.fields[field])
            if digest in made:
                signed.append(Receipt(recipient, made[digest], index, event.time, digest))
    return tuple(signed)


def _read(path: Path, where: str, keys: PublicKeys, found: Collector) -> LogView:
    source = Source(path / where, keys)
    files = dict.fromkeys(bundles.walk(path / where), "")
    view = Bundle(path=path, run="", coordinator=source, sites={}, files=files, digest="")
    log = verify_log.read(view, where, source, _witnesses(path), found)
    if log is None:
        _refuse(found)
        raise AuditError(f"the log in {path / where} cannot be read", code="unreadable")
    return log


def _witnesses(path: Path) -> list[note.VerifierKey]:
    import json

    found = []
    for folder in ("enrolled", "revoked"):
        for file in sorted((path / folder).glob("*.json")):
            try:
                values: Any = json.loads(file.read_bytes())
                found.append(note.parse_key(PublicKeys.from_json(values["keys"]).witness))
            except (OSError, ValueError, KeyError, TypeError, AuditError):
                continue
    found.append(note.parse_key(party_keys.load(path / "keys").public().witness))
    return found


def _refuse(found: Collector) -> None:
    for fault in found.faults:
        raise AuditError(
            f"the log is not what was signed: {fault.where}: {fault.sentence}", code=fault.code
        )
