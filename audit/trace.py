"""Whose copy is this? Reads a suspect adapter and a release's key file, and says what they show."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy

from audit import digests, watermark
from audit.errors import AuditError

Verdict = Literal["ATTRIBUTED", "OURS, BUT NOT ATTRIBUTED", "INCONCLUSIVE", "NO EVIDENCE"]

ATTRIBUTION = 8.0  # z; an independent key reaches it with probability at most exp(-32)
SUSPICION = 5.0  # z; too weak to accuse, too strong to dismiss
KEY_FILE = "watermark-key.json"
REFERENCE_FILE = "reference.safetensors"
_ADAPTER_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FORMAT = 1
# The one reader in safetensors that hands out bfloat16 without an ML library.
_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize


@dataclass(frozen=True, slots=True)
class Key:
    """One subkey and the nonce that its logged commitment was made with."""

    name: str
    subkey: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    @property
    def commitment(self) -> str:
        """What the log says about this key."""
        return watermark.commitment(self.subkey, self.nonce)


@dataclass(frozen=True, slots=True)
class Score:
    """One key's answer. `name` is the recipient, or empty for the owner's key."""

    name: str
    commitment: str
    detection: watermark.Detection


@dataclass(frozen=True, slots=True)
class Trace:
    """What a suspect shows about one release.

    Attributes:
        release: id of the release whose keys were tried.
        verdict: ATTRIBUTED (a recipient's key reaches z = 8), OURS, BUT NOT ATTRIBUTED (only the
            owner's does), INCONCLUSIVE (something between 5 and 8, or too little left to test),
            NO EVIDENCE. The last is never "not ours": distillation erases the mark.
        owner: score of the key common to all copies.
        recipients: scores of the recipients, strongest first.
        attributed: the recipients at or above z = 8; several mean that copies were combined.
        tests: number of keys tried; `bound` times this bounds a false attribution.
        ignored: tensors of the suspect that are no LoRA factors and were not looked at.
    """

    release: str
    verdict: Verdict
    owner: Score
    recipients: tuple[Score, ...]
    attributed: tuple[str, ...]
    tests: int
    ignored: int


def seal(
    folder: Path,
    *,
    release: str,
    b: Mapping[str, watermark.Float32],
    a: Mapping[str, watermark.Float32],
    scale: float,
    owner: Key,
    recipients: tuple[Key, ...],
) -> Path:
    """Write the key file and the unmarked reference of a release, both mode 0600.

    The reference is as sensitive as the keys: a copy minus the reference is the mark.

    Returns the key file, to be given to `detect_folder`.

    Raises:
        AuditError: a file is already there, two recipients share a name, or one has none.
    """
    names = [key.name for key in recipients]
    if not names or not all(names) or len(set(names)) != len(names):
        raise AuditError(
            "every recipient of a release needs a name of its own; name each one",
            code="bad-recipients",
            exit_code=2,
        )
    tensors = {f"{m.removesuffix('.B')}.B": np.ascontiguousarray(x) for m, x in b.items()}
    tensors |= {f"{m.removesuffix('.A')}.A": np.ascontiguousarray(x) for m, x in a.items()}
    document = {
        "format": _FORMAT,
        "release": release,
        "scale": scale,
        "reference": {"path": REFERENCE_FILE, "digest": digests.arrays_digest(tensors)},
        "owner": _to_json(owner),
        "recipients": [_to_json(key) for key in recipients],
    }
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_secret(folder / REFERENCE_FILE, safetensors.numpy.save(tensors))
    write_secret(folder / KEY_FILE, json.dumps(document, indent=2).encode() + b"\n")
    return folder / KEY_FILE


def detect_folder(adapter: Path, key_file: Path) -> Trace:
    """Test a PEFT adapter folder (or its safetensors file) against every key of one release.

    Raises:
        AuditError: the adapter, the key file or the reference is missing, malformed or not finite,
            or the reference is not the one that the key file names.
    """
    document = _read_key_file(key_file)
    suspect_b, suspect_a, ignored = read_adapter(adapter)
    try:
        reference = key_file.parent / str(document["reference"]["path"])
        expected = str(document["reference"]["digest"])
        release, scale = str(document["release"]), float(document["scale"])
        owner = _from_json(document["owner"], name=watermark.OWNER)
        keys = [_from_json(entry, name=str(entry["name"])) for entry in document["recipients"]]
    except (KeyError, TypeError, ValueError):
        raise _bad_key_file(key_file) from None
    b, a = _read_reference(reference, expected)
    residuals = watermark.residual(suspect_b, suspect_a, reference_b=b, a=a, scale=scale)

    def answer(key: Key) -> Score:
        return Score(key.name, key.commitment, watermark.score(residuals, key=key.subkey))

    scores = sorted((answer(key) for key in keys), key=lambda s: s.detection.z, reverse=True)
    common = answer(owner)
    attributed = tuple(s.name for s in scores if s.detection.z >= ATTRIBUTION)
    return Trace(
        release=release,
        verdict=_verdict(common, scores),
        owner=common,
        recipients=tuple(scores),
        attributed=attributed,
        tests=1 + len(scores),
        ignored=ignored,
    )


def read_adapter(
    adapter: Path,
) -> tuple[dict[str, watermark.Float32], dict[str, watermark.Float32], int]:
    """Read a PEFT adapter without PEFT: module -> B, module -> A, and how many other tensors.

    Half-precision tensors (float16, bfloat16) are widened to float32.

    Raises:
        AuditError: the file is missing, is not safetensors, or holds no LoRA factor.
    """
    path = adapter / _ADAPTER_FILE if adapter.is_dir() else adapter
    factors: dict[str, dict[str, watermark.Float32]] = {"lora_A": {}, "lora_B": {}}
    ignored = 0
    for name, array in _read_tensors(path).items():
        module, dot, tail = name.removeprefix(_PREFIX).rpartition(".lora_")
        factor, _, ending = f"lora_{tail}".partition(".")
        if dot and factor in factors and ending in ("weight", "default.weight"):
            factors[factor][module] = array
        else:
            ignored += 1
    if not factors["lora_A"] or factors["lora_A"].keys() != factors["lora_B"].keys():
        raise AuditError(
            f"{path} holds no complete LoRA factors; give a PEFT adapter folder", code="not-lora"
        )
    return factors["lora_B"], factors["lora_A"], ignored


def write_secret(path: Path, data: bytes) -> None:
    """Create a file that only its owner may read; never replace one.

    Raises:
        AuditError: the file exists or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError:
        raise AuditError(
            f"{path} exists and is never overwritten; choose another place",
            code="exists",
            exit_code=2,
        ) from None
    except OSError as error:
        raise AuditError(
            f"{path} cannot be written ({error.strerror}); check the folder",
            code="unwritable",
            exit_code=2,
        ) from None


def _verdict(owner: Score, recipients: list[Score]) -> Verdict:
    best = max(score.detection.z for score in recipients)
    if best >= ATTRIBUTION:
        return "ATTRIBUTED"
    if owner.detection.z >= ATTRIBUTION:
        return "OURS, BUT NOT ATTRIBUTED"
    # An untouched copy would score sqrt(share · dimensions): below the threshold, silence of the
    # keys says nothing about the suspect.
    reach = sqrt((1.0 - watermark.OWNER_ENERGY) * owner.detection.dimensions)
    if not max(best, owner.detection.z) < SUSPICION or reach < ATTRIBUTION:
        return "INCONCLUSIVE"
    return "NO EVIDENCE"


def _to_json(key: Key) -> dict[str, str]:
    return {
        "name": key.name,
        "subkey": key.subkey.hex(),
        "nonce": key.nonce.hex(),
        "commitment": key.commitment,
    }


def _from_json(entry: Mapping[str, Any], *, name: str) -> Key:
    key = Key(name, bytes.fromhex(entry["subkey"]), bytes.fromhex(entry["nonce"]))
    if entry["commitment"] != key.commitment:
        raise ValueError("commitment does not open")
    return key


def _bad_key_file(path: Path) -> AuditError:
    return AuditError(
        f"{path} is not an intact watermark key file; take it from the coordinator's folder",
        code="bad-key-file",
    )


def _read_key_file(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditError(
            f"the key file {path} cannot be read ({error.strerror}); check the path",
            code="unreadable",
            exit_code=2,
        ) from None
    except ValueError:
        raise _bad_key_file(path) from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise _bad_key_file(path)
    if not document.get("recipients"):
        raise _bad_key_file(path)
    return document


def _read_reference(
    path: Path, expected: str
) -> tuple[dict[str, watermark.Float32], dict[str, watermark.Float32]]:
    tensors = _read_tensors(path)
    if digests.arrays_digest(tensors) != expected:
        raise AuditError(
            f"{path} is not the reference that the key file names; restore the file",
            code="reference-differs",
        )
    b = {n.removesuffix(".B"): x for n, x in tensors.items() if n.endswith(".B")}
    a = {n.removesuffix(".A"): x for n, x in tensors.items() if n.endswith(".A")}
    return b, a


def _read_tensors(path: Path) -> dict[str, watermark.Float32]:
    """Read every tensor of a safetensors file as float32."""
    try:
        entries = _deserialize(path.read_bytes())
    except OSError as error:
        raise AuditError(
            f"{path} cannot be read ({error.strerror}); check the path",
            code="unreadable",
            exit_code=2,
        ) from None
    except safetensors.SafetensorError:
        raise AuditError(
            f"{path} is not a safetensors file; fetch it again", code="not-safetensors"
        ) from None
    return {name: _widen(path, entry) for name, entry in entries}


def _widen(path: Path, entry: Mapping[str, Any]) -> watermark.Float32:
    data, kind = entry["data"], entry["dtype"]
    if kind == "BF16":  # the upper half of a float32; numpy has no name for it
        flat = (np.frombuffer(data, dtype="<u2").astype("<u4") << 16).view("<f4")
    elif kind in ("F16", "F32", "F64"):
        flat = np.frombuffer(data, dtype=f"<f{int(kind[1:]) // 8}")
    else:
        raise AuditError(
            f"{path} holds {kind} tensors; convert it to float16, bfloat16 or float32 first",
            code="bad-dtype",
        )
    with np.errstate(over="ignore"):  # what overflows becomes inf and is refused as not finite
        return flat.astype(np.float32).reshape(entry["shape"])
