"""Detectors of a local folder: tiny random ones, pinned, and refused if a byte is another one."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from model import detectors
from model.errors import ModelError

LABELS = ["O", "B-PER", "I-PER", "B-DATE"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer with random weights, which always says B-PER."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    place = tmp_path_factory.mktemp("detector")
    words = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ann", "saw"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.BertForTokenClassification(
        transformers.BertConfig(
            vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=40,
            id2label=dict(enumerate(LABELS)), label2id={x: n for n, x in enumerate(LABELS)},
        )
    )  # fmt: skip
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 4.0, 0.0, 0.0]))
    model.save_pretrained(str(place))
    tokenizer.save_pretrained(str(place))
    return place


def test_a_token_classifier_says_where_and_what(folder: Path) -> None:
    pinned = detectors.folder_digest(folder)
    found = detectors.load(folder, use="token-classification", digest=pinned, labels={})
    assert found.labels == ("PER", "DATE")
    text = "Ann saw\nZoé"
    hits = list(found.find(text))
    assert [text[start:end] for start, end, _, _ in hits] == ["Ann", "saw", "Zoé"]
    assert {label for _, _, label, _ in hits} == {"PER"}
    assert all(0.9 < score < 1 for *_, score in hits)
    assert list(found.find(" ")) == []


def test_a_long_text_is_read_to_its_end(folder: Path) -> None:
    found = detectors.load(folder, use="medical", digest=detectors.folder_digest(folder), labels={})
    text = "ann " * 300
    taken = {start for start, _, _, _ in found.find(text)}
    assert taken == set(range(0, 1200, 4))


def test_another_byte_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    pinned = detectors.folder_digest(copy)
    assert pinned == detectors.folder_digest(folder)
    (copy / "config.json").write_bytes((copy / "config.json").read_bytes() + b" ")
    with pytest.raises(ModelError, match="refused") as fault:
        detectors.load(copy, use="token-classification", digest=pinned, labels={})
    assert fault.value.exit_code == 4
    (copy / "config.json").rename(copy / "konfig.json")
    assert detectors.folder_digest(copy) != pinned


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", "weights.pt", "a.so"])
def test_a_file_that_may_hold_code_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(b"x")
    with pytest.raises(ModelError, match="code") as fault:
        detectors.load(copy, use="medical", digest=detectors.folder_digest(copy), labels={})
    assert fault.value.exit_code == 2


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder"):
        detectors.load(tmp_path / "none", use="medical", digest="", labels={})
    (tmp_path / "config.json").write_text("{}")
    pinned = detectors.folder_digest(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        detectors.load(tmp_path, use="medical", digest=pinned, labels={})


def test_a_gliner_is_asked_for_the_sites_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    pinned = detectors.folder_digest(tmp_path)
    monkeypatch.setitem(sys.modules, "gliner", None)
    with pytest.raises(ModelError, match="package gliner"):
        detectors.load(tmp_path, use="gliner", digest=pinned, labels={})
    asked: list[Any] = []

    class Stub:
        @classmethod
        def from_pretrained(cls, path: str, *, local_files_only: bool) -> Stub:
            assert local_files_only
            return cls()

        def predict_entities(self, text: str, labels: list[str], threshold: float) -> list[Any]:
            asked.append(labels)
            return [{"start": 0, "end": 3, "label": labels[0], "score": 0.7, "text": text[:3]}]

    monkeypatch.setitem(sys.modules, "gliner", types.SimpleNamespace(GLiNER=Stub))
    found = detectors.load(tmp_path, use="gliner", digest=pinned, labels={"ward": "LOCATION"})
    assert list(found.find("Ann")) == [(0, 3, "ward", 0.7)]
    assert asked == [["ward"]]
    default = detectors.load(tmp_path, use="gliner", digest=pinned, labels={})
    assert detectors.types(default.labels, {})["phone number"] == "PHONE_NUMBER"


def test_a_sites_word_for_a_label_goes_before_ours() -> None:
    assert detectors.types(["PER", "MRN", "XYZ"], {"PER": "ORGANIZATION"}) == {
        "PER": "ORGANIZATION", "MRN": "RECORD_NUMBER",
    }  # fmt: skip
