"""Written answers are measured as the field measures them."""

from __future__ import annotations

import pytest

from model import text_metrics
from model.errors import ModelError


def test_the_same_words_are_as_near_as_can_be() -> None:
    text = "the cat sat on the old mat"
    found = text_metrics.nearness([text], [text])
    assert found.bleu == pytest.approx(100.0)
    assert found.rouge_l == 1.0
    assert found.meteor == pytest.approx(1.0, abs=0.01)


def test_other_words_are_not_near() -> None:
    found = text_metrics.nearness(["alpha beta gamma delta"], ["one two three four"])
    assert (found.rouge_l, found.meteor) == (0.0, 0.0)
    assert found.bleu == 0.0


def test_rouge_is_the_longest_common_subsequence() -> None:
    found = text_metrics.nearness(["police kill the gunman"], ["police killed the gunman"])
    assert found.each == pytest.approx([0.75])


def test_meteor_takes_the_stem_and_rouge_does_not() -> None:
    found = text_metrics.nearness(["the cats sat"], ["the cat sat"])
    assert found.rouge_l == pytest.approx(2 / 3)
    assert found.meteor > 0.95


def test_chinese_is_compared_by_characters() -> None:
    found = text_metrics.nearness(["请挂心内科的号"], ["请挂心内科号"])
    assert found.rouge_l == pytest.approx(12 / 13)
    assert found.bleu > 30


def test_a_copy_is_found_by_its_longest_run() -> None:
    sources = ["my card was swallowed by the machine on monday", "nothing else"]
    said = "He said: my card was swallowed by the machine yesterday"
    assert text_metrics.longest_copy(said, sources, words=4) == 7
    assert text_metrics.longest_copy(said, ["my card was lost"], words=4) == 0


def test_nothing_to_compare_is_refused() -> None:
    for pair in (([], []), (["a"], [])):
        with pytest.raises(ModelError):
            text_metrics.nearness(*pair)
