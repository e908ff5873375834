"""The public or synthetic records that a search trains on, or scores with: never the site's own."""

from __future__ import annotations

import filecmp
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client import records
from client.errors import ClientError
from client.folder import Folder

if TYPE_CHECKING:
    from model.prompts import Example

_HELD = 0.2  # of the persons, by a fixed digest of the key: the same in every trial
_MOST_HELD = 1000  # records that every trial is scored on: bounds the time


@dataclass(frozen=True, slots=True)
class Proxy:
    """Public records, split by person.

    Attributes:
        digest: of the file.
        people: one item a person to train on.
        held: the records of the others, to score with.
        asked: their instructions and responses.
    """

    digest: str
    people: tuple[tuple[Example, ...], ...] = field(repr=False)
    held: tuple[Example, ...] = field(repr=False)
    asked: tuple[tuple[str, str], ...] = field(repr=False)


def read(
    folder: Folder, path: Path, base: Any, *, max_tokens: int, labels: Any, whole: bool = False
) -> Proxy:
    """Read and split the proxy.

    Args:
        folder: the institution, whose own records it must not be.
        path: the file; whoever names it says that its records are public or made up.
        base: the model that encodes.
        max_tokens: longest sequence.
        labels: from `client.train.labels_of`; None is any text.
        whole: score with all of it and train on none.

    Raises:
        ClientError: it is the site's own records (exit code 3), or has too little to use.
    """
    check(folder, path)
    reading = records.read(path, person_column=folder.settings.data.person_column)
    from model import prompts

    kept: dict[str, list[tuple[Any, tuple[str, str]]]] = defaultdict(list)
    for record in reading.records:
        row = (record.instruction, record.response)
        example = prompts.encode(base, *row, max_tokens=max_tokens)
        if labels is None or example.ids[example.prompt_tokens :] in labels:
            kept[record.person].append((example, row))
    apart = {person for person in kept if whole or _share(person) < _HELD}
    people = tuple(
        tuple(example for example, _ in kept[person]) for person in sorted(kept.keys() - apart)
    )
    held = [pair for person in sorted(apart) for pair in kept[person]][:_MOST_HELD]
    if not held or not (people or whole):
        raise ClientError(
            f"{path} has usable records of {len(kept)} persons, too few to train on some and to "
            "score with the others; give a larger file, with responses among the run's labels",
            code="no-records",
        )
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return Proxy(digest, people, tuple(one for one, _ in held), tuple(row for _, row in held))


def check(folder: Folder, path: Path) -> None:
    """Refuse the institution's records by place and by content.

    Raises:
        ClientError: it is one of them (exit code 3), or no file.
    """
    if not path.is_file():
        raise ClientError(f"{path} is no file; give --proxy a file of records", code="no-file")
    own, given = folder.data.resolve(), path.resolve()
    inside = given.is_relative_to(folder.path.resolve())
    same = own.is_file() and (own.samefile(given) or filecmp.cmp(own, given, shallow=False))
    if inside or same:
        raise ClientError(
            f"{path} belongs to the institution's own records, and settings that are chosen on "
            "them cost ε; give a public or synthetic file, or ask for --private, which charges "
            "the ledger",
            code="proxy-is-private",
            exit_code=3,
        )


def _share(person: str) -> float:
    return int(hashlib.sha256(f"search\0{person}".encode()).hexdigest()[:8], 16) / 2**32
