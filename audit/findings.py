"""What the verifier found, as data, as JSON and in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Layer = Literal["bytes", "completeness", "meaning"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: in which layer, a short code, where, and a sentence."""

    layer: Layer
    code: str
    where: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Signer:
    """A party whose log is in the bundle.

    `pinned` says whether its key was given to the verifier from outside; otherwise only the bundle
    states it. `cosigned_by` names who witnessed the checkpoint in the bundle.
    """

    name: str
    role: Literal["coordinator", "institution"]
    fingerprint: str
    pinned: bool
    size: int
    root: str
    cosigned_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InstitutionFinding:
    """What the run cost one institution's people, recomputed.

    `epsilon` is the privacy loss of everything reserved for the run's cohort in the institution's
    log, at `delta`, for `unit` under `adjacency`; None if it could not be recomputed.
    """

    name: str
    epsilon: float | None
    cap: float | None
    delta: float | None
    unit: str | None
    adjacency: str | None
    accountant: str | None
    rounds_accepted: int
    rounds_reserved: int


@dataclass(frozen=True, slots=True)
class StampFinding:
    """A time-stamp over a log of `size` entries; `time` is the authority's, None if not checked."""

    name: str
    size: int
    time: str | None


@dataclass(frozen=True, slots=True)
class UpdateFinding:
    """One update that went into the release."""

    round: int
    institution: str
    digest: str


@dataclass(frozen=True, slots=True)
class ReleaseFinding:
    """The released adapter and the updates it follows from; `checked` if its files were hashed."""

    adapter_digest: str
    reference_digest: str
    recipients: tuple[str, ...]
    updates: tuple[UpdateFinding, ...]
    checked: bool


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdict over a bundle. `ok` only if no layer has a fault.

    Layers after a faulty `bytes` layer are not judged, so `complete` and `consistent` are False
    then: unknown means no.
    """

    run: str | None
    bundle_digest: str | None
    intact: bool
    complete: bool
    consistent: bool
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]
    signers: tuple[Signer, ...]
    institutions: tuple[InstitutionFinding, ...]
    release: ReleaseFinding | None
    rounds: int
    quorum: int | None
    stamps: tuple[StampFinding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check held."""
        return self.intact and self.complete and self.consistent and not self.faults

    @property
    def release_digest(self) -> str | None:
        """The released adapter's digest, if there is a release."""
        return None if self.release is None else self.release.adapter_digest

    def to_json(self) -> dict[str, Any]:
        """Return the findings as a JSON object."""
        return {**asdict(self), "ok": self.ok}

    def lines(self) -> Iterator[str]:
        """Yield the findings in plain words, one sentence a line."""
        for _, lines in self.sections():
            yield from lines

    def sections(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield (heading, lines) in reading order; a section about nothing is left out."""
        parts = (
            ("Verdict", self._verdict()),
            (
                "Faults",
                (f"fault [{f.layer}/{f.code}] {f.where}: {f.sentence}" for f in self.faults),
            ),
            ("Signatures and witnesses", self._signatures()),
            ("Time-stamps", map(_stamp, self.stamps)),
            ("Privacy budgets, recomputed from the logs", map(_budget, self.institutions)),
            ("Release", () if self.release is None else _release(self.release)),
            ("Notices", (f"notice: {notice}" for notice in self.notices)),
        )
        for heading, lines in parts:
            if found := tuple(lines):
                yield heading, found

    def _verdict(self) -> Iterator[str]:
        yield f"verdict: {'holds' if self.ok else 'FAULTY'}"
        yield f"intact: {_yes(self.intact, 'every byte is what was signed')}"
        if self.intact:
            yield f"complete: {_yes(self.complete, 'no entry, round or institution is missing')}"
            yield f"consistent: {_yes(self.consistent, 'budgets, updates and release follow')}"
        else:
            yield "complete, consistent: not judged, since the bytes are damaged"

    def _signatures(self) -> Iterator[str]:
        for signer in self.signers:
            key = "key pinned by you" if signer.pinned else "key only stated by this bundle"
            yield f"signed by {signer.role} {signer.name} ({key}, fingerprint {signer.fingerprint})"
            witnesses = ", ".join(signer.cosigned_by) or "nobody"
            yield f"log of {signer.name}: {signer.size} entries, witnessed by {witnesses}"


def _yes(holds: bool, meaning: str) -> str:
    return f"yes, {meaning}" if holds else "NO"


def _budget(site: InstitutionFinding) -> str:
    if site.rounds_reserved == 0:
        return f"budget of {site.name}: nothing was reserved for this run"
    rounds = f"{site.rounds_accepted} rounds accepted of {site.rounds_reserved} reserved"
    if site.epsilon is None or site.cap is None or site.delta is None:
        return f"budget of {site.name}: not recomputed, {rounds}"
    return (
        f"budget of {site.name}: epsilon {site.epsilon:.4f} spent of cap {site.cap:g} "
        f"(unit {site.unit or 'not stated'}, adjacency {site.adjacency or 'not stated'}, "
        f"delta {site.delta:g}), {rounds}"
    )


def _stamp(stamp: StampFinding) -> str:
    what = f"the first {stamp.size} entries of {stamp.name}"
    if stamp.time is None:
        return f"a time-stamp over {what} was not checked; give --tsa-roots"
    return f"an authority that you trust for time saw {what} on {stamp.time}"


def _release(release: ReleaseFinding) -> Iterator[str]:
    state = "its files match" if release.checked else "its files are not in the bundle"
    yield f"release {release.adapter_digest} for {', '.join(release.recipients)} ({state})"
    yield f"release follows from aggregate {release.reference_digest}"
    for update in release.updates:
        yield f"release follows from round {update.round}: {update.institution} {update.digest}"
