"""The release folder: which of its files the log binds by digest, and whether each is as bound.

Signature, bill of materials and card are read in the forms of OpenSSF Model Signing v1.0,
CycloneDX and Hugging Face; all three, and every other file, are under the folder's digest.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit import digests, dsse, signing
from audit.errors import AuditError
from audit.events import Event
from audit.verify_release import BOM, CARD, WEIGHTS

_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class File:
    """One file of a release: what it is, its digest, what binds it, and whether that holds.

    `holds` is None where nothing outside the file says what it has to be.
    """

    name: str
    what: str
    digest: str
    bound_by: str
    holds: bool | None


def check(folder: Path, event: Event | None, *, key: Path | None = None) -> tuple[File, ...]:
    """List the files of a release folder.

    Args:
        folder: the release in a bundle.
        event: the `release` event that names it; None if the log has none.
        key: the coordinator's public release key (PEM), if it came another way.

    Returns:
        Weights, signature, bill of materials, card, then the other files by name.
    """
    fields: Mapping[str, Any] = {} if event is None else event.fields
    listed = _listed(folder / signing.SIGNATURE_FILE)
    whole = _same(lambda: digests.folder_digest(folder), fields.get("folder_digest"))
    found: list[File] = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        digest = digests.file_digest(path)
        in_signature = None if listed is None else listed.get(name) == digest
        if name == WEIGHTS:
            own = _same(lambda p=path: digests.safetensors_digest(p), fields.get("adapter_digest"))
            found.append(File(name, "adapter, safetensors", digest, "adapter_digest", own))
        elif name == CARD:
            held = _all(_same(lambda d=digest: d, fields.get("card_digest")), _is_card(path))
            found.append(File(name, "model card, Hugging Face", digest, "card_digest", held))
        elif name == BOM:
            held = _all(_same(lambda d=digest: d, fields.get("bom_digest")), _is_bom(path, folder))
            found.append(File(name, "ML-BOM, CycloneDX", digest, "bom_digest", held))
        elif name == signing.SIGNATURE_FILE:
            found.append(_signature(folder, digest, listed, whole, key))
        else:
            found.append(
                File(
                    name, "file of the adapter", digest, "folder_digest", _all(whole, in_signature)
                )
            )
    order = (WEIGHTS, signing.SIGNATURE_FILE, BOM, CARD)
    return tuple(
        sorted(found, key=lambda f: (order.index(f.name) if f.name in order else 9, f.name))
    )


def _signature(
    folder: Path,
    digest: str,
    listed: Mapping[str, str] | None,
    whole: bool | None,
    key: Path | None,
) -> File:
    what, holds = "signature, OpenSSF Model Signing; its key was not given", whole
    if listed is None:
        return File(signing.SIGNATURE_FILE, "no OpenSSF signature", digest, "folder_digest", False)
    files = {
        path.relative_to(folder).as_posix(): digests.file_digest(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != signing.SIGNATURE_FILE
    }
    holds = _all(whole, files == dict(listed))
    if key is not None:
        what = "signature, OpenSSF Model Signing, by the key that was given"
        try:
            signing.verify_folder(folder, key)
        except AuditError as error:
            if error.exit_code == 2:
                raise
            holds = False
    return File(signing.SIGNATURE_FILE, what, digest, "folder_digest", holds)


def _listed(path: Path) -> dict[str, str] | None:
    """The files that a signature lists with their digests; None if it is no such signature."""
    try:
        document = _json(path)
        envelope = document["dsseEnvelope"]
        if envelope["payloadType"] != dsse.PAYLOAD_TYPE:
            return None
        statement = json.loads(base64.b64decode(envelope["payload"], validate=True))
        if statement["predicateType"] != signing.PREDICATE_TYPE:
            return None
        items = statement["predicate"]["resources"]
        return {str(item["name"]): "sha256:" + str(item["digest"]) for item in items}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        return None


def _is_bom(path: Path, folder: Path) -> bool:
    """Whether it is a CycloneDX document whose file hashes are those of the folder."""
    try:
        document = _json(path)
        if document["bomFormat"] != "CycloneDX":
            return False
        parts = document["metadata"]["component"].get("components", [])
        for part in parts:
            hashes = {item["alg"]: item["content"] for item in part.get("hashes", [])}
            actual = digests.file_digest(folder / str(part["name"]))
            if "SHA-256" in hashes and f"sha256:{hashes['SHA-256']}" != actual:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, AuditError):
        return False
    return True


def _is_card(path: Path) -> bool:
    """Whether it begins with the front matter of a model card."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return text.startswith("---\n") and "\n---\n" in text[4:]


def _json(path: Path) -> Any:
    with path.open("rb") as stream:
        return json.loads(stream.read(_MOST_BYTES))


def _same(compute: Any, stated: object) -> bool | None:
    """Whether what is computed is what is stated; None if nothing is stated."""
    if stated is None:
        return None
    try:
        return bool(compute() == stated)
    except AuditError:
        return False


def _all(*values: bool | None) -> bool | None:
    """False if one is; None if one is not known; else True."""
    if any(value is False for value in values):
        return False
    return None if any(value is None for value in values) else True
