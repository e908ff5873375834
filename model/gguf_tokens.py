"""What a GGUF file says about its tokenizer: byte-level BPE, or SentencePiece's BPE."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import gguf

from model.errors import ModelError

# Readers split text before merging by rules that they know by name only.
_BYTE_LEVEL: Final = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS: Final = {"type": "Digits", "individual_digits": True}
_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")


def describe(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    """Write the tokenizer of a model's folder into a file.

    Args:
        writer: of the file.
        folder: its tokenizer.json and tokenizer_config.json are read.
        size: rows of the embedding.

    Raises:
        ModelError: it is none that readers of GGUF know by name.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    model = tokenizer["model"]
    if model["type"] != "BPE":
        raise ModelError(
            f"GGUF is written for BPE tokenizers, and this one is {model['type']}; export the "
            "merged model instead",
            code="unsupported-tokenizer",
        )
    words = {place: word for word, place in model["vocab"].items()}
    kinds = dict.fromkeys(words, gguf.TokenType.NORMAL)
    for added in tokenizer.get("added_tokens", ()):
        words[added["id"]] = added["content"]
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        kinds[added["id"]] = special
    texts = [words.get(place, f"[unused{place}]") for place in range(size)]
    if model.get("byte_fallback"):
        _pieces(writer, tokenizer, texts, kinds)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_split(tokenizer.get("pre_tokenizer") or {}))
        if merges := _merges(model):
            writer.add_token_merges([" ".join(pair) for pair in merges])
        else:  # an empty list cannot be written, and readers then look for scores
            writer.add_token_scores([0.0] * size)
    writer.add_token_list(texts)
    unused = gguf.TokenType.UNUSED
    writer.add_token_types([int(kinds.get(place, unused)) for place in range(size)])
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    ids = {word: place for place, word in words.items()}
    for key, add in (("bos_token", writer.add_bos_token_id), ("eos_token", writer.add_eos_token_id),
                     ("pad_token", writer.add_pad_token_id), ("unk_token", writer.add_unk_token_id),
                     ):  # fmt: skip
        token = settings.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if token in ids:
            add(ids[token])
    template = folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text("utf-8"))
    elif isinstance(settings.get("chat_template"), str):
        writer.add_chat_template(settings["chat_template"])


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = (tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"])
    return [(left, right) for left, right in pairs]


def _pieces(
    writer: gguf.GGUFWriter,
    tokenizer: Mapping[str, Any],
    texts: Sequence[str],
    kinds: dict[int, gguf.TokenType],
) -> None:
    """SentencePiece's way: spaces are letters, and what has no token is spelled in bytes.

    Readers merge the pair whose result has the highest score, so a token's score is the rank of
    the merge that makes it.
    """
    model = tokenizer["model"]
    scores: dict[str, float] = {}
    for rank, pair in enumerate(_merges(model)):
        scores.setdefault("".join(pair), -float(rank))
    never = -float(len(scores) + 1)
    for place, text in enumerate(texts):
        if _BYTE.fullmatch(text):
            kinds[place] = gguf.TokenType.BYTE
        elif text == model.get("unk_token"):
            kinds[place] = gguf.TokenType.UNKNOWN
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([scores.get(text, never) for text in texts])
    writer.add_add_space_prefix(_leading_space(tokenizer))


def _leading_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a text gets a space before it, which is all that readers can be told."""
    before, cut = tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}
    steps = before.get("normalizers", [before]) if before else []
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if not cut and space in steps:
        others = [step for step in steps if step != space]
        if others in ([], [{"type": "Prepend", "prepend": "▁"}]):
            return bool(others)
    if not before and cut.get("type") == "Metaspace" and cut.get("split") is False:
        return bool(cut.get("prepend_scheme", "always") != "never")
    raise _nameless()


def _split(rule: Mapping[str, Any]) -> str:
    """The name by which readers know this way of splitting."""

    def like(given: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
        return all(given.get(key) == value for key, value in known.items())

    steps = rule.get("pretokenizers") if rule.get("type") == "Sequence" else [rule]
    if isinstance(steps, list):
        if len(steps) == 1 and like(steps[0], _BYTE_LEVEL):
            return "gpt-2"
        if len(steps) == 2 and like(steps[0], _DIGITS) and like(steps[1], _BYTE_LEVEL):
            return "smollm"
        split = steps[0].get("pattern", {}).get("Regex", "") if len(steps) == 2 else ""
        if "\\p{N}{1,3}" in split:
            return "llama-bpe"
        if "\\p{N}" in split:
            return "qwen2"
    raise _nameless()


def _nameless() -> ModelError:
    return ModelError(
        "this tokenizer splits text in a way that readers of GGUF have no name for; export the "
        "merged model instead",
        code="unsupported-tokenizer",
    )
