"""What a data protection officer looks at before a run: counts, and a sample side by side.

In `DIR/review`, record text is in `sample.json`, `index.html` and `decisions.json`, and nowhere
else; each has mode 0600. The report beside them holds counts only.
"""

from __future__ import annotations

import json
import os
import random
import secrets
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from audit import canonical
from audit.verify_review import miss_bound
from client import columns, people, quasi, review_html, withdrawals
from client.errors import ClientError
from client.folder import Folder
from client.people import Progress, Report
from client.records import Record
from configs import files
from privacy.errors import Quarantined

VERDICTS: Final = ("accepted", "missed", "damaged")
"""A reader's: nothing to say; an identifier is left; medicine or business was taken too."""
HELD_SHOWN: Final = 500
REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "too-long": ("longer than a text may be", "divide the record"),
    "unsupported-script": ("in a script that no detector reads", "translate it or leave it out"),
    "not-text": ("has characters that are no text", "export the record again as UTF-8"),
    "mojibake": ("letters were lost to a wrong code page", "export the record again as UTF-8"),
    "timeout": ("a detector took too long", "shorten or divide the record"),
    "detector-failed": ("a detector failed on it", "report it, without the record"),
    "verify": ("an identifier was still there afterwards", "read the record; change it by hand"),
}
_TEXT_FILES: Final = ("sample.json", "index.html", "decisions.json")


@dataclass(frozen=True, slots=True)
class Dry:
    """What a dry run found, and where it put it."""

    report: Report
    document: Mapping[str, Any] = field(repr=False)
    page: Path | None


def place(folder: Folder) -> Path:
    """Where a site's review lies."""
    return folder.path / "review"


def dry_run(
    folder: Folder,
    *,
    sample: int,
    out: Path | None = None,
    explain: bool = False,
    progress: Progress | None = None,
) -> Dry:
    """Scrub all records; keep a random sample, before and after, for a person to read.

    Args:
        folder: the site.
        sample: records to draw, by the operating system's randomness.
        out: a file for the sample as lines of JSON, instead of the page in DIR/review.
        explain: also say which recogniser took each span of the sample.
        progress: told of records done and of all.

    Guarantees: the sample's files have mode 0600 and are the only ones that hold record text;
        nothing is logged and no budget is touched.

    Raises:
        ClientError: the records cannot be used, or `out` is a folder.
    """
    if out is not None and out.is_dir():
        raise ClientError(f"{out} is a folder; name a file with --out", code="bad-out")
    withdrawals.check(folder)
    reading, tool, said = people.read(folder), people.scrubber(folder), people.stated(folder)
    count = min(sample, len(reading.records))
    chosen = set(random.SystemRandom().sample(range(len(reading.records)), count))
    lines = {reading.records[number].line for number in chosen}
    items: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []

    def seen(record: Record, outcome: tuple[people.Outcome, people.Outcome]) -> None:
        fault = next((half for half in outcome if isinstance(half, Quarantined)), None)
        if fault is not None and len(held) < HELD_SHOWN:
            held.append({"line": record.line, "code": fault.code})
        if record.line in lines:
            known = columns.known(record.columns, said)
            items.append(_item(record, outcome, tool, known, explain))

    try:
        done = people.scrub(reading, tool, said=said, seen=seen, progress=progress)
        report, digest = done.report, done.scrubber_digest
    except ClientError as nothing:
        if nothing.code != "all-quarantined":
            raise
        report, digest = _nothing(reading, held), tool.digest
    random.SystemRandom().shuffle(items)
    telling = quasi.combinations(reading.records, folder.settings.scrub.columns.quasi)
    document = {
        "format": 1,
        "site": folder.settings.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": folder.settings.data.profile,
        "scrubber_digest": digest,
        "sampled": len(items),
        "scrub": report.document(),
        "quarantine": [
            {"code": code, "records": number, "why": REASONS.get(code, ("", ""))[0],
             "do": REASONS.get(code, ("", ""))[1],
             "lines": [one["line"] for one in held if one["code"] == code][:20]}
            for code, number in sorted(report.quarantined.items())
        ],
        "quasi_identifiers": [found.document() for found in telling],
        "reading": None,
        "limits": list(review_html.LIMITS),
    }  # fmt: skip
    if out is not None:
        text = "".join(json.dumps(_line(item), ensure_ascii=False) + "\n" for item in items)
        files.replace(out, text.encode(), mode=files.PRIVATE)
        return Dry(report, document, None)
    where = place(folder)
    where.mkdir(mode=0o700, exist_ok=True)
    delete(folder)
    _keep(where / "sample.json", {"format": 1, "report": document, "items": items})
    keep_report(folder, document)
    page = where / "index.html"
    shown = review_html.static(document, items)
    files.replace(page, shown.encode(), mode=files.PRIVATE)
    return Dry(report, document, page)


def _nothing(reading: Any, held: list[dict[str, Any]]) -> Report:
    total = len(reading.records)
    codes = Counter(one["code"] for one in held)
    # Beyond the listed ones the first reason stands for the rest: all of them were held back.
    if codes:
        codes[held[0]["code"]] += total - sum(codes.values())
    faults = Counter(fault.code for fault in reading.faults)
    return Report(total, 0, 0, {}, dict(codes), dict(faults), reading.unkeyed)


