"""The entries of a bundle's logs, to be read by a person: which there are and what each says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit import bundle as bundles
from audit import dsse, merkle, note, tiles, verify_bytes
from audit.canonical import JSON
from audit.errors import AuditError
from audit.events import Event
from audit.evidence import Collector, Evidence, LogView
from audit.findings import Fault

# What of each kind fits a line; digests stay in the full statement.
_FACTS: Mapping[str, tuple[str, ...]] = {
    "log-started": ("origin", "software"),
    "approval": ("decision", "by"),
    "pii-scrub": ("profile",),
    "scrub-review": ("reviewer", "sampled", "accepted", "missed", "damaged", "miss_bound"),
    "withdrawal": (),
    "budget-reserved": ("epsilon_before", "epsilon_after", "cap", "delta", "steps", "rounds"),
    "dp-training": ("noise_multiplier", "sample_rate", "steps", "clip_norm", "unit", "adjacency"),
    "egress": ("verdict", "code"),
    "node-key-renewed": (),
    "release-received": ("release_digest",),
    "request-refused": ("request", "word"),
    "trainer-started": ("network",),
    "access-refused": ("interface",),
    "privacy-audit": ("verdict", "effort", "epsilon", "delta"),
    "serving": ("state", "condition", "engine", "input_policy", "output_policy"),
    "institution-joined": ("name",),
    "institution-revoked": ("name",),
    "institution-renewed": ("name",),
    "run-started": ("institutions", "quorum"),
    "update-accepted": ("institution", "update_digest"),
    "update-rejected": ("institution", "reason"),
    "aggregation": ("method", "output_adapter"),
    "round-closed": ("accepted", "rejected", "absent"),
    "watermark-keys": ("tree_size", "strength"),
    "broadcast-marked": ("input_adapter",),
    "watermark-committed": ("strength",),
    "watermark-embedded": (),
    "evaluation": ("data", "records"),
    "release": ("adapter_digest",),
    "public-loss": ("loss",),
    "run-finished": ("outcome", "rounds", "participants"),
    "verifier-run": ("verdict",),
    "review-signoff": ("log", "first", "last", "decision", "verdict"),
    "exchange": ("direction", "verdict", "code"),
    "key-rotated": ("reason",),
    "key-revoked": ("size", "reason"),
    "serving-access": ("route", "outcome", "requests"),
    "config-changed": ("subject", "after_commitment", "keys"),
    "export": ("form", "entries"),
    "incident": ("code", "severity", "state", "opened", "reference"),
    "clock-anomaly": ("before", "seen"),
    "witness-refused": ("origin", "reason"),
    "disclosure-erased": ("reason",),
    "retention-pruned": ("retention", "before", "disclosures", "files", "rows"),
}
_DIGEST_SHOWN = 19  # "sha256:" and 12 digits


@dataclass(frozen=True, slots=True)
class Entry:
    """One readable entry: whose log, its place there, and what it says."""

    name: str
    index: int
    event: Event

    @property
    def facts(self) -> str:
        """The fields that matter most, `name=value` separated by spaces."""
        shown = _FACTS.get(self.event.kind, ())
        fields = self.event.fields
        return " ".join(f"{name}={_short(fields[name])}" for name in shown if name in fields)

    @property
    def problem(self) -> str:
        """What went wrong according to the entry itself; empty if nothing did."""
        kind, fields = self.event.kind, self.event.fields
        if kind == "approval" and fields["decision"] != "approved":
            return f"the run was refused by {fields['by']}"
        if kind == "egress" and fields["verdict"] != "cleared":
            return f"the gate let nothing out: {fields['code']}"
        if kind == "request-refused":
            return f"a request was refused: {fields['request']}, {fields['word']}"
        if kind == "trainer-started" and fields["network"] != "none":
            return "the trainer had the network"
        if kind == "access-refused":
            return f"somebody was refused at the {fields['interface']} interface"
        if kind == "privacy-audit" and fields["verdict"] != "passed":
            return f"the audit of the software ended: {fields['verdict']}"
        if kind == "scrub-review" and fields["missed"]:
            return f"a reviewer found identifiers left in {fields['missed']} records"
        if kind == "serving" and fields["state"] == "rolled-back":
            return "a release on trial was rolled back"
        if kind == "serving" and fields["condition"] == "failing":
            return "the service failed in this period"
        if kind == "update-rejected":
            return f"the update of {fields['institution']} was rejected: {fields['reason']}"
        if kind == "round-closed":
            groups = ((word, fields[word]) for word in ("rejected", "absent"))
            return "; ".join(f"{word}: {', '.join(names)}" for word, names in groups if names)
        if kind == "institution-revoked":
            return f"{fields['name']} was shut out"
        if kind == "run-finished" and fields["outcome"] not in ("completed", "stopped"):
            return f"the run ended: {fields['outcome']}"
        if kind == "verifier-run" and fields["verdict"] != "ok":
            return "a verifier found faults"
        if kind == "incident" and fields["state"] == "opened":
            return f"an incident of severity {fields['severity']}: {fields['code']}"
        if kind == "witness-refused":
            return f"the log {fields['origin']} was not cosigned: {fields['reason']}"
        if kind == "clock-anomaly":
            return "the clock went back"
        if kind == "key-revoked":
            return f"a key was revoked: {fields['reason']}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        return {
            "log": self.name,
            "index": self.index,
            "time": self.event.time.isoformat(),
            "emitter": self.event.emitter,
            "kind": self.event.kind,
            "run": self.event.run,
            "round": self.event.round,
            "fields": self.event.fields,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class Reading:
    """Every readable entry of a bundle, and the faults in the bytes of the others."""

    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Proven:
    """One entry in full, under its log's signed root.

    `proof` is the RFC 6962 inclusion proof, leaf upwards, of `leaf` at `index` of `size` under
    `root`; it was checked.
    """

    name: str
    index: int
    statement: JSON
    leaf: bytes
    size: int
    root: bytes
    proof: tuple[bytes, ...]

    def to_json(self) -> dict[str, JSON]:
        """The entry and its proof as a JSON object, hashes in hexadecimal."""
        return {
            "log": self.name,
            "index": self.index,
            "statement": self.statement,
            "inclusion": {
                "leaf": self.leaf.hex(),
                "size": self.size,
                "root": self.root.hex(),
                "proof": [item.hex() for item in self.proof],
            },
        }


def read(bundle: Path) -> Reading:
    """Read what can be read of every log, the coordinator's first.

    Raises:
        AuditError: there is no bundle (exit code 2), or its logs cannot be read at all.
    """
    _, evidence, collector = _open(bundle)
    return Reading(
        tuple(
            Entry(log.keys.name, event.seq, event)
            for log in _logs(evidence)
            for event in log.events
        ),
        tuple(fault for fault in collector.faults if fault.layer == "bytes"),
    )


def prove(bundle: Path, name: str, index: int) -> Proven:
    """Read one entry in full and check its place under the signed root and its signature.

    Raises:
        AuditError: no such log or entry (exit code 2), or the entry is not what was signed.
    """
    opened, evidence, _ = _open(bundle)
    log = next((log for log in _logs(evidence) if log.keys.name == name), None)
    if log is None:
        known = ", ".join(log.keys.name for log in _logs(evidence))
        raise AuditError(f"no log of that name; the bundle has {known}", code="no-log", exit_code=2)
    size = log.checkpoint.size
    if not 0 <= index < size:
        raise AuditError(
            f"the log of {name} has no entry {index}; its entries are 0 to {size - 1}",
            code="no-such-entry",
            exit_code=2,
        )
    tile = next(
        tile
        for tile in tiles.needed(size)
        if tile.level == tiles.ENTRIES and tile.start <= index < tile.start + tile.width
    )
    data = bundles.load(opened.path, f"{log.where}/{tile.path}", most=bundles.MAX_TILE_BYTES)
    entry = tiles.unpack(data, tile.width)[index - tile.start]
    leaf, proof = merkle.leaf_hash(entry), log.tree.inclusion(index, size)
    merkle.check_inclusion(leaf, index, size, proof, log.checkpoint.root)
    envelope = dsse.parse(entry)
    dsse.check(envelope, note.parse_key(log.keys.event).public)
    return Proven(name, index, envelope.statement, leaf, size, log.checkpoint.root, proof)


def _open(path: Path) -> tuple[bundles.Bundle, Evidence, Collector]:
    opened, collector = bundles.read(path), Collector()
    evidence = verify_bytes.check(opened, collector, trust={}, against=None)
    if evidence is None:
        fault = collector.faults[0]
        raise AuditError(f"{fault.where}: {fault.sentence}", code=fault.code)
    return opened, evidence, collector


def _logs(evidence: Evidence) -> Iterator[LogView]:
    yield evidence.coordinator
    yield from evidence.sites.values()


def _short(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value) or "none"
    text = str(value)
    return f"{text[:_DIGEST_SHOWN]}…" if text.startswith("sha256:") else text
