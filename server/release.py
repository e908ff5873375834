"""Cut a release: one signed folder that transformers and peft load and a stranger can check."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit import canonical, digests, mark_files, signing
from server import bom, card
from server.errors import ServerError
from server.facts import ReleaseFacts, check

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "README.md"
BOM_FILE = "bom.cdx.json"
FACTS_FILE = "release.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Release:
    """A finished release folder.

    Attributes:
        folder: where it is.
        adapter_digest: digest of every array in the adapter file.
        card_digest: digest of README.md.
        bom_digest: digest of bom.cdx.json.
        facts_digest: digest of release.json.
        signature_digest: digest of model.sig.
        content_digest: the signature's subject; names everything but the signature.
        folder_digest: digest of the folder, signature included.
    """

    folder: Path
    adapter_digest: str
    card_digest: str
    bom_digest: str
    facts_digest: str
    signature_digest: str
    content_digest: str
    folder_digest: str


def cut(
    out: Path,
    *,
    adapter_files: Path | Callable[[Path], object],
    facts: ReleaseFacts,
    key: Path,
) -> Release:
    """Compose, describe and sign a release folder.

    Args:
        out: the folder to make; must not exist.
        adapter_files: a prepared PEFT folder, or a function that writes one into the folder it is
            given. Of it only adapter_config.json and adapter_model.safetensors are taken.
        facts: what the release says of itself.
        key: the coordinator's release key file.

    Guarantees: `out` appears complete and signed, or not at all; it verifies with the key's public
        half; the adapter file holds finite float32 arrays and names the base model by its public
        name.

    Raises:
        ServerError: `out` exists, the facts are incomplete, or the adapter is not one for the base
            model that the facts name.
        AuditError: the key cannot be used, or the adapter file is damaged.
    """
    if out.exists() or out.is_symlink():
        raise ServerError(
            f"{out} exists and a release is never overwritten; choose another folder",
            code="release-exists",
        )
    check(facts)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".release-") as name:
        work = Path(name) / out.name  # the folder's name is part of what is signed
        work.mkdir(mode=0o755)
        _take(adapter_files, work, Path(name) / "adapter")
        _check_adapter(work, facts)
        adapter_digest = digests.safetensors_digest(work / WEIGHTS_FILE)
        files = {file: digests.file_digest(work / file) for file in (CONFIG_FILE, WEIGHTS_FILE)}
        _write(work / CARD_FILE, card.text(facts, adapter_digest=adapter_digest))
        _write(work / BOM_FILE, bom.text(facts, files=files))
        _write(work / FACTS_FILE, _facts_text(facts, adapter_digest))
        signed = signing.sign_folder(work, key)
        release = Release(
            folder=out,
            adapter_digest=adapter_digest,
            card_digest=digests.file_digest(work / CARD_FILE),
            bom_digest=digests.file_digest(work / BOM_FILE),
            facts_digest=digests.file_digest(work / FACTS_FILE),
            signature_digest=signed.digest,
            content_digest=signed.content,
            folder_digest=digests.folder_digest(work),
        )
        os.rename(work, out)
    return release


def _take(source: Path | Callable[[Path], object], work: Path, scratch: Path) -> None:
    """Bring the adapter's two files into the release, from a folder or a writer."""
    if isinstance(source, Path):
        origin = source
    else:
        scratch.mkdir()
        source(scratch)
        origin = scratch
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (origin / name).is_file():
            raise ServerError(
                f"the adapter has no {name}, so there is nothing to release; write it first",
                code="no-adapter",
            )
        shutil.copyfile(origin / name, work / name)


def _check_adapter(work: Path, stated: ReleaseFacts) -> None:
    """Refuse an adapter of another base model, or one that would make a reader run code."""
    try:
        config = json.loads((work / CONFIG_FILE).read_text("utf-8"))
        base, kind = config["base_model_name_or_path"], config["peft_type"]
        runs_code = config.get("auto_mapping") is not None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _unfit("its adapter_config.json is not one of PEFT") from None
    if base != stated.base_model:
        raise _unfit("it is for another base model than the facts name")
    if kind != "LORA" or runs_code:
        raise _unfit("it is no plain LoRA adapter")
    b, fixed, others = mark_files.adapter(work)
    if others or not all(np.isfinite(x).all() for x in (*b.values(), *fixed.values())):
        raise _unfit("it holds tensors that are not finite LoRA factors")


def _unfit(reason: str) -> ServerError:
    return ServerError(
        f"the adapter cannot be released: {reason}; export it again", code="bad-adapter"
    )


def _facts_text(stated: ReleaseFacts, adapter_digest: str) -> str:
    """The facts for machines: what the card says, plus what serving needs to load the adapter."""
    document: dict[str, Any] = dataclasses.asdict(stated)
    document |= {
        "format": FORMAT,
        "time": stated.time.isoformat(),
        "adapter_digest": adapter_digest,
        "contributors": list(stated.contributors),
        "partial": stated.partial,
    }
    # JSON has one way to say what a tuple or a list is; a round trip settles nested ones.
    return canonical.encode(json.loads(json.dumps(document))).decode() + "\n"


def _write(path: Path, words: str) -> None:
    path.write_text(words, encoding="utf-8", newline="\n")
