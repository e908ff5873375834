"""What each view of the officer's page shows, as plain data for its template."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from audit import charts, events, release_folder, stored
from audit.errors import AuditError
from audit.events import Event
from audit.findings import InstitutionFinding
from audit.index import Line, Query
from audit.moments import moment
from audit.page_shelf import Book

ROUNDS = 50  # of the grid, on one page
_MILESTONES = (
    "run-started",
    "approval",
    "budget-reserved",
    "pii-scrub",
    "privacy-audit",
    "institution-revoked",
    "watermark-committed",
    "watermark-embedded",
    "evaluation",
    "release",
    "release-received",
    "run-finished",
)
_MOST_OF_A_KIND = 12


@dataclass(frozen=True, slots=True)
class Budget:
    """An institution's line in a table of budgets."""

    site: InstitutionFinding
    bar: Markup
    share: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step from update to release: a heading, facts, the entries, and how it stands."""

    heading: str
    state: str
    facts: tuple[tuple[str, str], ...]
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A party's log on the witness board."""

    name: str
    role: str
    fingerprint: str
    pinned: bool
    size: int
    root: str
    by: Mapping[str, bool]
    seen: str


def budgets(book: Book) -> tuple[Budget, ...]:
    """One line an institution: ε recomputed, the cap, a bar."""
    return tuple(_budget(site) for site in book.findings.institutions)


def _budget(site: InstitutionFinding) -> Budget:
    known = site.epsilon is not None and site.cap is not None
    text = f"ε {site.epsilon:.4f} of cap {site.cap:g}" if known else "not recomputed"
    svg = charts.bar(site.epsilon, site.cap, title=site.name, text=text)
    share = f"{100 * site.epsilon / site.cap:.2f} %" if site.epsilon and site.cap else "–"
    # The picture is made of numbers and an escaped label; a template would escape it again.
    return Budget(site, Markup(svg), share)  # noqa: S704


def grid(book: Book, first: int) -> tuple[tuple[str, ...], list[tuple[int, list[tuple[str, str]]]]]:
    """The institutions, and for each round from `first` the state and entry of each."""
    states = book.index.states(first, ROUNDS)
    names = sorted({*book.bundle.sites, *(name for row in states.values() for name in row)})
    rows = [
        (turn, [states[turn].get(name, ("not named", "")) for name in names])
        for turn in sorted(states)
    ]
    return tuple(names), rows


def timeline(book: Book) -> list[Line]:
    """The steps of the run in order of time; of many of one kind the newest."""
    known = set(book.index.words("kind"))
    lines = [
        line
        for kind in _MILESTONES
        if kind in known
        for line in book.index.search(Query(kind=kind, run=book.run), limit=_MOST_OF_A_KIND).lines
    ]
    return sorted(lines, key=lambda line: line.id)


def query(given: Mapping[str, str]) -> Query:
    """Read the filters of an address.

    Raises:
        AuditError: exit code 2; a round, date or continuation is none.
    """
    text = {name: str(value).strip()[:128] for name, value in given.items()}
    return Query(
        institution=text.get("institution", ""),
        kind=text.get("kind", ""),
        run=text.get("run", ""),
        round=_number(text.get("round", ""), "the round"),
        since=moment(text.get("since", ""), "from", end=False),
        until=moment(text.get("until", ""), "to", end=True),
        problems=text.get("problems", "") == "1",
        before=_number(text.get("before", ""), "the continuation"),
    )


