"""Records → scrubbed → token sequences, grouped by person: what the private core trains on."""

from __future__ import annotations

import dataclasses
import json
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from audit import canonical
from client import columns, records, redact, scrubbing
from client.errors import ClientError
from client.folder import Folder
from client.records import Reading, Record
from client.scrubbing import SiteScrubber
from configs import files
from privacy import together
from privacy.errors import Quarantined

if TYPE_CHECKING:
    from client.prepare.sets import Prepared
    from model.base import Base
    from model.labels import Labels
    from model.preferences import Preference
    from model.prompts import Example

Progress = Callable[[int, int], None]
Outcome = Any
"""A scrubbed text, with `text`, `spans` and `counts`, or the `Quarantined` why there is none."""
Seen = Callable[[Record, tuple[Outcome, Outcome]], None]


class Scrubber(redact.Reader, Protocol):
    """What scrubs texts and says by a digest what it is."""

    @property
    def digest(self) -> str: ...  # noqa: D102


log = logging.getLogger("privity.people")


@dataclass(frozen=True, slots=True)
class Note:
    """One record after the scrub; its texts stay out of every repr."""

    person: str
    instruction: str = field(repr=False)
    response: str = field(repr=False)
    rejected: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """What the scrub did, in counts. Stays at the site; the log gets a salted commitment.

    Attributes:
        records: readable records. persons: distinct person keys among the kept ones.
        kept: records that may be trained on.
        removed: replaced spans by type.
        quarantined: records held back, by reason.
        faults: unreadable lines, by reason.
        unkeyed: records without a person key; each counts as a person of its own, so that ε
            speaks of that record only.
    """

    records: int
    persons: int
    kept: int
    removed: dict[str, int]
    quarantined: dict[str, int]
    faults: dict[str, int]
    unkeyed: int = 0

    def document(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "records": self.records,
            "persons": self.persons,
            "kept": self.kept,
            "removed": dict(sorted(self.removed.items())),
            "quarantined": dict(sorted(self.quarantined.items())),
            "faults": dict(sorted(self.faults.items())),
            "unkeyed": self.unkeyed,
        }


@dataclass(frozen=True, slots=True)
class Scrub:
    """The outcome of scrubbing a whole file.

    Attributes:
        notes: what passed.
        people: everybody with a readable record, those included of whom nothing passed, and whom
            the reading counts besides: how many they are must not depend on what anybody's
            records say.
        report: in counts.
        scrubber_digest: what scrubbed.
    """

    notes: tuple[Note, ...] = field(repr=False)
    people: tuple[str, ...] = field(repr=False)
    report: Report
    scrubber_digest: str


def read(folder: Folder) -> Reading:
    """Read the site's records file as its settings say, without whoever withdrew.

    Of a prepared set everybody on its side is counted, whether or not anything of them was usable.

    Raises:
        ClientError: missing, empty or unusable; nothing readable in it; a prepared set that was
            changed (exit code 4), or whose preparation looked across persons (exit code 3).
    """
    from client import withdrawals

    held = prepared(folder)
    reading = records.read(folder.data, person_column=folder.settings.data.person_column)
    if held is not None:
        reading = dataclasses.replace(reading, also=held.people().get("train", ()))
    return withdrawals.apply(folder, reading)


def prepared(folder: Folder) -> Prepared | None:
    """The prepared set that the records file belongs to, if it does, fit to train on.

    Raises:
        ClientError: the set was changed (exit code 4), or what stands in the file depends on more
            than each person's own records (exit code 3).
    """
    from client.prepare import sets

    held = sets.holding(folder, folder.data)
    if held is None:
        return None
    if held.manifest["scope"] != "person":
        raise ClientError(
            f"{held.path} was prepared across persons, so that ε would not hold for one "
            'person; prepare it again with scope = "person"',
            code="prepared-across",
            exit_code=3,
        )
    if folder.data.name != "train.jsonl":
        # Which of its records are there depends on other persons, those that train among them.
        raise ClientError(
            f"{folder.data} was thinned out by what trains, so that ε would not hold for one "
            f"person; use {held.path / 'train.jsonl'}, or a file of its own",
            code="prepared-across",
            exit_code=3,
        )
    return held


def scrubber(folder: Folder) -> SiteScrubber:
    """The scrubber that the site's settings ask for, keyed by the site's secret."""
    return scrubbing.load(folder)


def scrub(
    reading: Reading,
    tool: Scrubber,
    *,
    said: Mapping[str, str] | None = None,
    seen: Seen | None = None,
    progress: Progress | None = None,
    batch: int = 256,
) -> Scrub:
    """Scrub every record's instruction and answers, knowing what its columns say.

    Args:
        reading: the records.
        tool: the scrubber.
        said: what columns are, where the site states it (`columns.stated`).
        seen: told of each record with the outcomes of both halves, before anything is judged.
        progress: told of records done and of all.
        batch: most records at a time.

    Guarantees: what a person's notes become depends on that person's records alone: which of them
        are scrubbed together is not moved by anybody else's. A record whose instruction or answer
        is quarantined is held back whole; nothing passes unscanned.

    Raises:
        ClientError: every record was held back.
    """
    notes: list[Note] = []
    removed: Counter[str] = Counter()
    held: Counter[str] = Counter()
    total = len(reading.records)
    done = 0
    for part in together.batches(
        _by_person(reading.records), person=lambda record: record.person, most=batch
    ):
        worse = _worse(part, tool, said or {})
        for record, outcome in zip(part, _pairs(part, tool, said or {}), strict=True):
            if seen:
                seen(record, outcome)
            texts = outcome if record.rejected is None else (*outcome, next(worse))
            fault = next((text for text in texts if isinstance(text, Quarantined)), None)
            if fault is not None:
                held[fault.code] += 1
                continue
            for text in texts:
                removed.update(text.counts)
            notes.append(Note(record.person, *(text.text for text in texts)))
        done += len(part)
        if progress:
            progress(done, total)
    if not notes:
        raise ClientError(
            "the scrub held back every record; look at the reasons with privity client scrub",
            code="all-quarantined",
        )
    report = Report(
        records=total,
        persons=len({note.person for note in notes}),
        kept=len(notes),
        removed=dict(removed),
        quarantined=dict(held),
        faults=dict(Counter(fault.code for fault in reading.faults)),
        unkeyed=reading.unkeyed,
    )
    everybody = tuple(sorted({*reading.also, *(record.person for record in reading.records)}))
    return Scrub(tuple(notes), everybody, report, tool.digest)


