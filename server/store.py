"""The coordinator's folder: settings, keys, enrolled sites, mirrors of their logs, runs."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import audit.keys
import audit.log
import audit.settings
import audit.signing
import audit.witness
from configs import files
from configs.load import load
from configs.run import Run, is_name
from configs.site import Coordinator
from configs.version import SOFTWARE
from server import pki
from server.errors import ServerError
from server.mirror import Mirror

_SETTINGS = "coordinator.toml"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One site as the coordinator knows it: public keys only."""

    name: str
    node_key: str
    keys: audit.keys.PublicKeys
    next_key: str = ""  # admitted beside node_key until it has connected


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths and settings of one coordinator; opening it reads nothing else."""

    path: Path
    settings: Coordinator = field(repr=False)
    content: bytes = field(default=b"", repr=False)  # of coordinator.toml, as it was read

    @property
    def tls(self) -> Path:
        """Authority and server certificate with their keys."""
        return self.path / "tls"

    @property
    def link_database(self) -> Path:
        """Flower's own state: nodes, runs, messages in flight."""
        return self.path / "state" / "link.sqlite"

    @property
    def traffic(self) -> Path:
        """Bytes that crossed the public port, as the running SuperLink leaves them."""
        return self.path / "state" / "traffic.json"

    @property
    def release_key(self) -> Path:
        """The P-256 key that signs release folders."""
        return self.path / "keys" / "release.pem"

    @property
    def origin(self) -> str:
        """The name of the coordinator's log."""
        return f"privity.invalid/coordinator/{self.settings.name}"

    def run(self, name: str) -> Path:
        """Folder of one run's state.

        Raises:
            ServerError: `name` is no run's name; it is never taken for a path.
        """
        if not is_name(name):
            raise ServerError(
                "a run's name is 1 to 63 of a-z 0-9 _ - and single dots; correct it", code="bad-run"
            )
        return self.path / "runs" / name

    @property
    def release_public(self) -> Path:
        """The public half of the release key, as invitations carry it."""
        return self.path / "keys" / "release.pem.pub"

    def mirror_of(self, site: Enrolled) -> Mirror:
        """The coordinator's copy of one site's log."""
        origin = f"privity.invalid/institution/{site.name}"
        return Mirror(self.path / "mirrors" / site.name, site.keys, origin)

    def control_token(self) -> str:
        """Bearer token of the control interface."""
        return files.read_secret(self.path / "secrets" / "control.token").hex()

    def runtime_secret(self) -> bytes:
        """Secret that a process must know to take a task."""
        return files.read_secret(self.path / "secrets" / "runtime.secret")

    def watermark_master(self) -> bytes:
        """Master key of every watermark subkey."""
        return files.read_secret(self.path / "secrets" / "watermark.master")

    def keys(self) -> audit.keys.KeyRing:
        """The coordinator's evidence keys."""
        return audit.keys.load(self.path / "keys")

    def log(self) -> audit.log.Log:
        """The coordinator's log, open for appending; changed settings are entered first."""
        log = audit.log.Log.open(self.path / "log", keys=self.keys())
        audit.settings.notice(log, self.path / _SETTINGS, self.memory, self.content)
        return log

    @property
    def memory(self) -> Path:
        """What the log knows of coordinator.toml: digests."""
        return self.path / "state" / "coordinator.seen.json"

    def witness(self) -> audit.witness.Witness:
        """The coordinator as a witness of its sites' logs."""
        return audit.witness.Witness(self.path / "state" / "witness.sqlite", self.keys())

    def enrolled(self) -> dict[str, Enrolled]:
        """Every enrolled site by name.

        Raises:
            ServerError: an enrolment file is damaged.
        """
        found = {}
        for path in sorted((self.path / "enrolled").glob("*.json")):
            found[path.stem] = read_enrolment(path)
        return found

    def known(self) -> dict[str, Enrolled]:
        """Every site that was ever enrolled, revoked ones too: whose evidence may be held.

        Raises:
            ServerError: an enrolment file is damaged.
        """
        revoked = sorted((self.path / "revoked").glob("*.json"))
        return {path.stem: read_enrolment(path) for path in revoked} | self.enrolled()

    def node_keys(self) -> Mapping[str, str]:
        """Site names by node key, for the SuperLink; a site that renews its key has two."""
        return {
            key: name
            for name, site in self.enrolled().items()
            for key in (site.node_key, site.next_key)
            if key
        }


