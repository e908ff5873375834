"""The Chinese model: its words, and that company changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from demo import generate
from privacy import lac


@pytest.fixture(scope="module")
def model() -> lac.Lac:
    return lac.Lac(lac.folder())


def test_it_tells_people_places_and_houses_apart(model):
    text = "张建国昨天在杭州市第一人民医院看病。"
    tags = {text[word.start : word.end]: word.tag for word in model.words(text)}
    assert tags["张建国"] == "PER"
    assert {tags[word] for word in tags if "杭州" in word} <= {"LOC", "ORG"}


def test_words_cover_every_sentence_with_chinese_without_gaps(model):
    text = "患者王小明，男。\nNo Chinese here.\n家住海淀区！"
    words = model.words(text)
    covered = "".join(text[word.start : word.end] for word in words)
    assert covered == "患者王小明，男。\n家住海淀区！"
    assert model.words("No Chinese at all.") == ()


def test_a_text_is_read_the_same_alone_and_in_company(model):
    people = generate.persons("hospital", count=30, language="zh", seed=3)
    texts = [note.instruction for person in people for note in person.notes]
    together = list(model.many(texts))
    assert together == [model.words(text) for text in texts]


def test_the_best_path_is_the_best_of_all_paths():
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(2, 4, 3)).astype(np.float32)
    turns = rng.normal(size=(3, 3)).astype(np.float32)
    found = lac._viterbi(scores, turns, np.array([4, 2]))
    for row, length in enumerate((4, 2)):
        paths = np.stack(np.meshgrid(*[range(3)] * length), -1).reshape(-1, length)

        def worth(path, row=row, length=length):
            steps = sum(scores[row, at, path[at]] for at in range(length))
            return steps + sum(turns[path[at - 1], path[at]] for at in range(1, length))

        assert found[row] == list(max(paths, key=worth))


def test_scores_that_are_no_numbers_raise(model, monkeypatch):
    class Broken:
        def run(self, names, values):
            return [np.full((1, values["token_ids"].shape[1], 57), np.nan, np.float32)]

    monkeypatch.setattr(model, "_session", Broken())
    with pytest.raises(ArithmeticError):
        model.words("患者王小明")
