"""PPO on public questions: it learns what is rewarded, and never passes for private training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from model import base, catalog, reinforce, reinforcing
from model.errors import ModelError
from model.reinforce import Course

TINY = "tiny-llama"


@pytest.fixture
def tiny(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> base.Base:
    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    return base.load(catalog.find(TINY), threads=1)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "public.jsonl"
    path.write_text("".join(json.dumps({"instruction": f"q{n}"}) + "\n" for n in range(24)))
    return path


def _early(text: str) -> float:
    """The share of letters of the first half of the alphabet."""
    return sum(letter in "abcdefghijklm" for letter in text) / max(1, len(text))


def test_what_is_rewarded_becomes_more(tiny: base.Base) -> None:
    pytest.importorskip("trl", reason="PPO needs the extra reinforce")
    with torch.no_grad():  # random weights hardly tell tokens apart
        tiny.model.lm_head.weight.mul_(15)
    asked = [f"q{number}" for number in range(40)]
    course = Course(episodes=384, batch=32, learning_rate=1e-2, max_new_tokens=8, pull=0.0)
    told: list[tuple[str, int, int]] = []
    trained, learnt = reinforce.learn(
        tiny, asked[:32], asked[32:], course, score=_early,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert len(learnt.rewards) == 12
    assert told[-1] == ("learning", 12, 12)
    assert learnt.rewards[-1] > learnt.rewards[0] + 0.2
    assert learnt.after > learnt.before + 0.2
    assert not any("lora" in name for name, _ in trained.named_parameters())


def test_what_comes_out_says_that_it_is_not_private(
    tiny: base.Base, questions: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="PPO needs the extra reinforce")
    judge = _judge(tiny, tmp_path / "judge")
    made = reinforcing.make(
        TINY, questions, tmp_path / "out", reward=judge,
        course=Course(episodes=8, batch=8, max_new_tokens=4, passes=1),
    )  # fmt: skip
    assert (made["private"], made["method"], made["reward"]["kind"]) == (False, "ppo", "model")
    assert "without differential privacy" in made["notice"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == made
    found = catalog.find(str(tmp_path / "out" / "model"))
    assert found.digest == made["model"]["digest"]
    loaded = base.load(found, threads=1)
    assert set(loaded.folder.linear) == set(tiny.folder.linear)


def _judge(tiny: base.Base, folder: Path, outputs: int = 1) -> Path:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        str(tiny.folder.path), num_labels=outputs
    )
    model.save_pretrained(str(folder))
    tiny.tokenizer.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("link", [False, True])
def test_records_of_an_institution_are_refused(questions: Path, tmp_path: Path, link: bool) -> None:
    site = tmp_path / "clinic-a"
    (site / "deep").mkdir(parents=True)
    (site / "site.toml").write_text("")
    inside = site / "deep" / "records.jsonl"
    shutil.copy(questions, inside)
    given = inside
    if link:
        given = tmp_path / "linked.jsonl"
        given.symlink_to(inside)
    (tmp_path / "words.txt").write_text("yes\n")
    with pytest.raises(ModelError, match="institution's folder") as refusal:
        reinforcing.make(TINY, given, tmp_path / "out", words=tmp_path / "words.txt")
    assert refusal.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_a_reward_model_of_another_kind_is_refused(tiny: base.Base, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="one output"):
        reinforce.reward_model(_judge(tiny, tmp_path / "two", outputs=2), tiny)
    folder = _judge(tiny, tmp_path / "other")
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["added_tokens"].append({**tokens["added_tokens"][0], "id": 258, "content": "<new>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(ModelError, match="other tokens"):
        reinforce.reward_model(folder, tiny)
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match="does not load"):
        reinforce.reward_model(tmp_path / "none", tiny)


def test_the_score_by_words_is_their_share() -> None:
    score = reinforce.by_words(["Take", "one ", "a", "day", ""])
    assert score("Take one, a DAY.") == 1.0
    assert score("take none") == 0.5
    assert score(" ... ") == score("") == 0.0
    with pytest.raises(ModelError, match="empty"):
        reinforce.by_words(["", " "])


def test_settings_and_rewards_that_make_no_sense_are_refused(
    tiny: base.Base, questions: Path, tmp_path: Path
) -> None:
    for wrong in ({"batch": 1}, {"episodes": 4, "batch": 8}, {"learning_rate": 0.0}, {"pull": -1}):
        values: dict[str, Any] = wrong
        with pytest.raises(ModelError, match="PPO needs"):
            Course(**values)
    with pytest.raises(ModelError, match="either"):
        reinforcing.make(TINY, questions, tmp_path / "out")
    with pytest.raises(ModelError, match="batch of 16"):
        reinforce.learn(tiny, ["q"], ["r"], Course(), score=_early)
