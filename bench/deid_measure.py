"""How well spans cover what they must, and spare what they must spare.

Full: every letter and digit of a gold value is inside some span. Overlap: at least one is. Both are
blind to types, since a name masked as a town is masked. F2 is that of presidio-evaluator's
`SpanEvaluator` at its level "pii": tokens, skip words, adjacent spans merged, and an intersection
over union of at least 0.9.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Pairs = Sequence[tuple[int, int]]
IOU = 0.9


@dataclass(frozen=True, slots=True)
class Item:
    """One text with what must go and what must stay, in code points."""

    text: str
    gold: tuple[tuple[int, int, str], ...]
    keep: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Score:
    """Sums over items; the rates are properties."""

    full: int = 0
    overlap: int = 0
    gold: int = 0
    clean: int = 0
    docs: int = 0
    kept: int = 0
    keep: int = 0
    damaged: int = 0
    free: int = 0
    inside: int = 0
    spans: int = 0
    missed: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, item: Item, spans: Pairs) -> None:
        """Count one text; `spans` are disjoint or not, in any order."""
        taken = bytearray(len(item.text))
        for start, end in spans:
            taken[start:end] = b"\1" * (end - start)
        whole = True
        for start, end, kind in item.gold:
            at = [i for i in range(start, end) if item.text[i].isalnum()] or [start]
            hit = sum(taken[i] for i in at)
            self.gold += 1
            self.overlap += hit > 0
            self.full += hit == len(at)
            if hit < len(at):
                whole = False
                self.missed.append((kind, item.text[start:end], item.text))
        self.docs += 1
        self.clean += whole
        for start, end in item.keep:
            self.keep += 1
            self.kept += not any(taken[start:end])
        if not item.gold:
            self.free += 1
            self.damaged += bool(spans)
        gold = bytearray(len(item.text))
        for start, end, _ in item.gold:
            gold[start:end] = b"\1" * (end - start)
        for start, end in spans:
            self.spans += 1
            self.inside += 2 * sum(gold[start:end]) >= end - start

    @property
    def rates(self) -> dict[str, float]:
        """Every rate that its sums allow."""
        pairs = {
            "full": (self.full, self.gold),
            "overlap": (self.overlap, self.gold),
            "clean_texts": (self.clean, self.docs),
            "precision": (self.inside, self.spans),
            "keep_damaged": (self.keep - self.kept, self.keep),
            "free_damaged": (self.damaged, self.free),
        }
        return {name: round(part / all_, 4) for name, (part, all_) in pairs.items() if all_}


def score(items: Iterable[Item], spans: Iterable[Pairs]) -> Score:
    """Score the spans of each text against its item."""
    total = Score()
    for item, found in zip(items, spans, strict=True):
        total.add(item, found)
    return total


_SKIP = (
    " \n\n 's street st. st de rue via and a the or do as of day address country state city zip po "
    "apt unit corner p.o. box suite mr. mrs. miss year years y/o month months old morning noon "
    "afternoon night evening this first last week weeks weekend days age ago inc inc. ltd"
)


def f2(items: Iterable[Item], spans: Iterable[Pairs]) -> dict[str, float]:
    """Precision, recall and F2 as presidio-evaluator 0.3.2 counts them."""
    import spacy
    from spacy.lang.en.stop_words import STOP_WORDS

    skip = {*string.punctuation, *string.whitespace, "", *_SKIP.split(), *STOP_WORDS}
    skip |= {">" * count for count in range(2, 6)}
    skip |= {"\n" * count for count in range(1, 5)} | {"\t" * count for count in range(1, 5)}
    blank = spacy.blank("en")
    true = predicted = annotated = 0
    for item, found in zip(items, spans, strict=True):
        doc = blank.make_doc(item.text)
        gold = _merged(doc, [(start, end) for start, end, _ in item.gold], skip)
        guess = _merged(doc, found, skip)
        annotated += len(gold)
        met: set[int] = set()
        for one in gold:
            near = [at for at, two in enumerate(guess) if _shared(one, two) > 0]
            met |= set(near)
            if not near:
                continue
            # Several predictions over one annotation count as one, by their combined extent.
            joint = sum(_shared(one, guess[at]) for at in near)
            union = sum(guess[at][1] - guess[at][0] for at in near) + one[1] - one[0] - joint
            predicted += 1
            true += joint / union >= IOU
        predicted += len(guess) - len(met)
    precision, recall = true / max(1, predicted), true / max(1, annotated)
    both = 5 * precision * recall / max(1e-9, 4 * precision + recall)
    rates = {"precision": precision, "recall": recall, "f2": both}
    return {name: round(value, 4) for name, value in rates.items()}


def _shared(one: tuple[int, int], two: tuple[int, int]) -> int:
    return max(0, min(one[1], two[1]) - max(one[0], two[0]))


def _merged(doc: Any, spans: Pairs, skip: set[str]) -> list[tuple[int, int]]:
    """Spans in tokens: stretches of marked tokens, less skip words at their ends, merged over them."""
    marked = [any(start < t.idx + len(t) and t.idx < end for start, end in spans) for t in doc]
    found: list[tuple[int, int]] = []
    gap = True
    for token, mark in zip(doc, marked, strict=True):
        if token.lower_.strip() in skip or token.lower_ in skip:
            continue
        if mark and gap:
            found.append((token.idx, token.idx + len(token)))
        elif mark:
            found[-1] = (found[-1][0], token.idx + len(token))
        gap = not mark
    return found
