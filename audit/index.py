"""An index over one bundle's entries, so that a page answers at once however long the logs are.

A SQLite file outside the bundle, made once per bundle and thrown away without loss. It is no
evidence: an entry's page reads the entry from the bundle and checks its proof there.

The table that is searched holds ten small numbers a row, and rows are numbered by time. A search
walks it from the newest row and stops when a page is full, and one that finds nothing walks all of
it; that is fast enough for a million, so no combination of filters needs an index of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from audit import stored
from audit.bundle import Bundle
from audit.entries import Entry
from audit.errors import AuditError

_VERSION = 2
_SCHEMA = """
CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, log INTEGER NOT NULL, seq INTEGER NOT NULL, time INTEGER NOT NULL,
    kind INTEGER NOT NULL, run INTEGER NOT NULL, round INTEGER NOT NULL, about INTEGER NOT NULL,
    problem INTEGER NOT NULL
);
CREATE TABLE texts (id INTEGER PRIMARY KEY, facts TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE states (
    round INTEGER NOT NULL, institution TEXT NOT NULL, state TEXT NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (round, institution)
) WITHOUT ROWID;
CREATE TABLE summary (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
# Made when all rows are in.
_INDEXES = """
CREATE INDEX places ON rows (log, seq);
CREATE INDEX kinds ON rows (kind);
CREATE INDEX rounds ON rows (round);
CREATE INDEX problems ON rows (id) WHERE problem = 1;
"""
_NONE = -1
_COUNTED = 1000  # matches are counted up to here and then said to be more
_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for; empty parts ask for nothing. `before` continues a list downwards."""

    institution: str = ""
    kind: str = ""
    run: str = ""
    round: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    problems: bool = False
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One entry in a list."""

    id: int
    log: str
    index: int
    time: datetime
    kind: str
    run: str
    round: int | None
    facts: str
    problem: str

    @property
    def place(self) -> str:
        """`NAME:INDEX`, as `privity audit show --entry` takes it."""
        return f"{self.log}:{self.index}"


@dataclass(frozen=True, slots=True)
class Found:
    """One page of a list, newest first. `count` stops at 1000; `more` says that it goes on."""

    lines: tuple[Line, ...]
    count: int
    more: bool


class Index:
    """An open index. Reading only; each call opens its own connection, so threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def search(self, query: Query, *, limit: int = 50) -> Found:
        """Return the newest entries that fit, at most `limit` of them."""
        with self._read() as db:
            where, values = _where(db, query)
            if where is None:
                return Found((), 0, False)
            rows = db.execute(
                f"SELECT id FROM rows WHERE {where} ORDER BY id DESC LIMIT ?",  # noqa: S608
                (*values, limit + 1),
            ).fetchall()
            ids = [row[0] for row in rows[:limit]]
            if len(rows) <= limit and query.before is None:
                count = len(rows)
            else:
                whole, all_values = _where(db, query, whole=True)
                count = db.execute(
                    f"SELECT count(*) FROM (SELECT 1 FROM rows WHERE {whole} LIMIT ?)",  # noqa: S608
                    (*all_values, _COUNTED),
                ).fetchone()[0]
            return Found(tuple(_lines(db, ids)), count, len(rows) > limit)

    def words(self, column: str) -> tuple[str, ...]:
        """The values that occur in `log`, `kind` or `run`, in order."""
        if column not in ("log", "kind", "run"):
            raise ValueError(column)
        with self._read() as db:
            values = db.execute("SELECT word FROM words WHERE word LIKE ?", (f"{column}:%",))
            return tuple(sorted(word.partition(":")[2] for (word,) in values if word != "run:"))

    def problems(self, log: str, first: int, last: int) -> int:
        """How many of the entries `first` to `last` of a log report a problem."""
        with self._read() as db:
            row = db.execute(
                "SELECT count(*) FROM rows JOIN words w ON w.id = log WHERE problem = 1 "
                "AND w.word = ? AND seq BETWEEN ? AND ?",
                (f"log:{log}", first, last),
            ).fetchone()
        return int(row[0])

    def states(self, first: int, count: int) -> dict[int, dict[str, tuple[str, str]]]:
        """What became of each institution in rounds [first, first + count): state and entry."""
        found: dict[int, dict[str, tuple[str, str]]] = {}
        with self._read() as db:
            for turn, name, state, log, seq in db.execute(
                "SELECT s.round, s.institution, s.state, w.word, r.seq FROM states s "
                "JOIN rows r ON r.id = s.row JOIN words w ON w.id = r.log "
                "WHERE s.round >= ? AND s.round < ?",
                (first, first + count),
            ):
                place = f"{log.partition(':')[2]}:{seq}"
                found.setdefault(turn, {})[name] = (state, place)
        return found

    def number(self, name: str) -> int:
        """`entries`, `problems` or `rounds`."""
        with self._read() as db:
            row = db.execute("SELECT value FROM summary WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(f"file:{self._path}?mode=ro&immutable=1", uri=True)
        try:
            yield db
        finally:
            db.close()


def opened(bundle: Bundle, folder: Path) -> Index:
    """Return the index of a bundle, made in `folder` unless it is there already.

    The file is named after the bundle and the sizes and times of its tiles, so that a bundle which
    was changed gets another.

    Raises:
        AuditError: exit code 2; the folder cannot be written.
    """
    path = folder / f"{_stamp(bundle)}.sqlite"
    if not path.exists():
        build(path, (record.entry for record in stored.merged(bundle)), run=bundle.run)
    return Index(path)


def build(path: Path, entries: Iterable[Entry], *, run: str) -> Index:
    """Make an index file of entries in order of time; it appears whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(partial)) as db:
            db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
            _fill(db, entries, run)
            db.executescript(_INDEXES + "ANALYZE;")
            db.commit()
        partial.chmod(0o600)
        partial.replace(path)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise AuditError(
            f"the index {path} cannot be written ({type(error).__name__}); choose another folder "
            "with --cache",
            code="no-index",
            exit_code=2,
        ) from None
    return Index(path)


def about(entry: Entry) -> str:
    """The institution that an entry names, if it names one."""
    fields = entry.event.fields
    return str(next((fields[word] for word in ("institution", "name") if word in fields), ""))


def _fill(db: sqlite3.Connection, entries: Iterable[Entry], run: str) -> None:
    numbers: dict[str, int] = {}

    def number(word: str) -> int:
        if word not in numbers:
            numbers[word] = len(numbers)
            db.execute("INSERT INTO words VALUES (?, ?)", (numbers[word], word))
        return numbers[word]

    rows: list[tuple[int, ...]] = []
    texts: list[tuple[int, str, str]] = []
    over: list[tuple[int, int]] = []  # incidents that were closed: (log, entry)
    problems = rounds = row_id = 0

    def flush() -> None:
        db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO texts VALUES (?, ?, ?)", texts)
        rows.clear()
        texts.clear()

    for row_id, entry in enumerate(entries, start=1):
        event, problem, named = entry.event, entry.problem, about(entry)
        rows.append(
            (
                row_id,
                number(f"log:{entry.name}"),
                entry.index,
                round(event.time.timestamp() * 1_000_000),
                number(f"kind:{event.kind}"),
                number(f"run:{event.run or ''}"),
                _NONE if event.round is None else event.round,
                number(f"log:{named}") if named else _NONE,
                1 if problem else 0,
            )
        )
        texts.append((row_id, entry.facts, problem))
        problems += 1 if problem else 0
        if event.kind == "incident" and "opened" in event.fields:
            over.append((number(f"log:{entry.name}"), event.fields["opened"]))
        if event.kind == "round-closed" and event.run == run:
            rounds = max(rounds, (event.round or 0) + 1)
            for state in ("accepted", "rejected", "absent"):
                db.executemany(
                    "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?)",
                    [(event.round, name, state, row_id) for name in event.fields[state]],
                )
        if len(rows) >= _BATCH:
            flush()
    flush()
    # What is over is no open problem any more; its entry still says what it was.
    ended = "UPDATE rows SET problem = 0 WHERE problem = 1 AND log = ? AND seq = ?"
    problems -= sum(db.execute(ended, place).rowcount for place in over)
    totals = (("entries", row_id), ("problems", problems), ("rounds", rounds))
    db.executemany("INSERT INTO summary VALUES (?, ?)", totals)


def _where(
    db: sqlite3.Connection, query: Query, *, whole: bool = False
) -> tuple[str | None, list[int]]:
    """Return the condition and its values; None if a word of the query occurs nowhere."""
    parts, values = ["1"], []

    def word(text: str) -> int | None:
        row = db.execute("SELECT id FROM words WHERE word = ?", (text,)).fetchone()
        return None if row is None else int(row[0])

    for column, text in (("kind", query.kind), ("run", query.run)):
        if text:
            found = word(f"{column}:{text}")
            if found is None:
                return None, []
            parts.append(f"+{column} = ?")
            values.append(found)
    if query.institution:
        found = word(f"log:{query.institution}")
        if found is None:
            return None, []
        parts.append("(+log = ? OR +about = ?)")
        values += [found, found]
    if query.round is not None:
        parts.append("round = ?")
        values.append(query.round)
    if query.problems:
        parts.append("problem = 1")
    for moment, sign in ((query.since, ">="), (query.until, "<=")):
        if moment is not None:
            parts.append(f"+time {sign} ?")
            values.append(round(moment.timestamp() * 1_000_000))
    if query.before is not None and not whole:
        parts.append("id < ?")
        values.append(query.before)
    return " AND ".join(parts), values


def _lines(db: sqlite3.Connection, ids: list[int]) -> Iterator[Line]:
    marks = ",".join("?" * len(ids))
    rows = db.execute(
        "SELECT r.id, l.word, r.seq, r.time, k.word, u.word, r.round, t.facts, t.problem "  # noqa: S608
        "FROM rows r JOIN texts t ON t.id = r.id JOIN words l ON l.id = r.log "
        "JOIN words k ON k.id = r.kind JOIN words u ON u.id = r.run "
        f"WHERE r.id IN ({marks}) ORDER BY r.id DESC",
        ids,
    )
    for row in rows:
        row_id, log, seq, time, kind, run, turn, facts, problem = row
        yield Line(
            id=row_id,
            log=log.partition(":")[2],
            index=seq,
            time=datetime.fromtimestamp(time / 1_000_000, tz=UTC),
            kind=kind.partition(":")[2],
            run=run.partition(":")[2],
            round=None if turn == _NONE else turn,
            facts=facts,
            problem=problem,
        )


def _stamp(bundle: Bundle) -> str:
    state = hashlib.sha256(f"privity index {_VERSION}\n{bundle.digest}\n".encode())
    for name in sorted(bundle.files):
        try:
            found = (bundle.path / name).stat()
        except OSError:
            continue
        state.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return state.hexdigest()[:32]
