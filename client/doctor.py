"""Preflight of an institution: everything that could stop a run, with its remedy."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from client import connect, renewal, succession
from client import folder as folders
from client.errors import ClientError
from client.folder import Folder

_FREE_BYTES = 2 * 1024**3
_MEMORY_BYTES = 3 * 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `verdict` is PASS, WARN or FAIL."""

    verdict: str
    name: str
    finding: str
    remedy: str = ""

    def document(self) -> dict[str, str]:
        """The check as JSON values."""
        return {
            "verdict": self.verdict,
            "name": self.name,
            "finding": self.finding,
            "remedy": self.remedy,
        }


def examine(path: Path) -> list[Check]:
    """Run every check; a check that cannot be made is a FAIL.

    Raises:
        ClientError: `path` is no institution's folder. ConfigError: site.toml cannot be used.
    """
    folder = folders.open_folder(path)
    return list(_all(folder))


def _all(folder: Folder) -> Iterator[Check]:
    yield Check("PASS", "settings", "site.toml is in order")
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("PASS", "python", version)
    yield _guard("keys", lambda: _keys(folder))
    yield _guard("records", lambda: _records(folder))
    yield _guard("trainer", lambda: _trainer(folder))
    yield _guard("log", lambda: f"{folder.log().size} entries, intact")
    yield _guard("ledger", lambda: _ledger(folder))
    yield _guard("ledger in log", lambda: _heads(folder))
    yield from _models(folder)
    yield _guard("invitation", lambda: _invitation(folder))
    yield _guard("coordinator", lambda: _coordinator(folder))
    yield _guard("certificate", lambda: _certificate(folder))
    yield _guard("node key", lambda: _node_key(folder))
    free = shutil.disk_usage(folder.path).free
    yield _enough("disk", free, _FREE_BYTES, "free space where the folder lies")
    yield _memory()


def _guard(name: str, probe: Callable[[], str | Check]) -> Check:
    """PASS with the probe's words, or FAIL with the sentence of what it raised."""
    try:
        found = probe()
    except Exception as fault:
        if not isinstance(getattr(fault, "exit_code", None), int):
            return Check("FAIL", name, f"unforeseen {type(fault).__name__}", "run with --debug")
        finding, _, remedy = str(fault).partition(";")
        return Check("FAIL", name, finding.strip(), remedy.strip())
    return found if isinstance(found, Check) else Check("PASS", name, found)


def _keys(folder: Folder) -> str:
    folder.keys()
    folder.node_key()
    folder.pseudonym_secret()
    exposed = [p.name for p in (folder.path / "keys").iterdir()
               if p.stat().st_mode & 0o077 and not p.name.startswith("public")]  # fmt: skip
    if exposed:
        raise ClientError(f"{', '.join(sorted(exposed))} readable by others; run chmod 600 on them")
    return "present, readable by the owner only"


def _records(folder: Folder) -> str | Check:
    from client import people

    data = folder.data
    if not data.is_file():
        raise ClientError(f"{data} does not exist; set data.path in site.toml")
    if not os.access(data, os.R_OK):
        raise ClientError(f"{data} cannot be read; correct its permissions")
    people.prepared(folder)
    if data.stat().st_mode & 0o007:
        return Check("WARN", "records", f"{data.name} is readable by everybody",
                     f"chmod o-rwx {data}")  # fmt: skip
    return f"{data.name} is there; privity client scrub reads it"


def _trainer(folder: Folder) -> str | Check:
    from client import cell

    found = cell.probe(folder)
    if found.network == "none":
        return "runs without network, sees no key, reads the records and writes none"
    text = f"this system does not let it be cut off from the network ({found.reason})"
    if folder.settings.trainer.network == "warn":
        return Check("WARN", "trainer", text, "put an outbound firewall around this machine")
    return Check(
        "FAIL",
        "trainer",
        text,
        "ask the administrator to allow user namespaces (kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns; in a container its seccomp profile), or "
        'set trainer.network = "warn" in site.toml behind an outbound firewall',
    )


def _ledger(folder: Folder) -> str | Check:
    limits = folder.settings.budget
    balance = folder.ledger().balance(limits.cohort, delta=limits.delta, cap=limits.epsilon)
    text = f"ε {balance.left:.3f} of {balance.cap:g} left per person at δ {balance.delta:g}"
    if not balance.left > 0.05:
        return Check("WARN", "ledger", text, "no further run fits; the cap is yours to set")
    return text


def _heads(folder: Folder) -> str:
    from client import evidence

    evidence.check_ledger(folder, folder.log())
    return "the ledger holds every head that the log published"


def _models(folder: Folder) -> Iterator[Check]:
    from model import catalog
    from model.errors import ModelError

    for name in folder.settings.policy.models:
        try:
            found = catalog.find(name)
        except ModelError as fault:
            finding, _, remedy = str(fault).partition(";")
            yield Check("FAIL", "model", finding.strip(), remedy.strip())
        else:
            yield Check("PASS", "model", f"{found.name} {found.digest[:19]}…")


def _invitation(folder: Folder) -> str | Check:
    invitation = folder.invitation()
    if invitation.coordinator != folder.settings.coordinator:
        return Check(
            "WARN",
            "invitation",
            f"it names {invitation.coordinator}, site.toml {folder.settings.coordinator}",
            "the invitation's address is used; correct site.toml",
        )
    stated = f"from {invitation.keys.name}, fingerprint {invitation.keys.fingerprint}"
    newest = succession.known(folder, invitation)[-1].fingerprint
    rotated = newest != invitation.keys.fingerprint
    return f"{stated}; its keys were rotated since, now {newest}" if rotated else stated


def _coordinator(folder: Folder) -> str:
    invitation = folder.invitation()
    connect.check_coordinator(invitation)
    return f"{invitation.coordinator} answers with the invited certificate"


def _certificate(folder: Folder) -> str | Check:
    server, authority = connect.certificate_days(folder.invitation())
    text = f"the coordinator's ends in {server} days, its authority's in {authority}"
    if authority < renewal.WARN_DAYS:
        return Check("WARN", "certificate", text, "ask the coordinator for a new invitation")
    if server < renewal.WARN_DAYS:
        return Check("WARN", "certificate", text, "ask the coordinator for privity server renew")
    return text


def _node_key(folder: Folder) -> str | Check:
    days = renewal.key_days(folder)
    if renewal.pending(folder).exists():
        text = "the next one waits until the coordinator admits it"
        return Check("WARN", "node key", text, "send renew.json, then restart the client")
    if days < renewal.WARN_DAYS:
        remedy = f"privity client renew {folder.path}"
        return Check("WARN", "node key", f"due in {days} days", remedy)
    return f"due in {days} days"


def _enough(name: str, have: int, need: int, remedy: str) -> Check:
    text = f"{have / 1024**3:.1f} GiB free, {need / 1024**3:.0f} GiB wanted"
    return Check("PASS", name, text) if have >= need else Check("FAIL", name, text, remedy)


def _memory() -> Check:
    try:
        pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return Check("WARN", "memory", "cannot be read on this system")
    have = pages * size
    text = f"{have / 1024**3:.1f} GiB free, {_MEMORY_BYTES / 1024**3:.0f} GiB wanted"
    if have >= _MEMORY_BYTES:
        return Check("PASS", "memory", text)
    return Check("WARN", "memory", text, "lower runtime.chunk_tokens, or close programs")
