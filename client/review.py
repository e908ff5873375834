"""What a data protection officer looks at before a run: counts, and a sample side by side."""

from __future__ import annotations

import json
import random
from pathlib import Path

from client import people
from client.errors import ClientError
from client.folder import Folder
from client.people import Progress, Report
from configs import files


def dry_run(folder: Folder, *, sample: int, out: Path, progress: Progress | None = None) -> Report:
    """Scrub all records and write a random sample, before and after, to `out`.

    Guarantees: `out` has mode 0600 and is the only place that holds record text; nothing is logged
        and no budget is touched.

    Raises:
        ClientError: the records cannot be used, or every one was held back.
    """
    if out.exists() and out.is_dir():
        raise ClientError(f"{out} is a folder; name a file with --out", code="bad-out")
    reading = people.read(folder)
    done = people.scrub(reading, people.scrubber(folder), progress=progress)
    lines = []
    tool = people.scrubber(folder)
    chosen = random.SystemRandom().sample(list(reading.records), min(sample, len(reading.records)))
    for record in chosen:
        outcome = next(iter(tool.scrub_many([record.instruction], [record.person])))
        if isinstance(outcome, Exception):
            after, spans = None, []
        else:
            after = outcome.text
            spans = [[span.start, span.end, span.type] for span in outcome.spans]
        lines.append(
            json.dumps(
                {
                    "line": record.line,
                    "before": record.instruction,
                    "after": after,
                    "spans": spans,
                    "quarantined": after is None,
                },
                ensure_ascii=False,
            )
        )
    files.replace(out, ("\n".join(lines) + "\n").encode(), mode=files.PRIVATE)
    return done.report
