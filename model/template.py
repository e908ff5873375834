"""Chat templates: the tokens that a model expects around what people write.

Text of records and users never passes through a template. The template is rendered once around
markers, and their own tokens are put in between, so that a text that spells out a control token
stays text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from model.errors import ModelError

ROLES: Final = ("system", "user", "assistant")
# Templates of the Llama 3 family print today's date; a prompt must not change from day to day.
_DATE: Final = "26 Jul 2024"
_PLAIN: Final = {"system": "", "user": "Instruction:\n", "assistant": "Response:\n"}
_THINK: Final = "<think>"
# What a template may end in of its own: an open thought, or a closed one with nothing in it.
_OPENED: Final = re.compile(r"<think>\s*(</think>\s*)?$")


@dataclass(frozen=True, slots=True)
class Frame:
    """Tokens around the messages of a conversation.

    Attributes:
        pieces: before each message, and after the last one up to where the answer begins.
        end: token that ends an answer.
    """

    pieces: tuple[tuple[int, ...], ...]
    end: int


@lru_cache(maxsize=64)
def frame(tokenizer: Any, roles: tuple[str, ...], *, thinking: bool = False) -> Frame | None:
    """The frame of a conversation whose messages have these roles, the last one `user`.

    The template's default system prompt is left out: with no system message, or with an empty
    one where the template would otherwise write its own. A template that makes the model think
    first gets its thoughts closed, as the answers that we train on follow at once; with `thinking`,
    the frame ends in an open thought instead, whatever the template does.

    Returns:
        The frame; None if the template does not take these roles (some refuse `system`).

    Raises:
        ModelError: the tokenizer has no end token.
    """
    texts = _plain(roles) if tokenizer.chat_template is None else _rendered(tokenizer, roles)
    if texts is None:
        return None
    if thinking:
        texts[-1] = _OPENED.sub("", texts[-1]) + f"{_THINK}\n"
    elif texts[-1].rstrip().endswith(_THINK):
        texts[-1] = texts[-1].rstrip() + "\n\n</think>\n\n"
    pieces = [tuple(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    if tokenizer.chat_template is None:
        begin = [i for i in tokenizer("").input_ids if i != tokenizer.eos_token_id]
        pieces[0] = (*begin, *pieces[0])
    return Frame(pieces=tuple(pieces), end=_end(tokenizer))


def closing(tokenizer: Any) -> tuple[int, ...]:
    """Tokens between a thought and the answer that follows it."""
    return tuple(tokenizer("\n</think>\n\n", add_special_tokens=False).input_ids)


def tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Tokens of a text that people wrote; control tokens spelled out in it are plain text."""
    stripped = text.strip()
    if not stripped:
        return ()
    return tuple(tokenizer(stripped, add_special_tokens=False, split_special_tokens=True).input_ids)


def _plain(roles: Sequence[str]) -> list[str]:
    texts, gap = [], ""
    for role in roles:
        texts.append(gap + _PLAIN[role])
        gap = "\n\n"
    return [*texts, gap + _PLAIN["assistant"]]


def _rendered(tokenizer: Any, roles: tuple[str, ...]) -> list[str] | None:
    texts = _cut(tokenizer, roles, generate=True)
    if roles[0] == "system":
        return texts
    silenced = _cut(tokenizer, ("system", *roles), generate=True, silent=True)
    if silenced is not None and (texts is None or len(silenced[0]) < len(texts[0])):
        return silenced
    return texts


def _cut(
    tokenizer: Any, roles: tuple[str, ...], *, generate: bool, silent: bool = False
) -> list[str] | None:
    """Render markers and return the text around them; `silent` empties the system message."""
    from jinja2 import TemplateError

    marks = [f"\ue000{index}\ue001" for index in range(len(roles))]
    if silent:
        marks[0] = ""
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=generate,
            enable_thinking=False,
            date_string=_DATE,
        )
    except (TemplateError, ValueError, TypeError, KeyError):
        return None
    texts = []
    for mark in marks[1:] if silent else marks:
        before, found, text = str(text).partition(mark)
        if not found:
            return None
        texts.append(before)
    return [*texts, text]


def _end(tokenizer: Any) -> int:
    """The first control token that the template writes after an answer, or the end of text."""
    if tokenizer.chat_template is not None:
        texts = _cut(tokenizer, ("user", "assistant"), generate=False)
        control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        for token in tokenizer(texts[-1], add_special_tokens=False).input_ids if texts else ():
            if token in control:
                return int(token)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the model's tokenizer names no end token; add eos_token to its tokenizer_config.json",
            code="no-end-token",
        )
    return int(tokenizer.eos_token_id)
