"""Which records are the same: to the letter, by template, or nearly (MinHash, then counted).

Near is a Jaccard similarity of word runs, at least the recipe's. Candidates come from 32 bands of 4
MinHash values (Leskovec, Rajaraman, Ullman, chapter 3.4): a pair at 0.8 is missed with probability
(1 - 0.8^4)^32, less than 5e-8, a nearer one more seldom. Every candidate is counted exactly.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from client.errors import ClientError
from configs.prepare import DuplicatesTable

_BANDS: Final = 32
_ROWS: Final = 4
_FEW: Final = 24
# A Chinese character counts as a word.
_WORD: Final = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\W\u3400-\u9fff\uf900-\ufaff]+")
_DIGIT: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Print:
    """What a record is compared by; holds no text.

    Attributes:
        exact: equal for texts that differ in case, spaces or punctuation only.
        template: equal for texts that differ, beyond that, in their numbers only.
        runs: digests of the word runs.
    """

    exact: bytes = field(repr=False)
    template: bytes = field(repr=False)
    runs: frozenset[int] = field(repr=False)


def fingerprint(instruction: str, response: str, words: int) -> Print:
    """The print of a record, with runs of `words` words."""
    whole = f"{instruction}\n{response}".casefold()
    parts = _WORD.findall(whole) or whole.split()
    plain = " ".join(parts)
    count = max(1, len(parts) - words + 1)
    runs = frozenset(
        int.from_bytes(_hash(" ".join(parts[at : at + words]))[:8], "big") for at in range(count)
    )
    return Print(_hash(plain), _hash(_DIGIT.sub("0", plain)), runs)


def alike(one: Print, other: Print, table: DuplicatesTable) -> bool:
    """Whether two records are the same to the letter, by template, or nearly."""
    if one.template == other.template:
        return True
    small, large = sorted((len(one.runs), len(other.runs)))
    if not small >= table.similarity * large:
        return False
    both = len(one.runs & other.runs)
    return both >= table.similarity * (small + large - both)


class Index:
    """Prints that were seen, to ask whether another is like one of them."""

    def __init__(self, table: DuplicatesTable) -> None:
        """Start empty.

        Raises:
            ClientError: datasketch is missing.
        """
        try:
            from datasketch import MinHashLSH
        except ImportError:
            raise ClientError(
                "datasketch is not installed; install privity[prepare]", code="missing-library"
            ) from None
        self._table = table
        self._templates: dict[bytes, list[Hashable]] = {}
        self._same: dict[bytes, list[Hashable]] = {}
        self._prints: list[Print] = []
        self._near: Any = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))

    def add(self, one: Print, tag: Hashable) -> None:
        """Remember a print under a tag, such as its person."""
        self._templates.setdefault(one.template, []).append(tag)
        known = self._same.setdefault(one.exact, [])
        known.append(tag)
        if len(known) == 1:  # the others are found by the first of them
            self._near.insert(len(self._prints), _minhash(one), check_duplication=False)
            self._prints.append(one)

    def like(self, one: Print) -> Iterator[Hashable]:
        """Yield the tags of all that a print is like; a tag can come twice."""
        yield from self._templates.get(one.template, ())
        for number in self._near.query(_minhash(one)) if self._prints else ():
            other = self._prints[number]
            if one.template != other.template and alike(one, other, self._table):
                yield from self._same[other.exact]


def within(prints: Sequence[Print], table: DuplicatesTable) -> Iterator[tuple[int, str]]:
    """Yield position and code of those records of one person that repeat an earlier one.

    A template is no reason here: the same form filled in with another number is another record.
    """
    kept: list[int] = []
    exact: set[bytes] = set()
    index = Index(table) if table.near and len(prints) > _FEW else None
    for number, one in enumerate(prints):
        if table.exact and one.exact in exact:
            yield number, "duplicate"
            continue
        if table.near and _near(one, prints, kept, index, table):
            yield number, "near-duplicate"
            continue
        exact.add(one.exact)
        kept.append(number)
        if index is not None:
            index.add(one, number)


def _near(
    one: Print, prints: Sequence[Print], kept: Sequence[int], index: Index | None,
    table: DuplicatesTable,
) -> bool:  # fmt: skip
    others: Iterable[Any] = kept if index is None else set(index.like(one))
    return any(
        (one.template != prints[n].template or one.exact == prints[n].exact)
        and _close(one, prints[n], table)
        for n in others
    )


def _close(one: Print, other: Print, table: DuplicatesTable) -> bool:
    both = len(one.runs & other.runs)
    return both >= table.similarity * (len(one.runs) + len(other.runs) - both)


def _minhash(one: Print) -> Any:
    import numpy as np
    from datasketch import MinHash

    made = MinHash(num_perm=_BANDS * _ROWS, hashfunc=_low)
    made.update_batch(list(np.fromiter(one.runs, dtype=np.uint64, count=len(one.runs))))
    return made


def _low(run: Any) -> int:
    return int(run) & 0xFFFFFFFF


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
