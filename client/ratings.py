"""A sheet for people who rate answers without knowing whose they are, out and back in."""

from __future__ import annotations

import csv
import hashlib
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.errors import ClientError
from client.evaluation import Evaluation
from configs import files

COLUMNS = ("item", "question", "answer", "rater_1", "rater_2")
MARKS = ("1", "2", "3", "4", "5")


@dataclass(frozen=True, slots=True)
class Ratings:
    """What two raters made of the answers.

    Attributes:
        items: answers that both rated.
        mean: mean mark by arm, 1 to 5, over both raters.
        kappa: agreement of the two, quadratic weights; NaN where there is nothing to agree on.
    """

    items: int
    mean: dict[str, float]
    kappa: float


def sheet(path: Path, found: Evaluation, questions: Sequence[str]) -> Path:
    """Write the sheet (CSV, mode 0600) and, beside it, the key that says whose answer is whose.

    The order is a shuffle by digest, the same for the same answers. Give raters the sheet alone.

    Returns:
        The key's file.
    """
    items = sorted(
        (
            # With a letter first, since a spreadsheet would read 12e34 as a number.
            "a" + hashlib.sha256(f"{arm.name}\n{question}\n{answer}".encode()).hexdigest()[:12],
            arm.name,
            question,
            answer,
        )
        for arm in found.arms
        for question, answer in zip(questions, arm.answers, strict=False)
    )
    out, key = io.StringIO(), io.StringIO()
    rows, names = csv.writer(out), csv.writer(key)
    rows.writerow(COLUMNS)
    names.writerow(("item", "arm"))
    for item, arm, question, answer in items:
        rows.writerow((item, _plain(question), _plain(answer), "", ""))
        names.writerow((item, arm))
    files.replace(path, out.getvalue().encode("utf-8-sig"), mode=files.PRIVATE)
    beside = path.with_suffix(".key.csv")
    files.replace(beside, key.getvalue().encode(), mode=files.PRIVATE)
    return beside


def read(path: Path) -> Ratings:
    """Read a filled sheet with the key beside it.

    Raises:
        ClientError: a file is missing, a mark is not 1 to 5, or fewer than two items were rated
            by both. Names the item, never its text.
    """
    from model import figures

    arms = {row["item"]: row["arm"] for row in _rows(path.with_suffix(".key.csv"))}
    marks: dict[str, list[int]] = {}
    first, second = [], []
    for row in _rows(path):
        given = [row.get("rater_1", "").strip(), row.get("rater_2", "").strip()]
        if given == ["", ""]:
            continue
        item = row.get("item", "")
        if item not in arms or not all(mark in MARKS for mark in given):
            known = item if item in arms else "an item that the key does not have"
            raise ClientError(
                f"{path}: {known} needs a mark from 1 to 5 by both raters; correct it",
                code="bad-mark",
            )
        both = [int(mark) for mark in given]
        first.append(both[0])
        second.append(both[1])
        marks.setdefault(arms[item], []).extend(both)
    if len(first) < 2:
        raise ClientError(f"{path} holds fewer than two rated answers", code="bad-mark")
    return Ratings(
        items=len(first),
        mean={arm: statistics.mean(marks[arm]) for arm in sorted(marks)},
        kappa=figures.kappa(first, second, weighted=True),
    )


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _rows(path: Path) -> list[dict[str, str]]:
    """A table with a column `item`; spreadsheets save it with the separator of their country."""
    try:
        # Only items and marks are read, which are ASCII: texts may come in any code page.
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            head = lines.readline()
            mark = next((it for it in (",", ";", "\t") if it in head), ",")
            lines.seek(0)
            table = csv.DictReader(lines, delimiter=mark)
            if "item" not in (table.fieldnames or ()):
                raise csv.Error
            return [{k: v or "" for k, v in row.items() if isinstance(v, str)} for row in table]
    except (OSError, csv.Error):
        raise ClientError(
            f"{path} is not the sheet (CSV with a column item); save it as CSV, and keep sheet and "
            "key beside each other",
            code="no-ratings",
        ) from None
