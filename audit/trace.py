"""Whose copy is this? Tries every committed key on a suspect, and says what it shows and no more.

Four answers: ATTRIBUTED (to one or more recipients), OURS, BUT NOT ATTRIBUTED, INCONCLUSIVE and NO
EVIDENCE. The last is never "not ours": distillation erases the mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from math import sqrt
from pathlib import Path
from typing import Any, Literal

from audit import mark_detect, mark_evidence, mark_keys, mark_suspect
from audit.chips import KEY_BYTES
from audit.errors import AuditError
from audit.mark_detect import Detection, Residual, Variant
from audit.mark_evidence import Committed, Receipt
from audit.mark_keys import Keys
from audit.watermark import OWNER_ENERGY, Reference

Verdict = Literal["ATTRIBUTED", "OURS, BUT NOT ATTRIBUTED", "INCONCLUSIVE", "NO EVIDENCE"]

ATTRIBUTION = 8.0  # z; an independent key reaches it with probability at most exp(-32)
SUSPICION = 5.0  # z; too weak to accuse, too strong to dismiss
GROUND = 13.4  # z; stands even if 2^128 keys had been tried for the best
MASTER_FILE = Path("secrets") / "watermark.master"


@dataclass(frozen=True, slots=True)
class Score:
    """One key's answer. `name` is the recipient, or empty for the owner's key.

    `corrected` bounds the chance that any of all tests scores as high by accident.
    """

    name: str
    commitment: str
    detection: Detection
    corrected: float


@dataclass(frozen=True, slots=True)
class Trace:
    """What a suspect shows about one release.

    Attributes:
        release: id of the run whose keys were tried.
        verdict: ATTRIBUTED (a recipient's key reaches z = 8), OURS, BUT NOT ATTRIBUTED (only the
            owner's does), INCONCLUSIVE (something between 5 and 8, or too little left to test),
            NO EVIDENCE.
        owner: score of the key common to all copies.
        recipients: scores of the recipients, strongest first.
        attributed: the recipients at or above z = 8; several mean that copies were combined.
        tests: keys times variants times references; `bound` times this bounds a false attribution.
        variants: which variants were computed.
        round: the copies of which round (counted from 1) answer best; 0 where nothing answers.
        kind: "adapter" or "merged model".
        explained: share of the base's embeddings that the registration explains, if it was done.
        ignored: tensors of the suspect that were not looked at.
        committed: the log's entry about the keys; None if no log was given.
        receipts: what the attributed recipients signed for.
    """

    release: str
    verdict: Verdict
    owner: Score
    recipients: tuple[Score, ...]
    attributed: tuple[str, ...]
    tests: int
    variants: tuple[str, ...]
    round: int
    kind: str
    explained: float | None
    ignored: int
    committed: Committed | None = None
    receipts: tuple[Receipt, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The trace as a JSON object; times as ISO 8601."""
        return dict(plain(asdict(self)))


def suspect(path: Path, keys: Keys, *, base: Path | None = None) -> Trace:
    """Test a suspect against every key of one run, without looking at a log.

    Args:
        path: PEFT folder, merged model, safetensors or GGUF file, or one tensor.
        keys: from `mark_keys.read`.
        base: the public base model, for a merged model.

    Raises:
        AuditError: the suspect, a reference or the basis is missing, malformed or not finite.
    """
    references = keys.references()
    opened = mark_suspect.read(path, next(iter(references.values())), base)
    halves = [key.halves for key in keys.all]
    best: list[Detection] = []
    round_of, variants = 0, tuple[str, ...]()
    for number, reference in references.items():
        found = _residuals(opened, reference)
        answers = mark_detect.detect(found, halves)
        variants = max(variants, tuple(found), key=len)
        if not best or max(d.z for d in answers) > max(d.z for d in best):
            round_of = number
        best = [max(pair, key=lambda d: d.z) for pair in zip(best or answers, answers, strict=True)]
        # A merged model is read anew for each round, so the first that answers has to do.
        if opened.kind != "adapter" and max(d.z for d in best) >= ATTRIBUTION:
            break
    tests = max(1, len(halves) * max(1, len(variants)) * len(references))
    made = [
        Score(key.name, key.commitment, d, min(1.0, tests * d.bound))
        for key, d in zip(keys.all, best, strict=True)
    ]
    scores = sorted(made[1:], key=lambda score: score.detection.z, reverse=True)
    verdict = judge(made[0], scores)
    return Trace(
        release=keys.release,
        verdict=verdict,
        owner=made[0],
        recipients=tuple(scores),
        attributed=tuple(s.name for s in scores if s.detection.z >= ATTRIBUTION),
        tests=tests,
        variants=variants,
        round=round_of if verdict in ("ATTRIBUTED", "OURS, BUT NOT ATTRIBUTED") else 0,
        kind=opened.kind,
        explained=opened.explained,
        ignored=opened.ignored,
    )


def coordinator(
    path: Path, folder: Path, *, base: Path | None = None, published: datetime | None = None
) -> Trace:
    """Test a suspect against every run of a coordinator, each key checked against its log.

    Args:
        path: the suspect.
        folder: the coordinator's folder.
        base: the public base model, for a merged model.
        published: when the artefact was first seen, if that is known.

    Returns:
        The run that answers best; `tests` counts those of all runs.

    Raises:
        AuditError: no run has keys, or a key does not count (see `mark_evidence`), or the log is
            damaged (exit code 4).
    """
    logs = mark_evidence.from_coordinator(folder)
    files = sorted((folder / "runs").glob(f"*/watermark/{mark_keys.KEY_FILE}"))
    master = _master(folder / MASTER_FILE)
    found: list[Trace] = []
    for file in files:
        keys = mark_keys.read(file)
        if not any(keys.folder.glob("reference-*.safetensors")):
            continue  # nothing was ever marked with these keys
        committed = mark_evidence.check(logs, keys, published=published)
        mark_evidence.check_derived(keys, master, logs.coordinator.checkpoint.origin)
        found.append(replace(suspect(path, keys, base=base), committed=committed))
    if not found:
        raise AuditError(
            f"no run in {folder} has marked a copy yet, so there is nothing to trace",
            code="nothing-marked",
            exit_code=2,
        )
    tests = sum(trace.tests for trace in found)
    best = max(found, key=lambda t: max(s.detection.z for s in (t.owner, *t.recipients)))
    signed = tuple(
        receipt
        for name in best.attributed
        for receipt in mark_evidence.receipts(logs, best.release, name)
    )
    return replace(recount(best, tests), receipts=signed)


def recount(trace: Trace, tests: int) -> Trace:
    """The same with another number of tests behind it."""

    def again(score: Score) -> Score:
        return replace(score, corrected=min(1.0, tests * score.detection.bound))

    return replace(
        trace, tests=tests, owner=again(trace.owner), recipients=tuple(map(again, trace.recipients))
    )


def judge(owner: Score, recipients: Sequence[Score]) -> Verdict:
    """One of the four answers. A score that is not a number is inconclusive."""
    best = max(score.detection.z for score in recipients)
    if best >= ATTRIBUTION:
        return "ATTRIBUTED"
    if owner.detection.z >= ATTRIBUTION:
        return "OURS, BUT NOT ATTRIBUTED"
    # An untouched copy would score sqrt(share · dimensions): below the threshold, silence of the
    # keys says nothing about the suspect.
    reach = sqrt((1.0 - OWNER_ENERGY) * owner.detection.dimensions)
    if not max(best, owner.detection.z) < SUSPICION or reach < ATTRIBUTION:
        return "INCONCLUSIVE"
    return "NO EVIDENCE"


def _residuals(opened: mark_suspect.Opened, reference: Reference) -> Mapping[Variant, Residual]:
    found = dict(mark_detect.residuals(opened.parts, reference))
    if opened.registered is not None:
        again = mark_detect.residuals(opened.registered, reference).get("plain")
        if again is not None:
            found["registered"] = again
    return found


def _master(path: Path) -> bytes:
    try:
        data = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        raise AuditError(f"{path} is no master key; restore it", code="weak-key") from None
    except OSError as error:
        raise AuditError(
            f"{path} cannot be read ({error.strerror}); without it no key can be shown to follow "
            "from the log's head",
            code="no-master",
            exit_code=2,
        ) from None
    if len(data) < KEY_BYTES:
        raise AuditError(f"{path} is no master key; restore it", code="weak-key")
    return data


def plain(value: Any) -> Any:
    """What JSON can hold: times as ISO 8601, tuples as lists."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
