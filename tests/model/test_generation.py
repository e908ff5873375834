from __future__ import annotations

from typing import Any

import pytest
import torch

from model import generation, prompts
from model.base import Base
from model.errors import ModelError

ASKED = [{"role": "user", "content": "hello"}]


def test_the_likeliest_answer_is_taken_token_by_token(tiny: Base) -> None:
    reply = generation.chat(tiny.model, tiny, ASKED, max_new_tokens=4)
    ids = list(prompts.conversation(tiny, ASKED, max_tokens=400))
    assert reply.prompt_tokens == len(ids)
    answer: list[int] = []
    for _ in range(reply.completion_tokens):
        with torch.no_grad():
            logits = tiny.model(torch.tensor([ids + answer]), use_cache=False).logits
        answer.append(int(logits[0, -1].argmax()))
    assert reply.text == tiny.tokenizer.decode(answer, skip_special_tokens=True).strip()


def test_an_answer_stops_at_its_end_token_or_at_the_limit(
    llama: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = generation.chat(llama.model, llama, ASKED, max_new_tokens=3)
    assert (reply.completion_tokens, reply.finished) == (3, False)
    first = llama.model(torch.tensor([prompts.conversation(llama, ASKED, max_tokens=99)]))
    likeliest = int(first.logits[0, -1].argmax())
    monkeypatch.setattr(prompts, "end_token", lambda base: likeliest)
    reply = generation.chat(llama.model, llama, ASKED, max_new_tokens=3)
    assert (reply.completion_tokens, reply.finished) == (1, True)


def test_sampling_varies_and_the_likeliest_does_not(llama: Base) -> None:
    def ask(**setting: Any) -> str:
        return generation.chat(llama.model, llama, ASKED, max_new_tokens=12, **setting).text

    assert len({ask() for _ in range(3)}) == 1
    assert len({ask(temperature=2.0) for _ in range(3)}) > 1


@pytest.mark.parametrize(
    "setting",
    [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}],
)
def test_a_setting_out_of_range_is_refused(llama: Base, setting: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="setting"):
        generation.chat(llama.model, llama, ASKED, **setting)


def test_a_conversation_longer_than_the_model_reads_is_refused(llama: Base) -> None:
    long = [{"role": "user", "content": "x" * 500}]
    with pytest.raises(ModelError, match="exceeds"):
        generation.chat(llama.model, llama, long, max_new_tokens=8)


def test_the_answer_does_not_show_in_a_repr(llama: Base) -> None:
    reply = generation.Reply(text="secret", prompt_tokens=1, completion_tokens=1, finished=True)
    assert "secret" not in repr(reply)
