"""Batches in which what stands together of one person hangs on nobody else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], *, person: Callable[[T], object], most: int) -> Iterator[list[T]]:
    """Yield the items in order, in lists of at most `most`.

    Guarantees: a person's items that follow each other are cut after every `most` of them, counted
        from the first, and nowhere else. So whether two of them are in one batch depends on that
        person's items alone, as long as all of them follow each other.

    >>> [len(batch) for batch in batches("abbbccd", person=str, most=3)]
    [1, 3, 3]
    """
    batch: list[T] = []
    for _, run in itertools.groupby(items, key=person):
        while piece := list(itertools.islice(run, most)):
            if len(batch) + len(piece) > most:
                yield batch
                batch = []
            batch += piece
    if batch:
        yield batch
