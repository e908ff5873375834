"""A model after PPO on disk, with what it comes from and that it is not private."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from model import base, catalog, distil, manifest, merged, reinforce, whole
from model.errors import ModelError
from model.reinforce import Course, Progress

NOT_PRIVATE: Final = (
    "PPO on public questions, without differential privacy: nothing bounds what any of them, or "
    "the reward model's training data, left in these weights"
)
_HELD: Final = 0.1  # of the questions, at least one


def make(
    policy: str,
    questions: Path,
    out: Path,
    *,
    reward: Path | None = None,
    words: Path | None = None,
    digest: str | None = None,
    course: Course | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Train a model by PPO on public questions and write it as a base model.

    Args:
        policy: a model that was pulled, or a local folder.
        questions: public, as `distil.questions` reads them; not in an institution's folder.
        out: a folder that does not exist yet; it appears whole or not at all.
        reward: a local reward model's folder; or
        words: a public list, one a line: an answer's reward is the share of its words in the list.
        digest: the policy must have it.
        course: how.
        progress: called with (what, done, total).

    Returns:
        The manifest, which says that nothing here is private.

    Raises:
        ModelError: a model, the questions or the reward cannot be used; exit code 3 where the
            questions are an institution's.
    """
    course = course or Course()
    whole.check_new(out)
    if (reward is None) == (words is None):
        raise ModelError("give either --reward-model or --words", code="bad-setting")
    asked, asked_digest = distil.questions(questions)
    count = max(1, round(_HELD * len(asked)))
    ordered = sorted(asked, key=lambda text: hashlib.sha256(text.encode()).digest())
    loaded = base.load(catalog.find(policy, expect_digest=digest))
    score = None if words is None else reinforce.by_words(_lines(words))
    judge = None if reward is None else reinforce.reward_model(reward, loaded)
    trained, learnt = reinforce.learn(
        loaded, ordered[count:], ordered[:count], course, score=score, reward=judge,
        progress=progress,
    )  # fmt: skip
    with whole.folder(out) as draft:
        (draft / "model").mkdir()
        merged.write(trained, loaded, draft / "model")
        source = {"reinforced_from": loaded.folder.digest, "privacy": NOT_PRIVATE}
        after = manifest.describe(out.name, draft / "model", source=source)
        made: dict[str, Any] = {
            "format": 1,
            "public": True,
            "private": False,
            "notice": NOT_PRIVATE,
            "method": "ppo",
            "policy": {"name": loaded.folder.name, "digest": loaded.folder.digest},
            "prompts": {"digest": asked_digest, "count": len(asked), "held_out": count},
            "reward": {"kind": "words" if reward is None else "model",
                       "digest": _digest(words if reward is None else reward)},
            "course": asdict(course),
            "model": {"digest": after.digest},
            "reward_before": learnt.before,
            "reward_after": learnt.after,
            "rewards": list(learnt.rewards),
        }  # fmt: skip
        (draft / "manifest.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return made


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ModelError(f"{path} cannot be read as UTF-8 text", code="no-file") from None


def _digest(path: Path | None) -> str:
    """Of a file, or of a folder's files by name."""
    state = hashlib.sha256()
    if path is not None and path.is_dir():
        for file in sorted(one for one in path.iterdir() if one.is_file()):
            state.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    elif path is not None:
        state.update(path.read_bytes())
    return "sha256:" + state.hexdigest()
