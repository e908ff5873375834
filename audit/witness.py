"""A witness: cosigns another party's checkpoint only if it extends what it cosigned before.

c2sp.org/tlog-witness. The body of an `add-checkpoint` request travels inside our own messages, and
any C2SP witness understands it over HTTP.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from audit import merkle, note
from audit.canonical import from_base64, to_base64
from audit.errors import AuditError, InconsistentLog, Malformed, StaleRequest
from audit.keys import KeyRing
from audit.log import Log

MAX_PROOF_LINES = 63
SCHEMA_VERSION = 1
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Request:
    """An `add-checkpoint` request: the size to extend, the proof, and the signed checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: str


def request(log: Log, old_size: int) -> bytes:
    """Return the `add-checkpoint` body that asks to cosign a log's newest checkpoint.

    Args:
        log: the log to be witnessed.
        old_size: what the witness cosigned last, 0 for nothing (`Witness.last`).
    """
    signed = log.checkpoint()
    size = note.parse_checkpoint(note.parse(signed)).size
    lines = [f"old {old_size}", *(to_base64(h) for h in log.consistency(old_size, size)), "", ""]
    return "\n".join(lines).encode() + signed.encode()


def parse_request(body: bytes) -> Request:
    """Read an `add-checkpoint` body; nothing in it is trusted yet.

    Raises:
        Malformed: it is not one.
    """
    if len(body) > note.MAX_NOTE_BYTES:
        raise Malformed(
            f"a witness request is over {note.MAX_NOTE_BYTES} bytes", code="bad-request"
        )
    try:
        head, blank, checkpoint = body.decode("utf-8").partition("\n\n")
    except UnicodeError:
        raise Malformed("a witness request is not UTF-8", code="bad-request") from None
    first, *lines = head.split("\n")
    number = first.removeprefix("old ")
    if not blank or number == first or not _SIZE.fullmatch(number):
        raise Malformed("a witness request does not begin with 'old <size>'", code="bad-request")
    if len(lines) > MAX_PROOF_LINES:
        raise Malformed(
            f"a witness request has over {MAX_PROOF_LINES} proof lines", code="bad-request"
        )
    proof = tuple(from_base64(line, where="a proof line") for line in lines)
    note.parse(checkpoint)
    return Request(int(number), proof, checkpoint)


