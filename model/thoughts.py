"""The thoughts that reasoning models write before an answer: left out of training, or learnt.

A response may begin with `<think>...</think>`. Left out, the answer follows a closed, empty
thought, which is also how evaluation and serving ask for it. Learnt, thought and answer are labels
alike, behind the model's own opening of a thought; serve such a release with an engine that leaves
the thought open.
"""

from __future__ import annotations

import re
from typing import Any

from model import prompts, template
from model.prompts import Example

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*(.*)", re.DOTALL)


def split(response: str) -> tuple[str, str]:
    """The thought that a response begins with, empty if there is none, and the answer.

    >>> split("<think>Fever, so the clinic.</think>Clinic"), split("Clinic")
    (('Fever, so the clinic.', 'Clinic'), ('', 'Clinic'))
    """
    found = _THOUGHT.fullmatch(response)
    return ("", response) if found is None else (found[1].strip(), found[2])


def encode(
    model: Any, instruction: str, response: str, *, max_tokens: int, learn: bool = False
) -> Example:
    """Tokenise like `prompts.encode`, with the response's thought left out or among the labels.

    Args:
        model: a `Base` or its tokenizer.
        instruction: what is asked.
        response: perhaps a thought, and the answer.
        max_tokens: the sequence has at most this many. A thought of over half of what the answer
            leaves loses its middle, then the instruction does.
        learn: whether the thought is learnt.

    Raises:
        ModelError: max_tokens has no room for the chat format and an answer.
    """
    thought, answer = split(response)
    if not (learn and thought):
        return prompts.encode(model, instruction, answer, max_tokens=max_tokens)
    tokenizer = getattr(model, "tokenizer", model)
    frame = template.frame(tokenizer, ("user",), thinking=True)
    closing = template.closing(tokenizer)
    rigid = len(closing) + sum(map(len, frame.pieces if frame else ()))
    labels = prompts.answer(tokenizer, answer)[: max(1, max_tokens - rigid)]
    body = template.tokens(tokenizer, thought)
    most = max(0, max_tokens - rigid - len(labels)) // 2
    if len(body) > most:
        body = (*body[: most - most // 2], *body[len(body) - most // 2 :])
    learnt = (*body, *closing, *labels)
    asked = prompts.prompt(
        tokenizer, instruction, max_tokens=max_tokens - len(learnt), thinking=True
    )
    return Example(ids=(*asked, *learnt), prompt_tokens=len(asked))
