"""A text as the tokens of a model on this machine, without loading the model."""

from __future__ import annotations

from model import catalog
from model.errors import ModelError


def tokenize(name: str, text: str) -> list[int]:
    """The text's tokens, without any that only mark a beginning or an end.

    Raises:
        ModelError: no such model here, no fast tokenizer in it, or the extra is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise ModelError(
            "a text is tested in its model's tokens; in privity's folder run: "
            "pip install '.[model]'",
            code="no-tokenizer",
        ) from None
    file = catalog.find(name).path / "tokenizer.json"
    if not file.is_file():
        raise ModelError(
            f"the model {name} has no tokenizer.json; pull it again", code="no-tokenizer"
        )
    found = Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False)
    return [int(token) for token in found.ids]
