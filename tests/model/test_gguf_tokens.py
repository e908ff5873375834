"""A GGUF file's tokenizer reads texts as the model's own does, or is not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from model import gguf_tokens, gguf_writer, merged
from model.errors import ModelError
from tests.model.conftest import make_model

WORDS = ("th", "he", "the", "▁t", "▁the", "in", "ing", "er", "▁a", "nd", "and", "▁and", "re", "es")
TEXTS = (
    "the thing and the other", "there  are two spaces", "  led by two", "x", "", "Zürich 请",
    "a\nline and\ta tab", "andthe re-es",
)  # fmt: skip


def pieces(merges: list[tuple[str, str]] | None = None) -> Tokenizer:
    """A tokenizer as SentencePiece's BPE has it: every way to a token is a merge of its rank."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz-", "ü"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *letters, *WORDS]
    vocab = {name: place for place, name in enumerate(names)}
    if merges is None:
        merges = [
            (word[:cut], word[cut:])
            for word in WORDS
            for cut in range(1, len(word))
            if word[:cut] in vocab and word[cut:] in vocab
        ]
    made = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    made.add_special_tokens([AddedToken(name, special=True) for name in names[:3]])
    return made


def llama2(made: Tokenizer) -> Tokenizer:
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return made


def metaspace(made: Tokenizer) -> Tokenizer:
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    return made


def written(folder: Path, made: Tokenizer, **more: Any) -> tuple[Path, Any]:
    """A model of two layers with this tokenizer, as a GGUF file."""
    model = make_model("mistral")
    config = model.config.to_dict() | {"sliding_window": None} | more
    config["architectures"] = ["MistralForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config, default=str))
    tool = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tool.save_pretrained(str(folder))
    size = len(made.get_vocab())
    weights = {
        name: tensor.detach().numpy()
        for name, tensor in model.state_dict().items()
        if "embed" not in name and "lm_head" not in name
    }
    rng = np.random.default_rng(2)
    weights["model.embed_tokens.weight"] = rng.normal(size=(size, 32)).astype(np.float32)
    config["vocab_size"] = size
    (folder / "config.json").write_text(json.dumps(config, default=str))
    gguf_writer.write(folder / "model.gguf", folder, weights, "f16", name="tiny")
    return folder / "model.gguf", tool


@pytest.mark.parametrize("shape", [llama2, metaspace])
def test_sentencepiece_is_written_by_scores_and_read_alike(tmp_path: Path, shape: Any) -> None:
    file, tool = written(tmp_path, shape(pieces()))
    texts = [text for text in TEXTS if shape is metaspace or not text.startswith(" ")]
    wanted = [tool(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert merged.read_tokens(file, texts) == wanted
    assert len(wanted[0]) < len(TEXTS[0]) - 6  # words were merged, so that the ranks counted
    model = merged.read_back(file)
    assert model.config.model_type == "llama"


def test_other_ranks_than_the_merges_are_noticed(tmp_path: Path) -> None:
    """Two merges in the other order: the file must not be read as the first tokenizer."""
    file, _ = written(tmp_path, metaspace(pieces()))
    other = metaspace(pieces([("h", "e"), ("t", "h"), ("t", "he")]))
    wanted = [other.encode(text, add_special_tokens=False).ids for text in ("the", "these")]
    assert merged.read_tokens(file, ("the", "these")) != wanted


@pytest.mark.parametrize(
    "shape",
    [
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Metaspace"}},
        {"pre_tokenizer": {"type": "Metaspace", "split": True}},
        {},
    ],
)
def test_a_split_without_a_name_is_refused(shape: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="no name for"):
        gguf_tokens._leading_space(shape)


def test_a_window_that_readers_do_not_know_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="through a window"):
        written(tmp_path, llama2(pieces()), sliding_window=4096)


def test_other_kinds_of_tokenizers_are_refused_by_name(tmp_path: Path) -> None:
    value = {"model": {"type": "Unigram", "vocab": []}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(ModelError, match="this one is Unigram"):
        gguf_tokens.describe(None, tmp_path, 3)  # type: ignore[arg-type]
