"""A public list of labels as token sequences, and which token may follow which beginning of one.

What a model that must answer with one of them says is a choice among the tokens that continue some
label; everything else it might have said is left out of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model import prompts
from model.errors import ModelError

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """All labels in one tree, so that what two of them share is computed once.

    Attributes:
        texts: the labels in the order in which they were given.
        answers: the tokens of each, the end token included.
        nodes: all proper non-empty beginnings of answers, each one token longer than its parent.
        edges: for each label, (index into root + nodes, next token) along its tokens.
        followers: for root + nodes, the tokens that continue a label there, ascending.
    """

    texts: tuple[str, ...]
    answers: tuple[Tokens, ...]
    nodes: tuple[Tokens, ...]
    edges: tuple[tuple[tuple[int, int], ...], ...]
    followers: tuple[Tokens, ...]
    _places: dict[Tokens, int] = field(repr=False)

    @classmethod
    def of(cls, base: Any, texts: Sequence[str]) -> Labels:
        """The tree of `texts`.

        Args:
            base: a `Base` or its tokenizer.
            texts: at least one.

        Raises:
            ModelError: there is none, or two read the same.
        """
        answers = tuple(prompts.answer(base, text) for text in texts)
        if not answers or len(set(answers)) != len(answers):
            raise ModelError(
                "labels must be given, and no two may read the same; correct the list of labels",
                code="bad-labels",
            )
        nodes = tuple(sorted({ids[:end] for ids in answers for end in range(1, len(ids))}))
        places = {(): 0, **{node: 1 + number for number, node in enumerate(nodes)}}
        edges = tuple(
            tuple((places[ids[:at]], ids[at]) for at in range(len(ids))) for ids in answers
        )
        followers: list[set[int]] = [set() for _ in places]
        for edge in edges:
            for place, token in edge:
                followers[place].add(token)
        return cls(
            tuple(texts), answers, nodes, edges, tuple(tuple(sorted(f)) for f in followers), places
        )

    def __contains__(self, answer: object) -> bool:
        """Whether these tokens are one whole label."""
        return answer in self.answers

    def choices(self, answer: Tokens) -> tuple[Tokens, ...]:
        """For each token of a label, the tokens that could stand there.

        Raises:
            ModelError: `answer` is no label.
        """
        if answer not in self:
            raise ModelError(
                "a response is none of the labels; leave its record out, or add the label",
                code="bad-labels",
            )
        return tuple(self.followers[self._places[answer[:at]]] for at in range(len(answer)))
