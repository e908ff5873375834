"""Reinforcement learning on public questions: PPO as trl has it. The one door to trl.

Nothing here is private: a policy's samples, its rewards and its value model use a question again
and again, outside any clipped gradient. Records of persons have no place in it.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import Tensor, nn

from model import architectures, prompts
from model.base import Base
from model.errors import ModelError

Score = Callable[[str], float]
Progress = Callable[[str, int, int], None]
_SPREAD: Final = 0.02  # of a fresh value head's weights


@dataclass(frozen=True, slots=True)
class Course:
    """How a policy is trained; public numbers.

    Attributes:
        episodes: answers that are sampled and rewarded in all.
        batch: answers between two updates of the policy.
        passes: how often each batch is learnt from.
        learning_rate: of AdamW, for the adapter and the value model.
        max_new_tokens: longest answer.
        pull: how much a departure from the base model costs (trl's kl_coef).
        rank: of the adapter that is trained and then merged.
        unfinished: what an answer that does not end by itself loses.
        seed: of samples and order.
    """

    episodes: int = 512
    batch: int = 16
    passes: int = 4
    learning_rate: float = 1e-4
    max_new_tokens: int = 48
    pull: float = 0.05
    rank: int = 16
    unfinished: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (
            self.episodes >= self.batch >= 2
            and self.passes >= 1
            and 0 < self.learning_rate < 1
            and self.max_new_tokens >= 1
            and self.pull >= 0
            and 1 <= self.rank <= 512
            and self.unfinished >= 0
        ):
            raise ModelError(
                "PPO needs at least one batch of two episodes, a learning rate between 0 and 1 and "
                "a rank of 1 to 512; correct the setting",
                code="bad-setting",
            )


@dataclass(frozen=True, slots=True)
class Learnt:
    """Mean reward of sampled answers: by batch in order; to other questions, before and after."""

    rewards: tuple[float, ...]
    before: float
    after: float


def by_words(words: Sequence[str]) -> Score:
    """A score of a text: the share of its words that are among `words`, whatever their case.

    Raises:
        ModelError: there is no word.
    """
    known = {word.strip().casefold() for word in words} - {""}
    if not known:
        raise ModelError("the list of words is empty; give one word a line", code="no-words")

    def score(text: str) -> float:
        said = ["".join(filter(str.isalnum, word)).casefold() for word in text.split()]
        said = [word for word in said if word]
        return sum(word in known for word in said) / len(said) if said else 0.0

    return score


def reward_model(folder: Path, policy: Base) -> Any:
    """Load a local reward model: a sequence classifier with one output, of the policy's tokens.

    Raises:
        ModelError: it does not load from safetensors alone, has more outputs, or other tokens.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            str(folder), use_safetensors=True, dtype=torch.float32, **offline
        )
        words = AutoTokenizer.from_pretrained(str(folder), **offline).get_vocab()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(
            f"{folder} does not load as a reward model ({type(error).__name__}); give a folder "
            "with a sequence classifier in safetensors and its tokenizer",
            code="model-does-not-load",
        ) from error
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise ModelError(
            f"{folder} is no reward model: it needs one output, named score", code="bad-setting"
        )
    if words != policy.tokenizer.get_vocab():
        raise ModelError(
            "the reward model reads other tokens than the policy; take one that was trained from "
            "the same base",
            code="other-tokens",
        )
    return model.eval()


def learn(
    policy: Base,
    questions: Sequence[str],
    held: Sequence[str],
    course: Course,
    *,
    score: Score | None = None,
    reward: Any = None,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Any, Learnt]:
    """Train the policy to be rewarded, without privacy.

    Args:
        policy: float32, without an adapter; is changed, and of no other use afterwards.
        questions: public, at least as many as a batch.
        held: other public questions, for the rewards before and after.
        course: how.
        score: of an answer's text; or
        reward: from `reward_model`.
        progress: called with (what, done, total).

    Returns:
        The trained model with the adapter merged into it, and its rewards.

    Raises:
        ModelError: trl is not installed, there are too few questions, or nothing rewards.
    """
    if len(questions) < course.batch or not held:
        raise ModelError(
            f"PPO needs a batch of {course.batch} questions and one to judge by; give more, or "
            "lower --batch",
            code="no-question",
        )
    if (score is None) == (reward is None):
        raise ModelError("give a reward model or a list of words", code="bad-setting")
    ppo = _trl()
    from peft import LoraConfig

    asked = {text: _ids(policy, text) for text in (*questions, *held)}
    width = max(len(ids) for ids in asked.values())
    tokenizer = policy.tokenizer
    ending = tokenizer.eos_token_id
    pad = _unused(policy, list(asked.values()))
    tokenizer.pad_token_id, tokenizer.padding_side = pad, "left"
    if reward is None and score is not None:
        reward = _Scored(tokenizer, width, score)
    value = _value_model(policy)
    kind = architectures.of(policy.folder.architecture)
    with tempfile.TemporaryDirectory() as place, _quiet():
        settings = ppo.PPOConfig(
            output_dir=place, report_to=[], save_strategy="no", num_sample_generations=0,
            bf16=False, fp16=False, gradient_checkpointing=False, disable_tqdm=True,
            logging_steps=1, use_cpu=not torch.cuda.is_available(), seed=course.seed,
            per_device_train_batch_size=course.batch, total_episodes=course.episodes,
            local_rollout_forward_batch_size=course.batch, num_ppo_epochs=course.passes,
            learning_rate=course.learning_rate, response_length=course.max_new_tokens,
            stop_token_id=ending, missing_eos_penalty=course.unfinished or None,
            temperature=1.0, kl_coef=course.pull,
        )  # fmt: skip
        trainer = ppo.PPOTrainer(
            args=settings,
            processing_class=tokenizer,
            model=policy.model,
            ref_model=None,
            reward_model=reward,
            value_model=value,
            train_dataset=[{"input_ids": asked[text]} for text in questions],
            eval_dataset=[{"input_ids": asked[text]} for text in held],
            data_collator=lambda rows: {
                "input_ids": _left([row["input_ids"] for row in rows], width, pad)
            },
            peft_config=LoraConfig(
                r=course.rank, lora_alpha=2 * course.rank, lora_dropout=0.0,
                target_modules="all-linear", fan_in_fan_out=kind.transposed,
                task_type="CAUSAL_LM",
            ),
        )  # fmt: skip
        trainer.add_callback(_reporting(progress))
        judged = [asked[text] for text in held]

        def mean() -> float:
            return _mean(ppo, trainer.model.policy, reward, judged, width, pad, ending, course)

        before = mean()
        trainer.train()
        after = mean()
        rewards = tuple(
            float(row["objective/scores"])
            for row in trainer.state.log_history
            if "objective/scores" in row
        )
        merged = trainer.accelerator.unwrap_model(trainer.model).policy.merge_and_unload()
    tokenizer.pad_token_id = ending
    return merged.cpu().eval(), Learnt(rewards, before, after)


