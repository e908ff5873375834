"""Persons who withdrew: nothing of them is used again, here or in anything prepared before.

The list holds keyed digests and no names. Whoever is on it still counts as a person where their
records still lie in a file that trains, with nothing in their place: this is the very zeroing-out
that ε speaks of, so a withdrawal cannot be seen in what is released, and the number of persons,
which counts as public, does not tell of it either.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit import canonical
from client.errors import ClientError
from client.folder import Folder
from client.prepare.draws import Draws
from client.records import Reading
from configs import files


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a withdrawal did and what it cannot do.

    Attributes:
        new: whether the person was not on the list before.
        sets: prepared sets that hold the person, with the side.
        doubtful_sets: damaged prepared sets; they cannot be ruled out.
        runs: runs whose adapters descend from the person.
        doubtful: runs that trained before lineage was kept; they cannot be ruled out.
        judgements: how many judgements of answers are about the person.
        seen: whether the person was found in the site's records, a set, a run or a judgement.
    """

    new: bool
    sets: Mapping[str, str] = field(repr=False)
    doubtful_sets: tuple[str, ...]
    runs: tuple[str, ...]
    doubtful: tuple[str, ...]
    judgements: int
    seen: bool


def check(folder: Folder) -> None:
    """Check that the list has everybody of whom the log knows; reads no record.

    Raises:
        ClientError: the list is damaged, or lacks somebody; unknown means no.
    """
    with closing(folder.log()) as log:
        said = {entry.event.fields["person_commitment"] for entry in log.entries("withdrawal")}
    listed = _listed(folder)  # after the log: a withdrawal of this moment writes the list first
    if not said <= {_commitment(digest, salt) for digest, salt in listed.items()}:
        raise _damaged(list_file(folder))


def apply(folder: Folder, reading: Reading) -> Reading:
    """A reading without the records of those who withdrew; they stay counted.

    Whoever can see the log calls `check` before; the trainer cannot.

    Raises:
        ClientError: the list is damaged.
    """
    listed = _listed(folder)
    if not listed:
        return reading
    draws = Draws.of(folder.pseudonym_secret())
    persons = {record.person for record in reading.records} | set(reading.also)
    gone = {person for person in persons if draws.digest("person", person) in listed}
    if not gone:
        return reading
    return dataclasses.replace(
        reading,
        records=tuple(record for record in reading.records if record.person not in gone),
        also=tuple(sorted({*reading.also, *gone})),
    )


def is_withdrawn(folder: Folder, person: str) -> bool:
    """Whether this person is on the list."""
    listed = _listed(folder)
    return bool(listed) and Draws.of(folder.pseudonym_secret()).digest("person", person) in listed


def stamp(folder: Folder) -> int:
    """Changes when somebody withdraws: how many did."""
    return len(_listed(folder))


def withdraw(folder: Folder, person: str) -> Withdrawal:
    """Block all future use of a person's records, and find what descends from them.

    Guarantees: the list is on disk before the log says so, and the log before anything is looked
        for; the log gets a salted commitment and nothing else, so that who withdrew can be shown by
        the site and guessed by nobody. Withdrawals at once wait for each other.

    Raises:
        ClientError: the key is empty or public, or the list is damaged.
    """
    from client import lineage
    from client.prepare import judged, sets
    from client.prepare.making import PUBLIC

    person = person.strip()
    if not person or person.startswith(PUBLIC):
        raise ClientError(
            "give the person's key as it stands in the records; public records are no person's",
            code="bad-person",
        )
    digest = Draws.of(folder.pseudonym_secret()).digest("person", person)
    folder.runtime.mkdir(mode=0o700, exist_ok=True)
    # Not the folder's own lock: a running client, which holds that, is no hindrance.
    with files.hold(folder.runtime / "withdrawals.lock", None):
        new = _block(folder, digest)
    held: dict[str, str] = {}
    doubtful: list[str] = []
    for name in sets.names(folder):
        try:
            sides = sets.open_set(folder, name).people()
        except ClientError:
            doubtful.append(name)
            continue
        for side, persons in sides.items():
            if person in persons:
                held[name] = side
    found = lineage.descends(folder, digest)
    judgements = judged.about(folder, person)
    seen = bool(held or found.certain or judgements) or _in_records(folder, person)
    return Withdrawal(new, held, tuple(doubtful), found.certain, found.doubtful, judgements, seen)


def _block(folder: Folder, digest: str) -> bool:
    """Enter a person into the list, then into the log; say whether the list lacked them."""
    listed = _listed(folder)
    new = digest not in listed
    if new:
        salt = secrets.token_hex(16)
        listed[digest] = salt
        files.replace(
            list_file(folder),
            json.dumps({"format": 1, "withdrawn": listed}, indent=1).encode() + b"\n",
            mode=files.PRIVATE,
        )
    # Said again if the log missed it, such as after a fall between the two.
    commitment = _commitment(digest, listed[digest])
    with closing(folder.log()) as log:
        said = {entry.event.fields["person_commitment"] for entry in log.entries("withdrawal")}
        if commitment not in said:
            log.append("withdrawal", {"person_commitment": commitment})
    return new


def _in_records(folder: Folder, person: str) -> bool:
    from client import records

    try:
        reading = records.read(folder.data, person_column=folder.settings.data.person_column)
    except ClientError:
        return False
    return any(record.person == person for record in reading.records)


def _commitment(digest: str, salt: str) -> str:
    return canonical.digest(canonical.encode({"person": digest, "salt": salt}))


def _damaged(path: Path) -> ClientError:
    return ClientError(
        f"{path} is damaged or too old; restore it from your newest backup, for without it nobody "
        "can tell who withdrew",
        code="withdrawals-damaged",
    )


def list_file(folder: Folder) -> Path:
    """Where the list lies."""
    return folder.path / "withdrawn.json"


def _listed(folder: Folder) -> dict[str, str]:
    """Salt of the commitment by the person's digest."""
    path = list_file(folder)
    try:
        values: Any = json.loads(path.read_bytes())
        listed = {str(digest): str(salt) for digest, salt in values["withdrawn"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path) from None
    return listed