def create(path: Path, *, name: str, host: str, port: int, control_port: int) -> Folder:
    """Make a new coordinator in `path`: keys, certificates, secrets, an empty log.

    Raises:
        ServerError: `path` holds something already, or the name or host cannot be used; then
            nothing is made.
    """
    if path.exists() and any(path.iterdir()):
        raise ServerError(f"{path} is not empty; choose a new folder", code="folder-taken")
    if not is_name(name):
        raise ServerError(
            "a name is 1 to 63 of a-z 0-9 _ - and single dots, and starts with a letter or digit; "
            "correct it",
            code="bad-name",
        )
    ca = pki.authority(name)
    tls = pki.server(host, ca)
    settings = Coordinator(name=name, host=host, port=port, control_port=control_port)
    toml = (
        f'format = 1\nname = "{settings.name}"\n\n'
        "# The address that sites dial; the certificate names it.\n"
        f'host = "{settings.host}"\nport = {settings.port}\n'
        '# Where the public port listens: "0.0.0.0" to reach it from other machines.\n'
        f'bind = "{settings.bind}"\n'
        "# Control and runtime interface, loopback only.\n"
        f"control_port = {settings.control_port}\n\n"
        "# Numbers for a Prometheus server; 0: off. Nothing asks who reads: keep it on loopback.\n"
        f'[metrics]\nport = 0\nhost = "{settings.metrics.host}"\n'
    )
    for part in ("tls", "keys", "secrets", "state", "enrolled", "invitations", "runs", "mirrors"):
        (path / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(path, 0o700)
    files.replace(path / "tls" / "ca.key", ca.key, mode=files.PRIVATE)
    files.replace(path / "tls" / "ca.pem", ca.certificate)
    files.replace(path / "tls" / "server.key", tls.key, mode=files.PRIVATE)
    files.replace(path / "tls" / "server.pem", tls.certificate)
    for secret in ("control.token", "runtime.secret", "watermark.master"):
        files.create_secret(path / "secrets" / secret)
    keys = audit.keys.create(path / "keys", name)
    audit.signing.create_key(path / "keys" / "release.pem")
    folder = Folder(path, settings)
    audit.log.Log.create(path / "log", keys=keys, origin=folder.origin, software=SOFTWARE).close()
    files.replace(path / _SETTINGS, toml.encode())
    audit.settings.remember(folder.memory, toml.encode(), tomllib.loads(toml))
    return replace(folder, content=toml.encode())


def open_folder(path: Path) -> Folder:
    """Open the coordinator in `path`.

    Raises:
        ServerError: there is none. ConfigError: its settings cannot be used.
    """
    if not (path / _SETTINGS).exists():
        raise ServerError(
            f"{path} is not a coordinator; run: privity server init {path} --name NAME",
            code="no-folder",
        )
    settings = load(path / _SETTINGS, Coordinator)
    return Folder(path, settings, (path / _SETTINGS).read_bytes())


def read_enrolment(path: Path) -> Enrolled:
    """Read a site's enrolment file.

    Raises:
        ServerError: it is not one, or was written by a newer version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != 1:
            raise ServerError(
                f"{path} was written by a newer version; install the newer privity",
                code="newer-format",
            )
        keys = audit.keys.PublicKeys.from_json(values["keys"])
        node_key = values["node_key"]
        if not isinstance(node_key, str) or keys.name != values["name"]:
            raise ValueError
        return Enrolled(str(values["name"]), node_key, keys, str(values.get("next_node_key", "")))
    except ServerError:
        raise
    except Exception:
        raise ServerError(
            f"{path} is not a site's enrolment file; use the enroll.json of privity client init",
            code="bad-enrolment",
        ) from None


def load_run(path: Path, folder: Folder, *, begun: bool = False) -> Run:
    """Read RUN.toml and check it against the enrolled sites.

    Args:
        path: RUN.toml.
        folder: the coordinator.
        begun: whether the run exists; then a site that was revoked since may be in it.

    Raises:
        ServerError: an institution is not enrolled, or the quorum cannot be met.
    """
    run = load(path, Run)
    known = folder.known() if begun else folder.enrolled()
    missing = [name for name in run.federation.institutions if name not in known]
    if missing:
        raise ServerError(
            f"{path}: {', '.join(missing)} not enrolled; run: privity server enroll "
            f"{folder.path} SITE-FILE",
            code="not-enrolled",
        )
    if len(set(run.federation.institutions)) != len(run.federation.institutions):
        raise ServerError(f"{path}: an institution is listed twice; list it once", code="twice")
    if run.federation.quorum > len(run.federation.institutions):
        raise ServerError(
            f"{path}: the quorum is larger than the number of institutions; lower it",
            code="quorum",
        )
    if not run.federation.quorum >= run.aggregation.least:
        raise ServerError(
            f"{path}: {run.aggregation.method} against {run.aggregation.faulty} faulty sites needs "
            f"a quorum of {run.aggregation.least}; raise federation.quorum or lower "
            "aggregation.faulty",
            code="quorum",
        )
    return run
