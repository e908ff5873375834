"""What people said about answers, as a source of records, beside what the site trains on now.

A judgement is a record of the person whom it is about, if that person consented, and else of the
user who judged.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
from pathlib import Path
from typing import Final

from client import records
from client.errors import ClientError
from client.folder import Folder
from client.gateway import feedback
from client.prepare import sets
from client.prepare.draws import Draws
from client.prepare.sources import Source
from client.records import Fault, Row

_STORE: Final = ("serving", "feedback.sqlite")
_LABEL: Final = Path("the accepted feedback")


def read(folder: Folder, draws: Draws) -> Source:
    """The accepted judgements of a site, the newest first, so that it stands against older ones.

    An accepted judgement that says only that an answer was bad is a fault, "no-correction".

    Raises:
        ClientError: there is none that gives a record.
    """
    kept = [row for row in _rows(folder) if row.review == "accepted"]
    made = feedback.records(kept, person_column=folder.settings.data.person_column)
    if not made:
        raise ClientError(
            "no accepted judgement gives a record yet; review them on the service's page /feedback",
            code="nothing-accepted",
        )
    rows = (Row(number, record) for number, record in made.items())
    reading = records.gather(rows, _LABEL, person_column=folder.settings.data.person_column)
    mute = tuple(Fault(row.number, "no-correction") for row in kept if row.number not in made)
    seen = json.dumps(sorted(made.items()), sort_keys=True).encode()
    return Source(
        dataclasses.replace(reading, faults=(*reading.faults, *mute)), "feedback",
        f"hmac-sha256:{hmac.digest(draws.key, b'feedback' + seen, 'sha256').hex()}",
    )  # fmt: skip


def before(folder: Folder) -> tuple[Path | None, str | None]:
    """What the site trains on now: a file of its own, or the name of a prepared set.

    Raises:
        ClientError: there is nothing yet, or the set was changed (exit code 4).
    """
    data = folder.data
    if not data.exists():
        raise ClientError(
            f"{data} does not exist, so there is nothing earlier to keep a share of; name it with "
            "--parent NAME or --from FILE",
            code="no-file",
        )
    held = sets.holding(folder, data)
    return (data, None) if held is None else (None, held.name)


def about(folder: Folder, person: str) -> int:
    """How many judgements are about a person."""
    return sum(row.judgement.person == person for row in _rows(folder))


def _rows(folder: Folder) -> list[feedback.Kept]:
    place = folder.path.joinpath(*_STORE)
    return feedback.FeedbackStore(place).rows() if place.exists() else []
