"""Texts said in other words by two local translation models: there and back.

Nothing is downloaded, no code of the folders runs, and weights are safetensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from model.detectors import checked_files, folder_digest
from model.errors import ModelError

_BATCH: Final = 8
_MOST_TOKENS: Final = 256

Translate = Callable[[Sequence[str]], Sequence[str]]


def there_and_back(there: Path, back: Path) -> tuple[Translate, tuple[str, str]]:
    """Load two encoder-decoder models, such as OPUS-MT's two directions.

    Returns:
        What says texts in other words, greedily, so that it says the same every time; and the two
        folders' digests. A text too long for a model comes back as "", which is no wording.

    Raises:
        ModelError: a folder is missing, holds a file that may hold code, or is no such model.
    """
    first, second = _load(there), _load(back)
    digests = (folder_digest(there), folder_digest(back))
    return (lambda texts: second(first(texts))), digests


def _load(path: Path) -> Translate:
    import torch
    import transformers

    checked_files(path, kind="translation model")
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
        model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    except Exception as fault:
        raise ModelError(
            f"{path} cannot be loaded as a translation model ({type(fault).__name__}); check its "
            "files",
            code="bad-model",
        ) from None

    def translate(texts: Sequence[str]) -> list[str]:
        said = [""] * len(texts)
        lengths = [len(tokenizer(text)["input_ids"]) if text else 0 for text in texts]
        fit = [n for n, length in enumerate(lengths) if 0 < length <= _MOST_TOKENS]
        fit.sort(key=lambda n: lengths[n])
        for start in range(0, len(fit), _BATCH):
            part = fit[start : start + _BATCH]
            given = tokenizer([texts[n] for n in part], return_tensors="pt", padding=True)
            given.pop("token_type_ids", None)
            with torch.inference_mode():
                made = model.generate(
                    **given, max_new_tokens=_MOST_TOKENS, do_sample=False, num_beams=1
                )
            whole = tokenizer.batch_decode(made, skip_special_tokens=True)
            for n, text, ids in zip(part, whole, made, strict=True):
                # Whoever ran into the limit was not finished.
                done = len(ids) < _MOST_TOKENS or model.generation_config.eos_token_id in ids
                said[n] = text.strip() if done else ""
        return said

    return translate