def _by_person(found: Sequence[Record]) -> list[Record]:
    """All records of one person in one piece, in the order of their first ones."""
    held: dict[str, list[Record]] = {}
    for record in found:
        held.setdefault(record.person, []).append(record)
    return [record for mine in held.values() for record in mine]


def _pairs(
    part: Sequence[Record], tool: Scrubber, said: Mapping[str, str]
) -> list[tuple[Outcome, Outcome]]:
    persons = [record.person for record in part]
    known = [columns.known(record.columns, said) for record in part]
    asked = list(redact.many(tool, [record.instruction for record in part], persons, known))
    answered = list(redact.many(tool, [record.response for record in part], persons, known))
    return list(zip(asked, answered, strict=True))


def _worse(part: Sequence[Record], tool: Scrubber, said: Mapping[str, str]) -> Iterator[Outcome]:
    """The rejected answers of those records that have one, scrubbed like the others."""
    pairs = [record for record in part if record.rejected is not None]
    if not pairs:
        return iter(())
    texts = [str(record.rejected) for record in pairs]
    known = [columns.known(record.columns, said) for record in pairs]
    return iter(redact.many(tool, texts, [record.person for record in pairs], known))


def stated(folder: Folder) -> dict[str, str]:
    """What columns are, where the site's settings state it."""
    return columns.stated(folder.settings.scrub.columns.model_dump())


def group(
    scrub: Scrub,
    base: Base,
    *,
    max_tokens: int,
    labels: Labels | None = None,
    thoughts: bool = False,
) -> tuple[tuple[Example, ...], ...]:
    """Encode every note and group by person: one item per person, in order of the person key.

    Args:
        scrub: what passed the scrub.
        base: the model that encodes.
        max_tokens: longest sequence.
        labels: what a response may be; None is any text.
        thoughts: whether the thought that a response begins with is learnt, or left out.

    Returns:
        One item for everybody in `scrub.people`; an empty one for whom nothing can be used.

    Raises:
        ClientError: nothing can be used of anybody.
    """
    from model import thoughts as thinking

    people: dict[str, list[Example]] = {person: [] for person in scrub.people}
    strange = 0
    for note in scrub.notes:
        example = thinking.encode(
            base, note.instruction, note.response, max_tokens=max_tokens, learn=thoughts
        )
        if labels is None or example.ids[example.prompt_tokens :] in labels:
            people[note.person].append(example)
        else:
            strange += 1
    if strange == len(scrub.notes):
        raise ClientError(
            "no record's response is one of the plan's labels; correct the responses, or ask the "
            "coordinator for a plan with your labels",
            code="all-quarantined",
        )
    if strange:
        log.warning(
            "%d of %d records are left out: their response is none of the plan's labels",
            strange,
            len(scrub.notes),
        )
    return tuple(tuple(people[person]) for person in sorted(people))


def preferences(
    scrub: Scrub, base: Base, model: Any, *, max_tokens: int
) -> tuple[tuple[Preference, ...], ...]:
    """Encode every note with a rejected answer and group by person, as `group` does.

    Args:
        scrub: what passed the scrub.
        base: the model that encodes.
        model: the same with an adapter that changes nothing, whose judgement is the reference.
        max_tokens: longest two answers, with their prompts.

    Raises:
        ClientError: no note has a rejected answer.
    """
    from model import preferences as preferring
    from model import thoughts as thinking

    people: dict[str, list[Preference]] = {person: [] for person in scrub.people}
    for note in scrub.notes:
        if note.rejected is not None:
            better, worse = (thinking.split(text)[1] for text in (note.response, note.rejected))
            item = preferring.encode(base, note.instruction, better, worse, max_tokens=max_tokens)
            people[note.person].append(preferring.refer(model, item))
    if not any(people.values()):
        raise ClientError(
            "no record has a chosen and a rejected answer; add both columns, or ask the "
            'coordinator for a plan with training.objective = "response"',
            code="all-quarantined",
        )
    return tuple(tuple(people[person]) for person in sorted(people))


def keep_report(folder: Folder, report: Report) -> str:
    """Write the report beside the data, mode 0600.

    Returns:
        The salted commitment that the log may hold: it says nothing without the salt.
    """
    salt = secrets.token_hex(16)
    document: dict[str, Any] = {"salt": salt, "report": report.document()}
    text = json.dumps(document, indent=2).encode()
    files.replace(report_path(folder), text, mode=files.PRIVATE)
    return canonical.digest(canonical.encode(document))


def report_path(folder: Folder) -> Path:
    """Where the newest scrub report lies."""
    return folder.path / "scrub-report.json"
