"""What people say about answers: kept at the site, reviewed by a person, then training records."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from client.errors import ClientError

Verdict = Literal["up", "down"]
Review = Literal["new", "accepted", "rejected"]
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS feedback (
  id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL,
  answer_id TEXT NOT NULL, model TEXT NOT NULL,
  user TEXT NOT NULL, verdict TEXT NOT NULL, messages TEXT NOT NULL, answer TEXT NOT NULL,
  correction TEXT, comment TEXT, person TEXT, review TEXT NOT NULL DEFAULT 'new',
  UNIQUE (user, answer_id)
) STRICT;
"""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one person says about one answer.

    Attributes:
        answer_id: of the answer, as the service gave it.
        model: the release that answered.
        user: whose key, and the user's name under it.
        verdict: "up" or "down".
        messages: the conversation that was answered.
        answer: what was answered.
        correction: what should have been.
        comment: anything else.
        person: whom it is about, if that person consented to its use.
    """

    answer_id: str
    model: str
    user: str
    verdict: Verdict
    messages: tuple[Mapping[str, str], ...] = field(repr=False)
    answer: str = field(repr=False)
    correction: str | None = field(default=None, repr=False)
    comment: str | None = field(default=None, repr=False)
    person: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A judgement as it is stored: its number, when it came, and what the review said."""

    number: int
    time: str
    review: Review
    judgement: Judgement = field(repr=False)


class FeedbackStore:
    """The judgements of one site, in one SQLite file that only its owner reads."""

    def __init__(self, path: Path) -> None:
        """Open the store, or make it (mode 0600).

        Raises:
            ClientError: the file is damaged, of a newer version, or readable by others.
        """
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        if path.stat().st_mode & 0o077:
            raise ClientError(f"{path} is readable by others; run chmod 600 on it", code="open-db")
        try:
            with self._open() as database:
                version = int(database.execute("PRAGMA user_version").fetchone()[0])
                if version > _VERSION:
                    raise ClientError(
                        f"{path} was written by a newer version; install the newer privity",
                        code="newer-format",
                    )
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(_TABLE)
                database.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.DatabaseError:
            raise ClientError(
                f"{path} is damaged; restore it from your backup", code="bad-db"
            ) from None

    def add(self, judgement: Judgement) -> None:
        """Keep a judgement; a later one of the same user on the same answer takes its place."""
        values = (
            datetime.now(UTC).isoformat(timespec="seconds"),
            judgement.answer_id,
            judgement.model,
            judgement.user,
            judgement.verdict,
            json.dumps([dict(message) for message in judgement.messages], ensure_ascii=False),
            judgement.answer,
            judgement.correction,
            judgement.comment,
            judgement.person,
        )
        with self._open() as database:
            database.execute(
                "INSERT OR REPLACE INTO feedback (time, answer_id, model, user, verdict, messages, "
                "answer, correction, comment, person) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def rows(self, review: Review | None = None, *, most: int | None = None) -> list[Kept]:
        """Judgements, the newest first."""
        with self._open() as database:
            found = database.execute(
                "SELECT * FROM feedback WHERE ? IS NULL OR review = ? ORDER BY id DESC LIMIT ?",
                (review, review, -1 if most is None else most),
            )
            return [_kept(row) for row in found]

    def counts(self) -> dict[str, int]:
        """How many judgements there are by review."""
        with self._open() as database:
            found = database.execute("SELECT review, count(*) FROM feedback GROUP BY review")
            return {"new": 0, "accepted": 0, "rejected": 0, **dict(found.fetchall())}

    def review(self, number: int, decision: Review) -> bool:
        """Note a review's decision; False if there is no such judgement."""
        with self._open() as database:
            changed = database.execute(
                "UPDATE feedback SET review = ? WHERE id = ?", (decision, number)
            )
            return changed.rowcount == 1

    def forget(self, person: str) -> int:
        """Delete every judgement about a person; return how many there were."""
        with self._open() as database:
            database.execute("PRAGMA secure_delete = ON")
            return database.execute("DELETE FROM feedback WHERE person = ?", (person,)).rowcount

    def older(self, before: datetime) -> int:
        """How many judgements are from before a time."""
        with self._open() as database:
            found = database.execute("SELECT count(*) FROM feedback WHERE time < ?", _utc(before))
            return int(found.fetchone()[0])

    def forget_older(self, before: datetime) -> int:
        """Delete every judgement from before a time; return how many there were."""
        with self._open() as database:
            database.execute("PRAGMA secure_delete = ON")
            return database.execute("DELETE FROM feedback WHERE time < ?", _utc(before)).rowcount

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as database:
            database.row_factory = _by_name
            with database:
                yield database


def records(rows: Sequence[Kept], *, person_column: str) -> dict[int, dict[str, Any]]:
    """The training records in accepted judgements by their numbers, the newest first.

    A good answer is a record as it is; a bad one needs its correction, and is kept beside it as
    "rejected", so that the two are a preference. Without a person's consent, the unit of privacy is
    the user who judged, so that many judgements of one user count as one person's.
    """
    found = {}
    for row in sorted(rows, key=lambda row: -row.number):
        judgement = row.judgement
        response = judgement.correction or (judgement.answer if judgement.verdict == "up" else "")
        if row.review != "accepted" or not response.strip():
            continue
        asked = "\n\n".join(message["content"] for message in judgement.messages)
        record: dict[str, Any] = {
            "instruction": asked,
            "response": response,
            person_column: judgement.person or f"feedback:{judgement.user}",
            "category": "feedback",
        }
        if judgement.correction and judgement.answer.strip():
            record["rejected"] = judgement.answer
        found[row.number] = record
    return found


def _utc(moment: datetime) -> tuple[str]:
    return (moment.astimezone(UTC).isoformat(timespec="seconds"),)


def _by_name(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Any:
    names = [column[0] for column in cursor.description]
    return dict(zip(names, row, strict=True)) if "answer_id" in names else row


def _kept(row: Mapping[str, Any]) -> Kept:
    judgement = Judgement(
        row["answer_id"],
        row["model"],
        row["user"],
        row["verdict"],
        tuple(json.loads(row["messages"])),
        row["answer"],
        row["correction"],
        row["comment"],
        row["person"],
    )
    return Kept(row["id"], row["time"], row["review"], judgement)
