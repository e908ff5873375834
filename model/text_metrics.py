"""How near written answers come to the expected ones; the one door to sacrebleu and rouge-score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from model.errors import ModelError
from model.figures import Float64


@dataclass(frozen=True, slots=True)
class Nearness:
    """Written answers against the expected ones.

    Attributes:
        bleu: of the whole set, 0 to 100 (sacrebleu; Chinese by characters).
        rouge_l: F-measure of the longest common subsequence, mean over records, 0 to 1.
        meteor: mean over records, 0 to 1; exact and stemmed matches, without synonyms.
        each: ROUGE-L of every record, shape (n,).
    """

    bleu: float
    rouge_l: float
    meteor: float
    each: Float64 = field(repr=False)


class _NoSynonyms:
    """Stands for WordNet, whose data is not shipped with its reader."""

    def synsets(self, word: str) -> list[object]:
        del word
        return []


class _Tokens:
    """Words of spaced scripts in lower case; every Chinese character by itself."""

    def tokenize(self, text: str) -> list[str]:
        spaced = "".join(f" {c} " if _is_han(c) else c if c.isalnum() else " " for c in text)
        return spaced.lower().split()


def _is_han(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff" or "\U00020000" <= character <= "\U0003ffff"


def nearness(written: Sequence[str], expected: Sequence[str]) -> Nearness:
    """Compare answers with the expected ones, in the same order.

    Raises:
        ModelError: none, or not as many of one as of the other.
    """
    if not written or len(written) != len(expected):
        raise ModelError("there must be one expected answer for each of one or more written ones")
    tokens, stemmer, none = _Tokens(), PorterStemmer(), _NoSynonyms()
    chinese = sum(map(_is_han, "".join(expected))) > sum(map(len, expected)) / 4
    bleu = BLEU(tokenize="zh" if chinese else "13a", effective_order=False)
    rouge = RougeScorer(["rougeL"], tokenizer=tokens)
    pairs = list(zip(written, expected, strict=True))
    each = np.array([rouge.score(want, got)["rougeL"].fmeasure for got, want in pairs])
    meteor = [
        single_meteor_score(
            tokens.tokenize(want), tokens.tokenize(got), stemmer=stemmer, wordnet=none
        )
        for got, want in pairs
    ]
    score = bleu.corpus_score(list(written), [list(expected)]).score
    return Nearness(float(score), float(each.mean()), float(np.mean(meteor)), each)


def longest_copy(text: str, sources: Sequence[str], *, words: int) -> int:
    """Most words in a row of `text` that some source holds as well; 0 below `words`.

    Args:
        text: what was written.
        sources: training records.
        words: shortest run that counts, at least 1.
    """
    tokens = _Tokens()
    said = tokens.tokenize(text)
    held = [tokens.tokenize(source) for source in sources]
    runs = {tuple(s[i : i + words]) for s in held for i in range(len(s) - words + 1)}
    best = current = 0
    for start in range(len(said) - words + 1):
        current = current + 1 if tuple(said[start : start + words]) in runs else 0
        best = max(best, current)
    return best + words - 1 if best else 0
