"""From accepted judgements to a file of training records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.gateway.feedback import FeedbackStore, mix, records
from configs import files


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: earlier records, new ones, and new ones that found no room."""

    earlier: int
    new: int
    held_back: int


def export(
    store: FeedbackStore, target: Path, *, earlier: Path | None, share: float, column: str
) -> Exported:
    """Write earlier records and accepted judgements as JSON Lines, mode 0600.

    Args:
        store: of the judgements.
        target: the file; it must not exist.
        earlier: JSON Lines of earlier records, if there are any; they are copied as they are.
        share: least share of earlier records in the file, 0 to 1.
        column: the person column of the site.

    Raises:
        ClientError: the target exists, there is nothing to write, or the earlier records cannot be
            read. Quotes no record.
    """
    if target.exists():
        raise ClientError(f"{target} exists already; choose another name", code="file-taken")
    before = _read(earlier) if earlier is not None else []
    new = records(store.rows("accepted"), person_column=column)
    if not new:
        raise ClientError(
            "no accepted judgement gives a record yet; review them on the page /feedback first",
            code="nothing-accepted",
        )
    mixed = mix(before, new, share=share)
    lines = "".join(json.dumps(dict(record), ensure_ascii=False) + "\n" for record in mixed)
    files.replace(target, lines.encode(), mode=files.PRIVATE)
    kept = len(mixed) - len(before)
    return Exported(len(before), kept, len(new) - kept)


def _read(path: Path) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError(number)
                    found.append(record)
    except OSError:
        raise ClientError(f"{path} cannot be read; check the path", code="no-file") from None
    except ValueError:
        raise ClientError(
            f"{path} has something that is no JSON object in line {number}; correct it",
            code="bad-record",
        ) from None
    return found
