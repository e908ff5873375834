"""The institution's folder: settings, keys, ledger, log, and what belongs to each run."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

import audit.keys
import audit.log
import audit.settings
import audit.witness
from client.errors import ClientError
from configs import files
from configs.load import load
from configs.run import is_name
from configs.site import Site
from configs.version import SOFTWARE
from privacy.ledger import Ledger

_SETTINGS = "site.toml"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the coordinator handed over: its address, its authority and its public keys."""

    coordinator: str
    authority: bytes = field(repr=False)
    keys: audit.keys.PublicKeys
    origin: str
    release_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths and settings of one institution; opening it reads nothing else."""

    path: Path
    settings: Site = field(repr=False)
    content: bytes = field(default=b"", repr=False)  # of site.toml, as the settings were read

    @property
    def origin(self) -> str:
        """The name of the institution's log."""
        return f"privity.invalid/institution/{self.settings.name}"

    @property
    def data(self) -> Path:
        """The records file; relative paths start at the folder."""
        return self.path / self.settings.data.path

    @property
    def runtime(self) -> Path:
        """Locks, ports and Flower's working files; safe to delete while stopped."""
        return self.path / "runtime"

    def run(self, name: str) -> Path:
        """Folder of one run's plan, decision and outbox.

        Raises:
            ClientError: `name` is no run's name; it is never taken for a path.
        """
        if not is_name(name):
            raise ClientError(
                "a run's name is 1 to 63 of a-z 0-9 _ - and single dots; see privity client doctor",
                code="bad-run",
            )
        return self.path / "runs" / name

    def keys(self) -> audit.keys.KeyRing:
        """The institution's evidence keys."""
        return audit.keys.load(self.path / "keys")

    def log(self) -> audit.log.Log:
        """The institution's log, open for appending; changed settings are entered first."""
        log = audit.log.Log.open(self.path / "log", keys=self.keys())
        audit.settings.notice(log, self.path / _SETTINGS, self.memory, self.content)
        return log

    @property
    def memory(self) -> Path:
        """What the log knows of site.toml: digests."""
        return self.path / "state" / "site.seen.json"

    def ledger(self) -> Ledger:
        """The institution's budget ledger."""
        return Ledger.open(self.path / "ledger.sqlite")

    def witness(self) -> audit.witness.Witness:
        """The institution as a witness of the coordinator's log."""
        return audit.witness.Witness(self.path / "state" / "witness.sqlite", self.keys())

    def pseudonym_secret(self) -> bytes:
        """Key of the surrogates; whoever holds it can recompute them."""
        return files.read_secret(self.path / "keys" / "surrogates.secret")

    def node_key(self) -> ec.EllipticCurvePrivateKey:
        """The P-384 key that authenticates this institution's SuperNode."""
        path = self.path / "keys" / "node.key"
        try:
            key = load_ssh_private_key(path.read_bytes(), None)
        except (OSError, ValueError):
            raise ClientError(
                f"{path} is missing or damaged; restore it from your backup", code="node-key"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ClientError(f"{path} is not an elliptic curve key; restore it", code="node-key")
        return key

    def invitation(self) -> Invitation:
        """The coordinator's invitation.

        Raises:
            ClientError: there is none yet, or it is not one.
        """
        return read_invitation(self.path / "invitation.json")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one running client.

        Raises:
            ClientError: another client runs from this folder.
        """
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        busy = ClientError(
            f"a client runs from {self.path} already; stop it first",
            code="already-running",
            exit_code=3,
        )
        with files.hold(self.runtime / "lock", busy):
            yield


def create(path: Path, *, name: str, coordinator: str) -> Folder:
    """Make a new institution in `path`: keys, an empty ledger, an empty log, settings.

    Raises:
        ClientError: `path` holds something already.
    """
    if path.exists() and any(path.iterdir()):
        raise ClientError(f"{path} is not empty; choose a new folder", code="folder-taken")
    settings = Site(name=name, coordinator=coordinator)
    for part in ("keys", "state", "runs", "runtime"):
        (path / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(path, 0o700)
    node = ec.generate_private_key(ec.SECP384R1())
    files.replace(
        path / "keys" / "node.key",
        node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        mode=files.PRIVATE,
    )
    line = node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    files.create_secret(path / "keys" / "surrogates.secret")
    keys = audit.keys.create(path / "keys", name)
    folder = Folder(path, settings)
    audit.log.Log.create(path / "log", keys=keys, origin=folder.origin, software=SOFTWARE).close()
    Ledger.create(path / "ledger.sqlite")
    enrolment: dict[str, Any] = {
        "format": 1,
        "name": name,
        "node_key": line.decode(),
        "keys": keys.public().to_json(),
    }
    files.replace(path / "enroll.json", json.dumps(enrolment, indent=2).encode() + b"\n")
    toml = _toml(settings).encode()
    files.replace(path / _SETTINGS, toml)
    audit.settings.remember(folder.memory, toml, tomllib.loads(toml.decode()))
    return replace(folder, content=toml)


def open_folder(path: Path) -> Folder:
    """Open the institution in `path`.

    Raises:
        ClientError: there is none. ConfigError: its settings cannot be used.
    """
    if not (path / _SETTINGS).exists():
        raise ClientError(
            f"{path} is not an institution's folder; run: privity client init {path} --name NAME "
            "--coordinator HOST:PORT",
            code="no-folder",
        )
    settings = load(path / _SETTINGS, Site)
    return Folder(path, settings, (path / _SETTINGS).read_bytes())


def read_invitation(path: Path) -> Invitation:
    """Read an invitation file.

    Raises:
        ClientError: it is missing, is not one, or was written by a newer version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ClientError(
            f"{path} is missing; send enroll.json to the coordinator and put the invitation that "
            "comes back here",
            code="no-invitation",
        ) from None
    try:
        values = json.loads(text)
        newer = values["format"] != 1
        invitation = Invitation(
            coordinator=str(values["coordinator"]),
            authority=str(values["authority"]).encode("ascii"),
            keys=audit.keys.PublicKeys.from_json(values["keys"]),
            origin=str(values["origin"]),
            release_key=str(values["release_key"]).encode("ascii"),
        )
    except Exception:
        raise ClientError(
            f"{path} is not an invitation; ask the coordinator for it again", code="bad-invitation"
        ) from None
    if newer:
        raise ClientError(
            f"{path} was written by a newer version; install the newer privity",
            code="newer-format",
        )
    return invitation


def _toml(site: Site) -> str:
    return f"""\
format = 1
name = "{site.name}"
coordinator = "{site.coordinator}"

[data]
path = "{site.data.path}"              # JSONL, JSON or CSV; stays here
person_column = "{site.data.person_column}"     # whose record it is: the unit that privacy protects
language = "auto"                   # en, zh or auto
profile = "clinical"                # clinical keeps ages under 90 and doses; strict masks more

[budget]
cohort = "{site.budget.cohort}"
epsilon = 2.0                       # the most that any one person may ever cost, over all runs
delta = 1e-5

[policy]
approve = "ask"                     # ask: wait for privity client approve; policy: decide by these
models = ["smollm2-135m-instruct"]
run_epsilon = 2.0                   # the most that one run may ask for
max_steps = 1000
max_update_norm = 10000.0

[trainer]
network = "none"                    # none: without network or not at all; warn: also where the
                                    # system cannot cut the trainer off

[runtime]
threads = 0                         # 0: all
chunk_tokens = 384                  # bounds memory: padded tokens trained on at a time
columns = 0                         # of each matrix that this machine trains; 0: all
port = 0                            # runner's port on loopback; 0: any free one
connect_timeout_s = 300.0

[metrics]
port = 0                            # for a Prometheus server on this machine; 0: off
"""
