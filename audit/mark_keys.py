"""The key folder of a run: subkeys, nonces, the public basis and the unmarked references.

watermark-key.json          subkeys and nonces of the owner and of every recipient
basis.safetensors           A, which is public and kept for detection without the model
reference-N.safetensors     the unmarked B that copies of round N (or of the release) were made of,
                            and its A, where that was trained too

References are as sensitive as keys: a copy minus its reference is the mark.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from audit import chips, digests, mark_files
from audit.errors import AuditError, unreadable
from audit.watermark import Float32, Reference

KEY_FILE = "watermark-key.json"
BASIS_FILE = "basis.safetensors"
FORMAT = 2
_REFERENCE = re.compile(r"reference-(\d{1,6})\.safetensors")


@dataclass(frozen=True, slots=True)
class Key:
    """One subkey and the nonce that its logged commitment was made with.

    `name` is the recipient's, or `chips.OWNER`.
    """

    name: str
    subkey: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    @property
    def commitment(self) -> str:
        """What the log says about this key."""
        return chips.commitment(self.subkey, self.nonce)

    @property
    def halves(self) -> dict[int, bytes]:
        """Both halves, for drawing chips."""
        return chips.halves(self.subkey)

    def opening(self, half: int) -> chips.Opening:
        """One half, to be shown in a dispute."""
        return chips.opening(self.subkey, self.nonce, half)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one run.

    Attributes:
        folder: where they lie.
        release: id of the run and of its release.
        scale: the adapter's factor.
        strength: norm of the mark over the norm of ΔW.
        tree_size: size of the coordinator's log when the keys were derived.
        tree_root: its root then.
        owner: the key common to all copies.
        recipients: one key a recipient, sorted by name.
    """

    folder: Path
    release: str
    scale: float
    strength: float
    tree_size: int
    tree_root: str
    owner: Key
    recipients: tuple[Key, ...]

    @property
    def file(self) -> Path:
        """The key file."""
        return self.folder / KEY_FILE

    @property
    def all(self) -> tuple[Key, ...]:
        """The owner's key, then the recipients'."""
        return (self.owner, *self.recipients)

    def of(self, name: str) -> Key:
        """One recipient's key.

        Raises:
            AuditError: no such recipient.
        """
        for key in self.recipients:
            if key.name == name:
                return key
        raise AuditError(
            f"no key was made for {name}, so no copy can be marked for it",
            code="no-such-recipient",
            exit_code=2,
        )

    def basis(self) -> dict[str, Float32]:
        """A by module.

        Raises:
            AuditError: the file is missing or damaged.
        """
        return {name: read() for name, read in mark_files.tensors(self.folder / BASIS_FILE).items()}

    def keep_reference(self, number: int, arrays: Mapping[str, Float32]) -> None:
        """Keep the unmarked adapter that the copies of a round are made of.

        Args:
            number: the round.
            arrays: "<module>.B" -> (out, rank), and "<module>.A" -> (rank, in) where A is not the
                public basis.

        Raises:
            AuditError: another one was kept for that round before.
        """
        path = self.folder / f"reference-{number}.safetensors"
        if path.exists():
            kept = {name: read() for name, read in mark_files.tensors(path).items()}
            if digests.arrays_digest(kept) != digests.arrays_digest(arrays):
                raise AuditError(
                    f"{path} is another adapter than the one to be marked; restore the newest "
                    "copy of the whole folder",
                    code="reference-differs",
                )
            return
        write_secret(
            path,
            safetensors.numpy.save({n: np.ascontiguousarray(arrays[n]) for n in sorted(arrays)}),
        )

    def references(self) -> dict[int, Reference]:
        """Round -> the unmarked adapter, newest first.

        Raises:
            AuditError: none was kept, or one is damaged.
        """
        basis, result = self.basis(), {}
        for number, path in self._reference_files().items():
            held = {name: read() for name, read in mark_files.tensors(path).items()}
            a = {name: array for name, array in held.items() if name.endswith(".A")}
            b = {name: array for name, array in held.items() if name not in a}
            result[number] = Reference.of(b, a or basis, self.scale)
        if not result:
            raise AuditError(
                f"{self.folder} holds no unmarked reference, so nothing was marked yet",
                code="no-reference",
            )
        return result

    def reference_digests(self) -> dict[int, str]:
        """Round -> digest of the unmarked adapter as it lies here, newest first."""
        return {
            number: digests.arrays_digest(
                {name: read() for name, read in mark_files.tensors(path).items()}
            )
            for number, path in self._reference_files().items()
        }

    def _reference_files(self) -> dict[int, Path]:
        found = {
            int(match.group(1)): path
            for path in self.folder.iterdir()
            if (match := _REFERENCE.fullmatch(path.name))
        }
        return dict(sorted(found.items(), reverse=True))


def create(
    folder: Path,
    *,
    release: str,
    scale: float,
    strength: float,
    tree_size: int,
    tree_root: str,
    owner: Key,
    recipients: tuple[Key, ...],
    basis: Mapping[str, Float32],
) -> Keys:
    """Write the keys and the basis of a run, mode 0600.

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
    document = {
        "format": FORMAT,
        "release": release,
        "scale": scale,
        "strength": strength,
        "tree": {"size": tree_size, "root": tree_root},
        "owner": _to_json(owner),
        "recipients": [_to_json(key) for key in recipients],
    }
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    arrays = {f"{name.removesuffix('.A')}.A": np.ascontiguousarray(x) for name, x in basis.items()}
    write_secret(folder / BASIS_FILE, safetensors.numpy.save(arrays))
    write_secret(folder / KEY_FILE, json.dumps(document, indent=2).encode() + b"\n")
    return read(folder / KEY_FILE)


def read(path: Path) -> Keys:
    """Read a key file.

    Raises:
        AuditError: it is missing (exit code 2), or not an intact key file.
    """
    bad = AuditError(
        f"{path} is not an intact watermark key file; take it from the coordinator's folder",
        code="bad-key-file",
    )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(f"the key file {path}", error) from None
    except ValueError:
        raise bad from None
    try:
        if document["format"] != FORMAT or not document["recipients"]:
            raise ValueError
        tree = document["tree"]
        return Keys(
            path.parent,
            str(document["release"]),
            float(document["scale"]),
            float(document["strength"]),
            int(tree["size"]),
            str(tree["root"]),
            _from_json(document["owner"], name=chips.OWNER),
            tuple(_from_json(entry, name=str(entry["name"])) for entry in document["recipients"]),
        )
    except (KeyError, TypeError, ValueError, AuditError):
        raise bad from None


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
