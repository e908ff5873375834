"""A compliance officer's own log: which ranges of which logs were read, and with what outcome.

It is a log like the parties' own, under the officer's own keys, in the officer's own folder. A
sign-off names the root of the log that was read, so that a log which was changed no longer fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from audit import canonical, digests, disclosures, keys, stored
from audit.bundle import Bundle
from audit.canonical import JSON
from audit.errors import AuditError
from audit.findings import Findings
from audit.hsm import Token
from audit.kinds_officer import SIGN_OFF
from audit.log import Log

DECISIONS = ("reviewed", "objected")
_KEYS, _LOG = "keys", "log"


@dataclass(frozen=True, slots=True)
class SignOff:
    """One sign-off as it stands in the officer's log.

    `fits` says whether the log that was read still is what was read; None if it is not in the
    bundle at hand.
    """

    index: int
    time: datetime
    officer: str
    log: str
    first: int
    last: int
    verdict: str
    decision: str
    problems: int
    root: str
    bundle_digest: str
    fits: bool | None


class Officer:
    """An officer's keys and log."""

    def __init__(self, log: Log, name: str, fingerprint: str) -> None:
        self._log = log
        self.name = name
        self.fingerprint = fingerprint

    @classmethod
    def create(
        cls,
        folder: Path,
        name: str,
        *,
        passphrase: bytes | None = None,
        token: Token | None = None,
    ) -> Officer:
        """Make keys and an empty log in a new folder.

        Args:
            folder: the new folder.
            name: of the officer or the office.
            passphrase: locks the keys, or opens the token; by default as for every party's keys.
            token: make the keys in this PKCS #11 token.

        Raises:
            AuditError: exit code 2; there are keys already, the folder cannot be written, or the
                name cannot be a log's.
        """
        try:
            keys.check_name(name)
        except AuditError as error:
            raise AuditError(str(error), code=error.code, exit_code=2) from None
        ring = keys.create(folder / _KEYS, name, passphrase=passphrase, token=token)
        log = Log.create(folder / _LOG, keys=ring)
        log.checkpoint()
        return cls(log, name, ring.public().fingerprint)

    @classmethod
    def open(cls, folder: Path) -> Officer:
        """Open what `create` made.

        Raises:
            AuditError: there is none, or the log contradicts what it signed before.
        """
        ring = keys.load(folder / _KEYS)
        return cls(Log.open(folder / _LOG, keys=ring), ring.name, ring.public().fingerprint)

    def sign(
        self,
        bundle: Bundle,
        *,
        log: str,
        first: int,
        last: int,
        decision: str,
        holds: bool,
        problems: int,
    ) -> SignOff:
        """Log that entries `first` to `last` of a party's log were read.

        Args:
            bundle: the bundle that was read.
            log: the party whose log it is.
            first: index of the first entry.
            last: index of the last entry, included.
            decision: `reviewed` or `objected`.
            holds: the verifier's verdict over the bundle at this moment.
            problems: how many entries of the range report a problem.

        Guarantees: durable, and under a new checkpoint of the officer's log, before it returns.

        Raises:
            AuditError: exit code 2; no such log or range, or no such decision.
        """
        known = stored.logs(bundle)
        if log not in known or decision not in DECISIONS:
            raise AuditError(
                f"a sign-off is about one of {', '.join(known)} and says one of "
                f"{', '.join(DECISIONS)}",
                code="bad-signoff",
                exit_code=2,
            )
        checkpoint, _ = stored.stated(bundle, *known[log])
        if not 0 <= first <= last < checkpoint.size:
            raise AuditError(
                f"the log of {log} has entries 0 to {checkpoint.size - 1}; give a range of them, "
                "the smaller number first",
                code="bad-range",
                exit_code=2,
            )
        fields: dict[str, JSON] = {
            "bundle_digest": bundle.digest,
            "log": log,
            "first": first,
            "last": last,
            "size": checkpoint.size,
            "root": "sha256:" + checkpoint.root.hex(),
            "verdict": "ok" if holds else "faults",
            "decision": decision,
            "problems": problems,
        }
        self._enter(SIGN_OFF, fields)
        return self.listed(bundle)[-1]

    def verified(self, findings: Findings) -> int:
        """Log that the verifier ran over a bundle, and what it said; return the entry's index."""
        codes: list[JSON] = [*sorted({fault.code for fault in findings.faults})]
        fields: dict[str, JSON] = {
            "bundle_digest": findings.bundle_digest or canonical.digest(b""),
            "verdict": "ok" if findings.ok else "faults",
        }
        return self._enter("verifier-run", fields | ({"faults": codes} if codes else {}))

    def exported(self, form: str, out: Path, *, entries: int, recipient: str) -> int:
        """Log that entries were copied out, for whom as a commitment; return the entry's index."""
        fields: dict[str, JSON] = {
            "form": form,
            "digest": digests.file_digest(out),
            "entries": entries,
            **disclosures.Table(self._log.folder).commit({"recipient": recipient}),
        }
        return self._enter("export", fields)

    def _enter(self, kind: str, fields: dict[str, JSON]) -> int:
        index = self._log.append(kind, fields).index
        self._log.checkpoint()
        return index

    def listed(self, bundle: Bundle | None = None) -> tuple[SignOff, ...]:
        """Every sign-off, oldest first, compared with the logs of a bundle if one is given."""
        return tuple(
            SignOff(
                index=entry.index,
                time=entry.event.time,
                officer=self.name,
                log=fields["log"],
                first=fields["first"],
                last=fields["last"],
                verdict=fields["verdict"],
                decision=fields["decision"],
                problems=fields["problems"],
                root=fields["root"],
                bundle_digest=fields["bundle_digest"],
                fits=_fits(bundle, fields),
            )
            for entry in self._log.entries(SIGN_OFF)
            for fields in (entry.event.fields,)
        )


def _fits(bundle: Bundle | None, fields: Mapping[str, JSON]) -> bool | None:
    """Whether the log in the bundle extends the log that was read."""
    known = {} if bundle is None else stored.logs(bundle)
    name, size = str(fields["log"]), fields["size"]
    if bundle is None or name not in known or not isinstance(size, int):
        return None
    try:
        return "sha256:" + stored.root(bundle, name, size).hex() == fields["root"]
    except AuditError:
        return False