def _trl() -> Any:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental import ppo
        from trl.experimental.ppo import ppo_trainer
    except ImportError:
        raise ModelError(
            "PPO needs trl, from 1.8 to 1.12: later ones have none; in privity's own folder run: "
            "pip install '.[reinforce]' -c constraints.txt",
            code="no-trl",
        ) from None
    return SimpleNamespace(
        PPOConfig=ppo.PPOConfig,
        PPOTrainer=ppo.PPOTrainer,
        generate=ppo_trainer.batch_generation,
        truncate=ppo_trainer.truncate_response,
        reward=ppo_trainer.get_reward,
    )


class _Scored(nn.Module):
    """A score of an answer's text in the place of a reward model.

    trl asks a backbone for hidden states and then a head; here the hidden state is the token.
    """

    base_model_prefix = "tokens"

    def __init__(self, tokenizer: Any, width: int, score: Score) -> None:
        super().__init__()
        self.tokens = _Tokens()
        self._tokenizer, self._width, self._score = tokenizer, width, score

    def score(self, hidden: Tensor) -> Tensor:
        """The score of each row's answer, at each of its places."""
        # Padding came in as 0, behind the answer's end: what is decoded stops there.
        rewards = []
        for row in hidden[..., 0].long().tolist():
            answer = row[self._width :]
            while answer and answer[-1] == 0:
                answer.pop()
            rewards.append(self._score(self._tokenizer.decode(answer, skip_special_tokens=True)))
        found = torch.tensor(rewards, dtype=torch.float32, device=hidden.device)
        return found[:, None, None].expand(-1, hidden.shape[1], 1)


class _Tokens(nn.Module):
    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        return SimpleNamespace(hidden_states=[input_ids.double()[..., None]])


def _value_model(policy: Base) -> Any:
    """What guesses rewards: the base with a fresh head of one output."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        str(policy.folder.path), num_labels=1, dtype=torch.float32, use_safetensors=True,
        local_files_only=True, trust_remote_code=False,
    )  # fmt: skip
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise ModelError(
            f"{policy.folder.name} has no form with a value head for PPO", code="bad-setting"
        )
    nn.init.normal_(head.weight, std=_SPREAD)
    return model


def _mean(
    ppo: Any, model: Any, reward: Any, asked: Sequence[list[int]], width: int, pad: int,
    ending: int, course: Course,
) -> float:  # fmt: skip
    """The mean reward of sampled answers."""
    from transformers import GenerationConfig

    sampling = GenerationConfig(
        max_new_tokens=course.max_new_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        eos_token_id=ending, pad_token_id=pad,
    )  # fmt: skip
    torch.manual_seed(course.seed)
    queries = _left(asked, width, pad).to(next(model.parameters()).device)
    with torch.no_grad():
        found, _ = ppo.generate(model, queries, course.batch, pad, sampling)
        answers = ppo.truncate(ending, pad, found[:, width:])
        _, scores, _ = ppo.reward(reward, torch.cat([queries, answers], 1), pad, width)
    return float(scores.double().mean())


def _ids(policy: Base, text: str) -> list[int]:
    ids = prompts.conversation(policy, [{"role": "user", "content": text}], max_tokens=1 << 30)
    return list(ids)


def _unused(policy: Base, asked: Sequence[list[int]]) -> int:
    """A token that no question has, to pad with: trl hides whatever is the padding token."""
    used = {token for ids in asked for token in ids} | {policy.tokenizer.eos_token_id, 0}
    special = [token for token in policy.tokenizer.all_special_ids if token not in used]
    rows = policy.model.get_input_embeddings().num_embeddings
    rest = (token for token in range(len(policy.tokenizer) - 1, 0, -1) if token not in used)
    found = next(iter(special), None) or next(rest, None)
    if found is None or found >= rows:
        raise ModelError("the questions use every token that there is", code="bad-setting")
    return found


def _left(rows: Sequence[list[int]], width: int, pad: int) -> Tensor:
    return torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])


def _reporting(progress: Progress) -> Any:
    from transformers import TrainerCallback

    class Reporting(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress("learning", int(state.global_step), int(state.max_steps))

    return Reporting()


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep trl's own prints and advice off the screen."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