class Witness:
    """What one party remembers of the other parties' logs, in a file of its own.

    Guarantees: the head of each log is durable before a cosignature leaves, and is checked and
    replaced under one lock, so two requests at once cannot roll it back.
    """

    def __init__(
        self,
        path: Path,
        keys: KeyRing,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self._path = path
        self._keys = keys
        self._now = now
        with self._connect() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if not version <= SCHEMA_VERSION:
                raise AuditError(
                    f"{path} was written by a newer version; update privity",
                    code="newer-format",
                    exit_code=2,
                )
            db.execute(
                "CREATE TABLE IF NOT EXISTS heads (origin TEXT PRIMARY KEY, size INTEGER NOT NULL,"
                " root BLOB NOT NULL, note TEXT NOT NULL, time INTEGER NOT NULL)"
            )
            db.execute(
                "CREATE TABLE IF NOT EXISTS contradictions (origin TEXT NOT NULL,"
                " older TEXT NOT NULL, newer TEXT NOT NULL, time INTEGER NOT NULL)"
            )
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def last(self, origin: str) -> tuple[int, bytes] | None:
        """Return the size and root that were cosigned last for a log, or None."""
        with self._connect() as db:
            row = db.execute("SELECT size, root FROM heads WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else (int(row[0]), bytes(row[1]))

    def contradictions(self) -> tuple[tuple[str, str, str], ...]:
        """Return (origin, older note, newer note) of every refusal for inconsistency."""
        with self._connect() as db:
            rows = db.execute("SELECT origin, older, newer FROM contradictions ORDER BY rowid")
            return tuple((str(a), str(b), str(c)) for a, b, c in rows)

    def cosign_request(self, body: bytes, *, log_key: str, origin: str | None = None) -> str:
        """Answer an `add-checkpoint` body; see `cosign`."""
        asked = parse_request(body)
        return self.cosign(
            asked.checkpoint,
            old_size=asked.old_size,
            proof=asked.proof,
            log_key=log_key,
            origin=origin,
        )

    def cosign(
        self,
        checkpoint: str,
        *,
        old_size: int,
        proof: Sequence[bytes],
        log_key: str,
        origin: str | None = None,
    ) -> str:
        """Cosign a checkpoint if it extends the last one, and remember it.

        Args:
            checkpoint: the signed note.
            old_size: the size that `proof` starts from; must be the last one cosigned.
            proof: consistency proof from `old_size` to the checkpoint's size.
            log_key: the vkey that must have signed the checkpoint.
            origin: the log's origin, if the caller knows it.

        Returns:
            One cosignature/v1 line, with its newline.

        Raises:
            BadSignature: the log did not sign the checkpoint.
            StaleRequest: `old_size` is not the size cosigned last.
            InconsistentLog: the log was forked or rolled back; both notes are kept.
        """
        stated = note.open_checkpoint(checkpoint, key=note.parse_key(log_key), origin=origin)
        text = note.parse(checkpoint).text
        refusal: AuditError | None = None
        line = ""
        with self._connect() as db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute(
                "SELECT size, root, note, time FROM heads WHERE origin = ?", (stated.origin,)
            ).fetchone()
            size, root, older, time = row or (0, merkle.EMPTY_ROOT, "", 0)
            now = int(self._now().timestamp())
            try:
                _check_extends(
                    stated, checkpoint, size=size, root=bytes(root), older=older,
                    old_size=old_size, proof=proof,
                )  # fmt: skip
                if not now >= time:
                    raise AuditError(
                        "the clock went back since the last cosignature; correct it",
                        code="clock-went-back",
                    )
            except InconsistentLog as error:
                refusal = error
                db.execute(
                    "INSERT INTO contradictions VALUES (?, ?, ?, ?)",
                    (stated.origin, older, checkpoint, now),
                )
            except AuditError as error:
                refusal = error
            else:
                db.execute(
                    "INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?)",
                    (stated.origin, stated.size, stated.root, checkpoint, now),
                )
                name = f"{self._keys.name}/witness"
                line = str(note.cosign(text, name=name, key=self._keys.witness, time=now))
            db.execute("COMMIT")
        if refusal is not None:
            raise refusal
        return line

    def _connect(self) -> _Connection:
        return _Connection(self._path)


class _Connection:
    """A durable SQLite connection for one block, closed at its end."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=60.0, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        except (sqlite3.Error, OSError) as error:
            raise AuditError(
                f"the witness's memory {self._path} cannot be used ({error}); restore it",
                code="witness-unavailable",
            ) from None
        return self._db

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise AuditError(
                f"the witness's memory {self._path} cannot be used ({error}); restore it",
                code="witness-unavailable",
            ) from None


def _check_extends(
    stated: note.Checkpoint,
    checkpoint: str,
    *,
    size: int,
    root: bytes,
    older: str,
    old_size: int,
    proof: Sequence[bytes],
) -> None:
    """Check a checkpoint against the head that was cosigned last."""
    if stated.size < size:
        raise InconsistentLog(
            f"log {stated.origin!r} shows size {stated.size} after size {size} was cosigned; "
            "keep both notes and ask its operator",
            older=older,
            newer=checkpoint,
            proof=proof,
            code="log-rolled-back",
        )
    if old_size != size:
        raise StaleRequest(
            f"the request starts from size {old_size} but size {size} was cosigned last; "
            "ask again from there",
            size=size,
        )
    try:
        merkle.check_consistency(size, stated.size, proof, root, stated.root)
    except merkle.ProofFailed:
        raise InconsistentLog(
            f"log {stated.origin!r} at size {stated.size} does not extend size {size}; "
            "keep both notes and tell its operator",
            older=older,
            newer=checkpoint,
            proof=proof,
            code="log-forked",
        ) from None