def _item(
    record: Record,
    outcome: tuple[people.Outcome, people.Outcome],
    tool: Any,
    known: Mapping[str, str],
    explain: bool,
) -> dict[str, Any]:
    halves = []
    for name, before, after in zip(
        ("instruction", "response"), (record.instruction, record.response), outcome, strict=True
    ):
        held = isinstance(after, Quarantined)
        reasons = getattr(tool, "reasons", None) if explain else None
        pieces = getattr(tool, "pieces", None)
        halves.append(
            {
                "name": name,
                "before": before,
                "after": None if held else after.text,
                "held": after.code if held else None,
                "spans": [] if held else [[s.start, s.end, s.type] for s in after.spans],
                "pieces": None if held or not pieces else pieces(before, record.person, after),
                "reasons": reasons(before, record.person, known) if reasons else [],
            }
        )
    return {"line": record.line, "halves": halves}


def _line(item: Mapping[str, Any]) -> dict[str, Any]:
    asked = item["halves"][0]
    return {
        "line": item["line"],
        "before": asked["before"],
        "after": asked["after"],
        "spans": asked["spans"],
        "quarantined": any(half["held"] is not None for half in item["halves"]),
        "reasons": asked["reasons"],
    }


def _keep(path: Path, document: Mapping[str, Any]) -> None:
    files.replace(path, json.dumps(document, ensure_ascii=False).encode(), mode=files.PRIVATE)


def keep_report(folder: Folder, document: Mapping[str, Any]) -> str:
    """Write the report, which holds no record text, as JSON and as a page.

    Returns:
        The digest of what it says.
    """
    where = place(folder)
    text = json.dumps(document, indent=2, ensure_ascii=False).encode()
    files.replace(where / "report.json", text, mode=files.PRIVATE)
    page = review_html.report(document)
    files.replace(where / "report.html", page.encode(), mode=files.PRIVATE)
    return canonical.digest(canonical.encode(document))


@dataclass
class Review:
    """A sample and what its reader has said so far; every change is on disk before it counts."""

    folder: Folder
    document: dict[str, Any] = field(repr=False)
    items: list[dict[str, Any]] = field(repr=False)
    decisions: dict[str, dict[str, Any]] = field(repr=False)

    def decide(
        self, number: int, verdict: str, *, deny: list[tuple[str, str]], allow: list[str]
    ) -> None:
        """Keep one record's verdict.

        Args:
            number: of the record in the sample, from 0.
            verdict: one of `VERDICTS`.
            deny: type and text of what was missed.
            allow: texts that were taken and should not have been.
        """
        if verdict not in VERDICTS or not 0 <= number < len(self.items):
            raise ClientError("that is no verdict on a record of the sample", code="bad-verdict")
        self.decisions[str(number)] = {"verdict": verdict, "deny": deny, "allow": allow}
        path = place(self.folder) / "decisions.json"
        _keep(path, {"format": 1, "decisions": self.decisions})

    def counts(self) -> dict[str, int]:
        """Records of the sample by verdict, and those without one."""
        by = Counter(one["verdict"] for one in self.decisions.values())
        return {name: by[name] for name in VERDICTS} | {
            "open": len(self.items) - sum(by.values()),
            "sampled": len(self.items),
        }

    def bound(self) -> str | None:
        """The bound on the share of records with a miss; None before anything was read."""
        counts = self.counts()
        read = sum(counts[name] for name in VERDICTS)
        return miss_bound(counts["missed"], read) if read else None

    def finish(self, reviewer: str) -> str:
        """Sign the counts into the site's log.

        Returns:
            The bound.

        Raises:
            ClientError: nothing was read yet, or the name is none.
        """
        from audit.errors import EventInvalid
        from audit.fields import NAME

        bound = self.bound()
        if bound is None:
            raise ClientError("decide at least one record first", code="nothing-read")
        try:
            NAME.check(reviewer, "reviewer")
        except EventInvalid:
            raise ClientError(
                "give a name or initials of 1 to 63 of A-Z a-z 0-9 . _ - (the log may leave the "
                "house)",
                code="bad-name",
            ) from None
        counts = {name: number for name, number in self.counts().items() if name != "open"}
        digest = self.document["scrubber_digest"]
        self.document["reading"] = {"reviewer": reviewer, **counts, "miss_bound": bound}
        shown = keep_report(self.folder, self.document)
        fields = {"reviewer": reviewer, "scrubber_digest": digest, **counts, "miss_bound": bound,
                  "report_digest": shown}  # fmt: skip
        with closing(self.folder.log()) as log:
            log.append("scrub-review", fields)
        return bound


def open_review(folder: Folder) -> Review:
    """Open the review that the last dry run left.

    Raises:
        ClientError: there is none, or it is damaged.
    """
    where = place(folder)
    try:
        kept = json.loads((where / "sample.json").read_bytes())
        path = where / "decisions.json"
        decided = json.loads(path.read_bytes())["decisions"] if path.exists() else {}
        return Review(folder, dict(kept["report"]), list(kept["items"]), dict(decided))
    except (OSError, ValueError, KeyError, TypeError):
        raise ClientError(
            f"{where} has no sample to read; run: privity client scrub {folder.path}",
            code="no-sample",
        ) from None


def texts(folder: Folder) -> tuple[Path, ...]:
    """The files of the review that hold record text."""
    found = (place(folder) / name for name in _TEXT_FILES)
    return tuple(path for path in found if path.is_file() and not path.is_symlink())


def delete(folder: Folder) -> int:
    """Overwrite and remove every file of the review that holds record text; the report stays.

    A journal, a snapshot, a backup or the spare cells of a solid-state disk may still hold them.

    Returns:
        How many files there were.
    """
    removed = 0
    for path in texts(folder):
        size = path.stat().st_size
        with open(path, "r+b") as file:
            file.write(secrets.token_bytes(size))
            file.flush()
            os.fsync(file.fileno())
            file.truncate(0)
            os.fsync(file.fileno())
        path.unlink()
        removed += 1
    if removed:
        files.sync(place(folder))
    return removed
