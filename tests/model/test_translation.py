"""Translation models are local, hold no code, and say the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import translation
from model.errors import ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of one layer with random weights, over bytes."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    place = tmp_path_factory.mktemp("t5")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "</s>": 1} | {c: n + 2 for n, c in enumerate(letters)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>"
    )
    torch.manual_seed(5)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=258, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip
    model.save_pretrained(str(place))
    tokenizer.save_pretrained(str(place))
    return place


def test_texts_go_there_and_back_the_same_every_time_and_each_for_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation, "_MOST_TOKENS", 24)
    say, digests = translation.there_and_back(folder, folder)
    texts = ["where is it", "a longer question", "x" * 60]
    made = list(say(texts))
    assert made == list(say(texts))
    assert len(made) == 3
    assert made[2] == ""  # too long for the model: no wording at all
    assert digests[0] == digests[1]
    assert digests[0].startswith("sha256:")


def test_a_folder_that_may_hold_code_or_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as fault:
        translation.there_and_back(folder, tmp_path / "none")
    assert fault.value.code == "no-model"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError) as fault:
        translation.there_and_back(tmp_path, folder)
    assert fault.value.code == "bad-model"
    (tmp_path / "modeling.py").write_text("")
    with pytest.raises(ModelError) as fault:
        translation.there_and_back(tmp_path, folder)
    assert fault.value.code == "unsafe-file"