def _number(text: str, what: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise AuditError(f"{what} is not a whole number", code="bad-filter", exit_code=2)
    return int(text)


def commands(book: Book, place: str) -> tuple[str, ...]:
    """The commands that come to the same without this page."""
    path = shlex.quote(book.path)
    return (
        f"privity audit verify {path}",
        f"privity audit show {path} --entry {place}",
    )


def statement(exact: stored.Exact) -> str:
    """An entry's statement to be read."""
    return json.dumps(exact.proven.statement, indent=2, ensure_ascii=False, sort_keys=True)


def witnesses(book: Book) -> tuple[Witnessed, ...]:
    """Who cosigned whose last checkpoint, and what the coordinator last saw of each log."""
    signers = book.findings.signers
    names = [signer.name for signer in signers]
    board = []
    for signer in signers:
        seen = "–"
        if signer.role == "institution":
            taken = book.index.search(
                Query(kind="update-accepted", institution=signer.name, run=book.run), limit=1
            ).lines
            if taken:
                fields = _fields(book, taken[0])
                size = fields.get("site_size", 0)
                seen = f"{size} entries, round {taken[0].round}"
        board.append(
            Witnessed(
                signer.name,
                signer.role,
                signer.fingerprint,
                signer.pinned,
                signer.size,
                signer.root,
                {name: name in signer.cosigned_by for name in names if name != signer.name},
                seen,
            )
        )
    return tuple(board)


def dossier(book: Book) -> tuple[Step, ...]:
    """From the updates to the signature, each step with its entries."""
    return tuple(_dossier(book))


def _dossier(book: Book) -> Iterator[Step]:
    found = {
        kind: book.index.search(Query(kind=kind, run=book.run), limit=_MOST_OF_A_KIND).lines
        for kind in (
            "update-accepted",
            "aggregation",
            "watermark-committed",
            "watermark-embedded",
            "evaluation",
            "approval",
            "release",
        )
    }
    releases = found["release"]
    release = _fields(book, releases[0]) if releases else {}
    updates = book.index.search(Query(kind="update-accepted", run=book.run), limit=1)
    total = f"{updates.count}{'+' if updates.count >= 1000 else ''}"
    yield _step(
        "Updates", found["update-accepted"],
        [("accepted", total)]
        + [(f"round {line.round}", line.facts) for line in found["update-accepted"]],
    )  # fmt: skip
    last = found["aggregation"][:1]
    facts = _fields(book, last[0]) if last else {}
    same = bool(facts) and facts.get("output_adapter") == release.get("reference_digest")
    yield _step(
        "Aggregate", last,
        [("method", str(facts.get("method", "–"))), ("inputs", str(len(facts.get("inputs", ())))),
         ("output", str(facts.get("output_adapter", "–"))),
         ("is what was released from", "yes" if same else "NO")],
        good=same or not releases,
    )  # fmt: skip
    marks = [*found["watermark-committed"], *found["watermark-embedded"]]
    ordered = bool(found["watermark-committed"]) and bool(found["watermark-embedded"])
    yield _step(
        "Watermark", marks,
        [("committed before marking", "yes" if ordered and
          found["watermark-committed"][-1].id < found["watermark-embedded"][-1].id else "NO")]
        if marks else [],
    )  # fmt: skip
    scores = _fields(book, found["evaluation"][0]) if found["evaluation"] else {}
    yield _step("Evaluation", found["evaluation"], list(_scores(scores)), needed=False)
    yield _step(
        "Approvals",
        found["approval"],
        [(line.log, line.facts) for line in found["approval"]],
        good=not any(line.problem for line in found["approval"]),
    )
    files: Sequence[release_folder.File] = ()
    if book.bundle.release is not None and releases:
        event = _event(book, releases[0])
        files = release_folder.check(book.bundle.release, event, key=book.release_key)
    words = {True: "as bound", False: "NOT as bound", None: "not bound by the log"}
    yield _step(
        "Signature and files", releases,
        [(file.name, f"{file.what}; {words[file.holds]}; {file.digest}") for file in files],
        good=all(file.holds is not False for file in files),
    )  # fmt: skip


def _scores(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not fields:
        return
    yield "data", f"{fields['data']}, {fields['records']} records"
    for name in ("accuracy", "macro_f1", "loss"):
        yield name.replace("_", " "), f"{fields['base'][name]} → {fields['released'][name]}"


def _step(
    heading: str,
    lines: Sequence[Line],
    facts: Sequence[tuple[str, str]],
    *,
    good: bool = True,
    needed: bool = True,
) -> Step:
    if not lines:
        return Step(heading, "missing" if needed else "absent", (), ())
    held = good and not any(value == "NO" for _, value in facts)
    places = tuple(line.place for line in lines)
    return Step(heading, "held" if held else "problem", tuple(facts), places)


def _event(book: Book, line: Line) -> Event | None:
    """An entry, read from the bundle and proven; None if it cannot be."""
    try:
        exact = stored.prove(book.bundle, line.log, line.index)
        return events.read(exact.proven.statement)
    except AuditError:
        return None


def _fields(book: Book, line: Line) -> Mapping[str, Any]:
    """The fields of an entry; empty if it cannot be proven."""
    event = _event(book, line)
    return {} if event is None else event.fields
