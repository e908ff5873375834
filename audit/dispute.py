"""A dispute: one half of one recipient's subkey is opened, and the arbiter repeats the test alone.

The opened half is burned: whoever sees it, and the references beside it, can subtract its mark. The
other half stays closed and keeps naming the recipient; a score falls only by the square root of 2.

opening.json           half, key, nonce, the digest of the closed half, run, recipient
reference.safetensors  the unmarked B and the public A of the modules of that half
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import safetensors.numpy

from audit import chips, digests, mark_detect, mark_evidence, mark_files, mark_suspect, watermark
from audit.errors import AuditError, unreadable
from audit.mark_detect import Detection
from audit.mark_evidence import Committed, Receipt
from audit.mark_keys import Keys, write_secret
from audit.trace import ATTRIBUTION, SUSPICION
from audit.watermark import Reference

OPENING_FILE = "opening.json"
REFERENCE_FILE = "reference.safetensors"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Repeated:
    """What an arbiter finds with one opened half.

    `corrected` bounds the chance of such a score by accident over `tests` tests. The verdict is
    about this one key: ATTRIBUTED, INCONCLUSIVE or NO EVIDENCE.
    """

    release: str
    recipient: str
    half: int
    verdict: str
    detection: Detection
    corrected: float
    tests: int
    committed: Committed
    receipts: tuple[Receipt, ...]


def disclose(keys: Keys, recipient: str, *, half: int, number: int | None, out: Path) -> Path:
    """Write what an arbiter needs: one half of a recipient's subkey and its modules' reference.

    Args:
        keys: the run's keys.
        recipient: whose copy it is said to be.
        half: 0 for the modules of even layers, 1 for odd ones.
        number: after how many rounds the copy was made; None for the newest.
        out: folder to make; must not exist.

    Raises:
        AuditError: no such recipient or reference, or `out` exists.
    """
    key = keys.of(recipient)
    references = keys.references()
    chosen = max(references) if number is None else number
    if chosen not in references:
        raise AuditError(
            f"there is no reference of round {chosen}; there are "
            + ", ".join(str(known) for known in sorted(references)),
            code="no-reference",
            exit_code=2,
        )
    if out.exists():
        raise AuditError(f"{out} exists; choose another folder", code="exists", exit_code=2)
    carriers = references[chosen].carriers
    tensors = watermark.half_arrays(
        {module: np.ascontiguousarray(carrier.b) for module, carrier in carriers.items()},
        {module: np.ascontiguousarray(carrier.a) for module, carrier in carriers.items()},
        half,
    )
    if not tensors:
        raise AuditError(
            "that half marks no module of this adapter; open the other", code="empty-half",
            exit_code=2,
        )  # fmt: skip
    opened = key.opening(half)
    document = {
        "format": FORMAT,
        "release": keys.release,
        "recipient": recipient,
        "round": chosen,
        "half": half,
        "key": opened.key.hex(),
        "nonce": opened.nonce.hex(),
        "other": opened.other,
        "scale": keys.scale,
        "reference_digest": digests.arrays_digest(tensors),
    }
    out.mkdir(parents=True, mode=0o700)
    write_secret(out / REFERENCE_FILE, safetensors.numpy.save(tensors))
    write_secret(out / OPENING_FILE, json.dumps(document, indent=2).encode() + b"\n")
    return out


def repeat(
    suspect: Path,
    opening: Path,
    bundle: Path,
    *,
    base: Path | None = None,
    published: datetime | None = None,
) -> Repeated:
    """Repeat the test with an opened half, against the commitment in a bundle's log.

    Raises:
        AuditError: the opening does not open the logged commitment (`key-uncommitted`), its
            reference is not what the log holds (`reference-uncommitted`), the artefact is older
            (`artefact-older`), or a file is missing or damaged.
    """
    document, half, reference = _read(opening)
    logs = mark_evidence.from_bundle(bundle)
    committed = mark_evidence.commitment_of(logs, document["release"])
    recipient = document["recipient"]
    if committed.commitments.get(recipient) != half.commitment:
        raise AuditError(
            f"what was opened for {recipient} is not what the log committed to, so it may have "
            "been made to fit the artefact",
            code="key-uncommitted",
        )
    mark_evidence.check_half(logs, document["release"], half.half, document["reference_digest"])
    mark_evidence.check_age(committed, published)
    opened = mark_suspect.read(suspect, reference, base)
    found = mark_detect.residuals(opened.parts, reference)
    if opened.registered is not None:
        again = mark_detect.residuals(opened.registered, reference).get("plain")
        if again is not None:
            found["registered"] = again
    (detection,) = mark_detect.detect(found, [{half.half: half.key}])
    tests = max(1, len(found) * len(committed.commitments))
    verdict = "NO EVIDENCE"
    if detection.z >= ATTRIBUTION:
        verdict = "ATTRIBUTED"
    elif not detection.z < SUSPICION or detection.dimensions == 0:
        verdict = "INCONCLUSIVE"
    return Repeated(
        release=document["release"],
        recipient=recipient,
        half=half.half,
        verdict=verdict,
        detection=replace(detection),
        corrected=min(1.0, tests * detection.bound),
        tests=tests,
        committed=committed,
        receipts=mark_evidence.receipts(logs, document["release"], recipient),
    )


def _read(folder: Path) -> tuple[dict[str, str], chips.Opening, Reference]:
    path = folder / OPENING_FILE
    bad = AuditError(f"{path} is not an intact opening; ask for it again", code="bad-opening")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT or document["half"] not in chips.HALVES:
            raise ValueError
        half = chips.Opening(
            int(document["half"]),
            bytes.fromhex(document["key"]),
            bytes.fromhex(document["nonce"]),
            str(document["other"]),
        )
        scale, expected = float(document["scale"]), str(document["reference_digest"])
        names = {
            "release": str(document["release"]),
            "recipient": str(document["recipient"]),
            "reference_digest": expected,
        }
    except OSError as error:
        raise unreadable(path, error) from None
    except (KeyError, TypeError, ValueError):
        raise bad from None
    tensors = {name: read() for name, read in mark_files.tensors(folder / REFERENCE_FILE).items()}
    if digests.arrays_digest(tensors) != expected:
        raise bad
    b = {name: x for name, x in tensors.items() if name.endswith(".B")}
    a = {name: x for name, x in tensors.items() if name.endswith(".A")}
    return names, half, Reference.of(b, a, scale)
